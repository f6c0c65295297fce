"""A MONAI Bundle around a torch.export program: ``configs/metadata.json``, ``configs/inference.json``, ``models/``.

Form after the MONAI Bundle specification (docs.monai.io, mb_specification). The network is the program, so that the
bundle runs with MONAI and PyTorch alone; there is no pickled ``model.pt``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.files import write_json

PROGRAM = "models/program.pt2"
_IMPORTS = ["$import torch", "$import numpy", "$import pathlib"]
_NETWORK = "$torch.export.load(pathlib.Path(@bundle_root) / 'models' / 'program.pt2').module()"
_SAVE = "$numpy.save(@output, @images.numpy())"


def lesion_inference(latent_size: int) -> dict[str, Any]:
    """Config that makes ``count`` images of one class: ``images.npy``, float32 (count, channels, side, side).

    Image i comes from the latent of seed ``first_seed`` + i alone, as in a cohort of scanloom.
    """
    latents = (
        f"$torch.stack([torch.randn({latent_size}, generator=torch.Generator().manual_seed(@first_seed + i)) "
        "for i in range(@count)]) * @truncation"
    )
    return {
        "imports": _IMPORTS,
        "bundle_root": ".",
        "output": "$pathlib.Path(@bundle_root) / 'images.npy'",
        "class_index": 0,
        "count": 8,
        "first_seed": 0,
        "truncation": 1.0,
        "network": _NETWORK,
        "latent": latents,
        "classes": "$torch.full((@count,), @class_index)",
        "images": "$torch.no_grad()(@network)(@latent, @classes)",
        "run": [_SAVE],
    }


def translator_inference() -> dict[str, Any]:
    """Config that translates ``stack.npy``, float32 (N, channels, P, P) in [-1, 1], to ``images.npy``."""
    return {
        "imports": _IMPORTS,
        "bundle_root": ".",
        "input": "$pathlib.Path(@bundle_root) / 'stack.npy'",
        "output": "$pathlib.Path(@bundle_root) / 'images.npy'",
        "network": _NETWORK,
        "stack": "$torch.from_numpy(numpy.load(@input, allow_pickle=False))",
        "images": "$torch.no_grad()(@network)(@stack)",
        "run": [_SAVE],
    }


def write_bundle_configs(folder: Path, inference: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Write both configs below ``folder``; the program is written by `programs.write_torch_program`."""
    write_json(folder / "configs" / "inference.json", dict(inference))
    write_json(folder / "configs" / "metadata.json", dict(metadata))


def bundle_metadata(card: Mapping[str, Any], versions: Mapping[str, str], data_format: Mapping[str, Any]) -> Any:
    """Content of ``metadata.json``.

    Args:
        card: the model card.
        versions: of monai, torch and numpy.
        data_format: inputs and outputs of the network.
    """
    return {
        "version": "1.0.0",
        "changelog": {"1.0.0": "exported"},
        "monai_version": versions["monai"],
        "pytorch_version": versions["torch"],
        "numpy_version": versions["numpy"],
        "required_packages_version": {},
        "task": card["scope"],
        "description": card["title"],
        "authors": "not stated",
        "copyright": card["license"],
        "intended_use": card["intended_use"],
        "data_type": "numpy array",
        "network_data_format": dict(data_format),
    }


def tensor_format(channels: int, side: int, meaning: str) -> dict[str, Any]:
    """How metadata describe images (channels, side, side) in network units."""
    return {
        "type": "image",
        "format": meaning,
        "modality": "n/a",
        "num_channels": channels,
        "spatial_shape": [side, side],
        "dtype": "float32",
        "value_range": [-1, 1],
        "is_patch_data": False,
        "channel_def": {str(channel): meaning for channel in range(channels)},
    }
