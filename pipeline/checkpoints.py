"""Checkpoints and weights: safetensors and JSON only, so that loading never executes code.

A checkpoint is a folder with ``tensors.safetensors``, ``state.json`` and ``manifest.json`` (SHA-256 of the two). It
appears whole or not at all; the generation before it is kept, and is used when the newest one is damaged.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.errors import TrainingError
from pipeline.files import atomic_folder, folder_manifest, read_json, write_json

TENSORS_FILE, STATE_FILE, MANIFEST_FILE = "tensors.safetensors", "state.json", "manifest.json"
KEPT_GENERATIONS = 2


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a training needs to go on exactly.

    Attributes:
        tensors: flat name -> tensor.
        state: JSON values.
    """

    tensors: dict[str, Tensor]
    state: dict[str, Any]


def save_checkpoint(folder: Path, images: int, checkpoint: Checkpoint) -> Path:
    """Save under ``folder/<images>``, then drop all but the newest `KEPT_GENERATIONS`."""
    final = folder / f"{images:010d}"
    with atomic_folder(final) as partial:
        save_tensors(partial / TENSORS_FILE, checkpoint.tensors)
        write_json(partial / STATE_FILE, checkpoint.state)
        write_json(partial / MANIFEST_FILE, folder_manifest(partial))
    for old in generations(folder)[:-KEPT_GENERATIONS]:
        shutil.rmtree(old)
    return final


def generations(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    return sorted(path for path in folder.glob("*") if path.is_dir() and path.name.isdigit())


def load_newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint whose content equals its manifest; None where there is no checkpoint at all.

    Raises:
        TrainingError: checkpoints exist but every one is damaged.
    """
    found = generations(folder)
    for path in reversed(found):
        if _intact(path):
            return Checkpoint(load_file(path / TENSORS_FILE), read_json(path / STATE_FILE))
    if found:
        raise TrainingError(
            "A training can only be resumed from an intact checkpoint.",
            found=f"{len(found)} checkpoints, all of them damaged (their SHA-256 differ from the manifest)",
            allowed="at least one whose files equal its manifest",
            change="Start the training again without --resume.",
        )
    return None


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors, contiguous and on the CPU. Shared storage is written once for each name."""
    plain = {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in sorted(tensors.items())}
    save_file(plain, path, metadata=dict(metadata or {}))


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in a safetensors file; no tensor is loaded.

    Raises:
        TrainingError: the file is unreadable.
    """
    try:
        with safe_open(path, framework="pt") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors raises its own type, OSError or ValueError
        raise _unreadable(path, error) from None


def load_weights(path: Path, network: torch.nn.Module) -> None:
    """Load weights into ``network``, exactly: every name and shape must fit.

    Raises:
        TrainingError: the file is unreadable or made for another architecture.
    """
    try:
        tensors = load_file(path)
    except Exception as error:  # safetensors raises its own type, OSError or ValueError
        raise _unreadable(path, error) from None
    own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if own != given:
        odd = sorted(name for name in own.keys() | given.keys() if own.get(name) != given.get(name))
        raise TrainingError(
            "Weights must fit the network that the settings describe.",
            found=f"{len(odd)} tensors differ, first {odd[0]}: file {given.get(odd[0])}, network {own.get(odd[0])}",
            allowed="equal names and shapes",
            change="Use the settings.json stored beside the weights.",
        )
    network.load_state_dict(tensors)


def _unreadable(path: Path, error: Exception) -> TrainingError:
    return TrainingError(
        "Weights must be a readable safetensors file.",
        found=f"{path.name}: {type(error).__name__}",
        allowed="weights written by scanloom",
        change="Train again, or restore the file.",
    )


def flatten_optimizer(name: str, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split an optimizer's state into named tensors and JSON values."""
    state = optimizer.state_dict()
    tensors, scalars = {}, {}
    for index, values in state["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{name}/{index}/{key}"] = value
            else:
                scalars[f"{index}/{key}"] = value
    return tensors, {"scalars": scalars, "param_groups": state["param_groups"]}


def restore_optimizer(
    name: str, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], state: Mapping[str, Any]
) -> None:
    """Inverse of `flatten_optimizer`; moments get the memory layout of their weights, as fused Adam requires."""
    values: dict[int, dict[str, Any]] = {}
    for full, tensor in tensors.items():
        if full.startswith(f"{name}/"):
            index, key = full[len(name) + 1 :].split("/", 1)
            values.setdefault(int(index), {})[key] = tensor
    for full, scalar in state["scalars"].items():
        index, key = full.split("/", 1)
        values.setdefault(int(index), {})[key] = scalar
    optimizer.load_state_dict({"state": values, "param_groups": state["param_groups"]})
    for weight, moments in optimizer.state.items():
        for key, value in moments.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                moments[key] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def _intact(path: Path) -> bool:
    try:
        manifest = read_json(path / MANIFEST_FILE)
    except (OSError, ValueError):
        return False
    return bool(manifest == folder_manifest(path, frozenset({MANIFEST_FILE})))
