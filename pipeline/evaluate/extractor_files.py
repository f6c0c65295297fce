"""Feature extractors that the user brings: ONNX, or safetensors weights of a named architecture; by path, with hash.

Images in [-1, 1] are resized to the network's edge, repeated over its channels, and scaled as it was trained. Nothing
is downloaded. ONNX needs onnxruntime (``pip install scanloom[onnx]``).
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.features import BATCH, Extractor, Features
from pipeline.settings import ExtractorSettings


def extractor_hash(settings: ExtractorSettings) -> str:
    """SHA-256 of the file.

    Raises:
        InputError: there is no such file.
    """
    path = Path(settings.path)
    if not path.is_file():
        raise InputError(
            "A feature extractor is a file.",
            found="no file at evaluate.lesions.extractors.path",
            allowed="an ONNX file, or safetensors weights of a named architecture",
            change="Correct the path.",
        )
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def load_extractor(settings: ExtractorSettings) -> Extractor:
    """Open one of the user's extractors.

    Raises:
        InputError: no such file, onnxruntime is absent, or the weights are of another architecture.
    """
    digest = extractor_hash(settings)
    network = _onnx(settings) if settings.architecture == "onnx" else _named(settings)
    return FileExtractor(settings, digest, network)


class FileExtractor:
    """A frozen network from a file.

    Args:
        settings: name, edge, channels and intensity scale.
        sha256: of the file.
        network: images (N, channels, edge, edge) float32 to features (N, ...).
    """

    def __init__(self, settings: ExtractorSettings, sha256: str, network: Any) -> None:
        self._settings, self._sha256, self._network = settings, sha256, network

    @property
    def name(self) -> str:
        """Name for reports."""
        return self._settings.name

    @property
    def version(self) -> str:
        """Architecture and input."""
        return f"{self._settings.architecture} {self._settings.edge_px} px"

    @property
    def sha256(self) -> str:
        """Hash of the file and of how images enter it."""
        scale = f"{self._settings.edge_px} {self._settings.channels} {self._settings.mean} {self._settings.deviation}"
        return hashlib.sha256(f"{self._sha256} {scale}".encode()).hexdigest()

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Features:
        """Embed images (N, C, H, W) in [-1, 1]; returns (N, d) float32, means over positions where there are any."""
        edge = (self._settings.edge_px, self._settings.edge_px)
        parts = []
        for part in torch.split(images.float(), BATCH):
            grey = part.mean(1, keepdim=True)
            small = F.interpolate(grey, edge, mode="bilinear", antialias=True, align_corners=False)
            unit = (small + 1) / 2
            scaled = (unit - self._settings.mean) / self._settings.deviation
            found = np.asarray(self._network(scaled.repeat(1, self._settings.channels, 1, 1).contiguous()))
            parts.append(found.reshape(*found.shape[:2], -1).mean(axis=2))
        return np.concatenate(parts).astype(np.float32)


def _onnx(settings: ExtractorSettings) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            "An ONNX extractor needs onnxruntime.",
            found="onnxruntime is not installed",
            allowed="the optional extra onnx",
            change="Run `pip install scanloom[onnx]`, or use safetensors of a named architecture.",
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(settings.path, options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0].name

    def run(batch: Tensor) -> Any:
        return session.run(None, {entry: batch.numpy()})[0]

    return run


def _named(settings: ExtractorSettings) -> Any:
    """MONAI networks by name, up to the layer before the classes."""
    from monai.networks.nets import DenseNet121, resnet18, resnet50

    weights = load_file(settings.path)
    network: nn.Module
    if settings.architecture == "densenet121":
        network = DenseNet121(2, settings.channels, 2)
        setattr(network.class_layers, "out", nn.Identity())  # noqa: B010 (mypy sees a tensor there)
    else:
        build = {"resnet18": resnet18, "resnet50": resnet50}[settings.architecture]
        network = build(spatial_dims=2, n_input_channels=settings.channels, num_classes=2, shortcut_type="B")
        network.fc = nn.Identity()
    wanted = network.state_dict()
    kept = {name: tensor for name, tensor in weights.items() if name in wanted}
    absent = sorted(set(wanted) - set(kept))
    misfits = [name for name, tensor in kept.items() if tensor.shape != wanted[name].shape]
    if absent or misfits:
        raise InputError(
            "The weights must be of the architecture that is named.",
            found=f"{len(absent)} of {len(wanted)} tensors absent, {len(misfits)} of another shape",
            allowed=f"safetensors of MONAI's {settings.architecture} for {settings.channels} channel(s) in 2-D",
            change="Name the architecture that the weights belong to, or its number of channels.",
        )
    network.load_state_dict(kept)
    return network.eval()
