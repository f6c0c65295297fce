"""Frozen embeddings of 2-D images in which cohorts are compared.

A distance between cohorts depends on the features it is taken in, so that every extractor has a name, a version and a
SHA-256 of all its parameters, for the report to print. Two need no download:

- `TextureExtractor`: wavelet scattering (Bruna and Mallat, IEEE TPAMI 35:1872, 2013). Moduli of Morlet wavelet
  transforms, once (S1 = |x ⋆ ψ1| ⋆ φ) and twice (S2 = ||x ⋆ ψ1| ⋆ ψ2| ⋆ φ), averaged (φ) over coarse cells.
  Scattering is Lipschitz to deformations and sees texture, noise and blur. It has no weights, nothing to train.
- `ClassifierExtractor`: penultimate features of a classifier trained on the real training split of the same run. It
  sees what separates the classes, and answers wildly on images unlike any it was trained on.

A ranking of cohorts that differs between the two is a finding, not a nuisance.

Features come as the extractor computes them, standardized by nothing. Scale them with `FeatureScale`, fitted on real
images, before distances are taken, so that no single feature rules; `FeatureScale.bounded` also keeps images that an
extractor explodes on from giving a polynomial kernel values in the millions.
"""

import hashlib
import math
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.classifier import Classifier
from pipeline.errors import InputError

Features = npt.NDArray[np.float32]

BATCH = 64
"""Images embedded at a time."""


class Extractor(Protocol):
    """A named, frozen embedding of images."""

    @property
    def name(self) -> str:
        """Name for reports, e.g. ``scattering``."""

    @property
    def version(self) -> str:
        """Version of the definition; other numbers come out when it differs."""

    @property
    def sha256(self) -> str:
        """Hash of every parameter that the features depend on."""

    def __call__(self, images: Tensor) -> Features:
        """Embed images (N, C, H, W) in [-1, 1]; returns (N, d) float32."""


@dataclass(frozen=True)
class TextureExtractor:
    """Two-layer wavelet scattering with intensity quantiles; deterministic, without weights.

    Per channel: means on a 4 × 4 grid (16), S1 on a 4 × 4 grid (16 per wavelet), S2 over the whole image for every path
    to a coarser scale, and 11 quantiles of intensity. With 3 scales and 4 orientations d = 16 + 192 + 48 + 11 = 267.
    Scattering coefficients s enter as ln(1 + s / 0.05), which brings faint and strong textures to one order of size.

    Args:
        edge: images are resized to edge × edge (antialiased bilinear), a multiple of 8, at least 16.
        scales: dyadic scales; wavelet j has center frequency 3π/4 · 2^-j and width 0.8 · 2^j pixels.
        orientations: orientations over half a turn.

    Raises:
        InputError: a parameter is out of range.
    """

    edge: int = 32
    scales: int = 3
    orientations: int = 4

    def __post_init__(self) -> None:
        if self.edge >= 16 and self.edge % 8 == 0 and self.scales >= 1 and self.orientations >= 1:
            return
        raise InputError(
            "The texture extractor needs a grid that its cells divide.",
            found=f"edge {self.edge}, scales {self.scales}, orientations {self.orientations}",
            allowed="edge a multiple of 8 and at least 16; at least one scale and one orientation",
            change="Use edge 32 or 64 with 3 scales and 4 orientations.",
        )

    @property
    def name(self) -> str:
        """Name for reports: ``scattering-<edge>``."""
        return f"scattering-{self.edge}"

    @property
    def version(self) -> str:
        """Version of the definition."""
        return "1"

    @property
    def sha256(self) -> str:
        """Hash of the definition and its parameters."""
        definition = (
            f"scattering version={self.version} edge={self.edge} scales={self.scales} orientations={self.orientations} "
            f"margin={self.edge // 4} morlet=0.8,3pi/4,slant=4/L grid=4 compression={_COMPRESSION} "
            f"quantiles={_QUANTILES}"
        )
        return hashlib.sha256(definition.encode()).hexdigest()

    def __call__(self, images: Tensor) -> Features:
        """Embed images (N, C, H, W) in [-1, 1]; returns (N, C * d) float32.

        Raises:
            InputError: the images are not a batch.
        """
        count, channels = _check_batch(images)
        bank = torch.from_numpy(morlet_bank(self.edge + self.edge // 2, self.scales, self.orientations)).to(
            images.device
        )
        planes = images.detach().float().reshape(count * channels, 1, *images.shape[2:])
        parts = [self._embed(part, bank) for part in torch.split(planes, BATCH)]
        return torch.cat(parts).reshape(count, -1).cpu().numpy()

    def _embed(self, planes: Tensor, bank: Tensor) -> Tensor:
        """(N, 1, H, W) to (N, d)."""
        small = F.interpolate(planes, (self.edge, self.edge), mode="bilinear", antialias=True, align_corners=False)
        margin = self.edge // 4
        padded = F.pad(small, (margin, margin, margin, margin), mode="reflect")[:, 0]
        first = _moduli(padded, bank.flatten(0, 1))
        inner = slice(margin, margin + self.edge)
        second = [
            _moduli(first[:, j * self.orientations : (j + 1) * self.orientations], bank[j + 1 :].flatten(0, 1))[
                ..., inner, inner
            ].mean(dim=(-2, -1))
            for j in range(self.scales - 1)
        ]
        quantiles = torch.quantile(small.flatten(1), torch.tensor(_QUANTILES, device=small.device), dim=1).T
        layers = [_cells(first[:, :, inner, inner]), *second]
        scattering = torch.cat([layer.flatten(1) for layer in layers], dim=1)
        return torch.cat([_cells(small).flatten(1), torch.log1p(scattering / _COMPRESSION), quantiles], dim=1)


_COMPRESSION = 0.05
_QUANTILES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@cache
def morlet_bank(edge: int, scales: int, orientations: int) -> npt.NDArray[np.float32]:
    """Morlet wavelets in the Fourier domain on an edge × edge torus.

    ψ̂(ω) = g(ω − ξ) − κ g(ω), g a Gaussian of width 1/σ, slant 4/orientations; κ makes ψ̂(0) = 0, so that the wavelets
    ignore brightness. Summed over the neighboring periods of ω.

    Returns:
        (scales, orientations, edge, edge) float32.
    """
    omega = 2 * np.pi * np.fft.fftfreq(edge)
    periods = 2 * np.pi * np.arange(-2, 3)
    bank = np.zeros((scales, orientations, edge, edge))
    for j in range(scales):
        for turn in range(orientations):
            angle = np.pi * turn / orientations
            wavelet, envelope = np.zeros((edge, edge)), np.zeros((edge, edge))
            for down in periods:
                for across in periods:
                    rows, columns = np.meshgrid(omega + down, omega + across, indexing="ij")
                    along = rows * math.sin(angle) + columns * math.cos(angle)
                    aside = columns * math.sin(angle) - rows * math.cos(angle)
                    spread = (0.8 * 2**j) ** 2 / 2
                    slant = (orientations / 4) ** 2
                    wavelet += np.exp(-spread * ((along - 0.75 * np.pi / 2**j) ** 2 + slant * aside**2))
                    envelope += np.exp(-spread * (along**2 + slant * aside**2))
            bank[j, turn] = wavelet - wavelet[0, 0] / envelope[0, 0] * envelope
    return bank.astype(np.float32)


def _moduli(signals: Tensor, wavelets: Tensor) -> Tensor:
    """|x ⋆ ψ| of signals (..., H, W) with every one of K wavelets (K, H, W): (..., K, H, W)."""
    response: Tensor = torch.fft.ifft2(torch.fft.fft2(signals).unsqueeze(-3) * wavelets)
    return response.abs()


def _cells(maps: Tensor) -> Tensor:
    """Means over the cells of a 4 × 4 grid: (N, K, H, W) to (N, K, 4, 4)."""
    return F.avg_pool2d(maps, (maps.shape[-2] // 4, maps.shape[-1] // 4))


class ClassifierExtractor:
    """Penultimate features of a trained classifier.

    Args:
        network: the classifier; it is used in evaluation mode and is not changed.
        name: name for reports.
    """

    def __init__(self, network: Classifier, name: str = "classifier") -> None:
        self._network = network
        self._name = name

    @property
    def name(self) -> str:
        """Name for reports."""
        return self._name

    @property
    def version(self) -> str:
        """Version of the definition."""
        return "1"

    @property
    def sha256(self) -> str:
        """Hash of names, shapes and values of all weights and buffers."""
        digest = hashlib.sha256(self._name.encode())
        for key, value in sorted(self._network.state_dict().items()):
            tensor = value.detach().cpu().contiguous()
            digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Features:
        """Embed images (N, C, H, W) in [-1, 1]; returns (N, 8 * width) float32.

        Raises:
            InputError: the images are not a batch.
        """
        _check_batch(images)
        training = self._network.training
        self._network.eval()
        device = next(self._network.parameters()).device
        parts = [self._network.features(part.float().to(device)).cpu() for part in torch.split(images, BATCH)]
        self._network.train(training)
        return torch.cat(parts).numpy()


@dataclass(frozen=True)
class FeatureScale:
    """Mean and standard deviation of a reference cohort, per feature.

    Args:
        mean: (d,) means.
        deviation: (d,) standard deviations; features that never vary have 1 here and are left unscaled.
    """

    mean: Features
    deviation: Features

    @classmethod
    def fit(cls, features: Features) -> "FeatureScale":
        """Scale of a cohort's features (N, d)."""
        deviation = features.std(axis=0, dtype=np.float64)
        constant = deviation <= 1e-6 * (1 + np.abs(features).max(axis=0, initial=0))
        return cls(
            mean=features.mean(axis=0, dtype=np.float64).astype(np.float32),
            deviation=np.where(constant, 1.0, deviation).astype(np.float32),
        )

    def apply(self, features: Features) -> Features:
        """(features − mean) / deviation, (N, d) float32."""
        return (features - self.mean) / self.deviation

    def bounded(self, features: Features) -> Features:
        """Standardized features z, (N, d), shrunk along their direction: z / √((1 + ‖z‖²/d) / 2).

        Real images have ‖z‖² ≈ d and stay as they are; nothing gets farther out than ‖z‖² = 2d. The cubic kernel of
        KID is then at most 27, MMD² at most 56, and between 0 and some units in practice.
        """
        scaled = self.apply(features).astype(np.float64)
        return np.asarray(scaled / np.sqrt((1 + np.square(scaled).mean(axis=1, keepdims=True)) / 2), dtype=np.float32)


def _check_batch(images: Tensor) -> tuple[int, int]:
    """N and C of a batch of images."""
    if images.ndim == 4 and 0 not in images.shape:
        return images.shape[0], images.shape[1]
    raise InputError(
        "Features are taken from a batch of images.",
        found=f"shape {tuple(images.shape)}",
        allowed="(N, C, H, W), none of them zero",
        change="Add the missing axis, or check that the cohort is not empty.",
    )
