"""How tissues look: Hounsfield units for CT, relaxation for spin-echo MR, and the imperfections of both.

MR: S = 2000 · PD · (1 − exp(−TR/T1)) · exp(−TE/T2), then partial-volume blur, a smooth bias field within ±20 %, and
Rician noise √((S + n₁)² + n₂²). CT: HU with tissue texture, blur, and correlated Gaussian noise.

The values are rounded and near those published for 1.5 T: brain, CSF: Collins et al. 1998 (BrainWeb) and Stanisz et al.
2005; fat, marrow, muscle: Gold et al. 2004; pelvic organs: de Bazelaire et al. 2004; cortical bone: Reichert et al.
2005 (T2 below 1 ms). HU: near Schneider et al. 1996 at 120 kVp. They serve contrast, not quantitative work.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.errors import InputError
from pipeline.phantom.anatomy import Field, Tissue, smooth_noise

SIGNAL_SCALE = 2000.0
"""Signal of unit proton density without any relaxation loss."""

BIAS_AMPLITUDE = 0.2
"""Largest relative departure of the bias field from 1."""

NOISE_MR, NOISE_HU = 16.0, 12.0
"""Standard deviation of each noise channel of MR, and of CT noise in HU."""


@dataclass(frozen=True)
class TissueProperties:
    """Hounsfield units (mean, texture deviation), proton density relative to water, T1 and T2 in ms."""

    hu: float
    hu_deviation: float
    proton_density: float
    t1_ms: float
    t2_ms: float


PROPERTIES: dict[Tissue, TissueProperties] = {
    Tissue.AIR: TissueProperties(-1000, 0, 0.0, 1000, 10),
    Tissue.SKIN: TissueProperties(55, 8, 0.60, 600, 40),
    Tissue.FAT: TissueProperties(-95, 8, 0.90, 300, 80),
    Tissue.MUSCLE: TissueProperties(55, 6, 0.79, 1000, 45),
    Tissue.CORTICAL_BONE: TissueProperties(1250, 60, 0.10, 300, 0.5),
    Tissue.DIPLOE: TissueProperties(480, 60, 0.55, 400, 60),
    Tissue.MARROW: TissueProperties(230, 40, 0.80, 350, 75),
    Tissue.CSF: TissueProperties(8, 2, 1.00, 2600, 330),
    Tissue.GRAY_MATTER: TissueProperties(38, 3, 0.84, 950, 90),
    Tissue.WHITE_MATTER: TissueProperties(29, 3, 0.74, 560, 72),
    Tissue.VITREOUS: TissueProperties(6, 2, 1.00, 3200, 700),
    Tissue.URINE: TissueProperties(5, 2, 1.00, 3200, 900),
    Tissue.SOFT_ORGAN: TissueProperties(42, 5, 0.88, 1300, 88),
    Tissue.CAVITY_AIR: TissueProperties(-1000, 0, 0.0, 1000, 10),
    Tissue.FIDUCIAL: TissueProperties(20, 3, 1.00, 260, 110),
}
"""Properties of every tissue."""

SEQUENCES: dict[str, tuple[float, float]] = {"T1": (500.0, 12.0), "T2": (4000.0, 100.0)}
"""Repetition and echo time, ms, of the spin-echo sequences."""


def spin_echo_signal(properties: TissueProperties, sequence: str) -> float:
    """Noise-free spin-echo signal S(PD, T1, T2; TR, TE) of one tissue.

    >>> round(spin_echo_signal(PROPERTIES[Tissue.WHITE_MATTER], "T1"))
    739
    """
    if sequence not in SEQUENCES:
        raise InputError(
            "A phantom needs a known MR sequence", found=sequence, allowed=", ".join(SEQUENCES), change="choose one"
        )
    repetition, echo = SEQUENCES[sequence]
    recovered = 1.0 - np.exp(-repetition / properties.t1_ms)
    return float(SIGNAL_SCALE * properties.proton_density * recovered * np.exp(-echo / properties.t2_ms))


def signal_of_tissue(tissue: NDArray[np.uint8], sequence: str) -> Field:
    """Noise-free, sharp MR signal of a tissue map."""
    table = np.array([spin_echo_signal(PROPERTIES[item], sequence) for item in Tissue], dtype=np.float32)
    return np.asarray(table[tissue])


def hu_of_tissue(tissue: NDArray[np.uint8], spacing_mm: Sequence[float], rng: np.random.Generator) -> Field:
    """Noise-free, sharp HU of a tissue map, with texture inside tissues."""
    means = np.array([PROPERTIES[item].hu for item in Tissue], dtype=np.float32)
    deviations = np.array([PROPERTIES[item].hu_deviation for item in Tissue], dtype=np.float32)
    texture = smooth_noise(rng, tissue.shape, spacing_mm, 8.0)
    return np.asarray(means[tissue] + deviations[tissue] * texture)


def blur(image: Field) -> Field:
    """Partial-volume blur: Gaussian of 0.55 voxels in plane and 0.35 across."""
    return np.asarray(ndimage.gaussian_filter(image, (0.55, 0.55, 0.35), mode="nearest"), dtype=np.float32)


def add_ct_noise(hu: Field, rng: np.random.Generator) -> NDArray[np.int16]:
    """Add noise correlated over neighboring pixels, as reconstruction kernels make it; round to int16."""
    noise = ndimage.gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), (0.6, 0.6, 0.0), mode="wrap")
    return np.asarray(np.clip(np.rint(hu + noise * (NOISE_HU / noise.std())), -1024, 3071), dtype=np.int16)


def bias_field(shape: Sequence[int], rng: np.random.Generator) -> Field:
    """Smooth receive-coil inhomogeneity within 1 ± `BIAS_AMPLITUDE`: a random quadratic polynomial."""
    axes = np.meshgrid(*(np.linspace(-1, 1, size, dtype=np.float32) for size in shape), indexing="ij", sparse=True)
    linear, square, cross = rng.normal(size=3), rng.normal(size=3), rng.normal(size=3)
    field = np.zeros(tuple(shape), dtype=np.float32)
    for axis in range(3):
        other = axes[(axis + 1) % 3]
        field = field + linear[axis] * axes[axis] + square[axis] * axes[axis] ** 2 + cross[axis] * axes[axis] * other
    field = field - field.mean()
    return np.asarray(1.0 + BIAS_AMPLITUDE * rng.uniform(0.4, 1.0) * field / np.abs(field).max(), dtype=np.float32)


def add_mr_imperfections(signal: Field, rng: np.random.Generator) -> NDArray[np.int16]:
    """Apply a bias field and Rician noise (Gudbjartsson and Patz 1995); round to int16."""
    biased = signal * bias_field(signal.shape, rng)
    real, imaginary = (NOISE_MR * rng.standard_normal(signal.shape, dtype=np.float32) for _ in range(2))
    return np.asarray(np.clip(np.rint(np.hypot(biased + real, imaginary)), 0, 4095), dtype=np.int16)
