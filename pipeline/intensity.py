"""Hounsfield units and MR intensities to network units and back, without loss where it matters.

Networks work in *units*: about [-1, 1]. Three maps live here, each with its inverse:

- CT: a piecewise-linear, strictly increasing map of HU (`PiecewiseLinearMap`). The default `CT_MAP` spends almost half
  of [-1, 1] on soft tissue, -200 to 300 HU, where contrast is fine; it never goes through 8 bits. A straight line, for
  example 8-bit grey to [-1, 1] (`GREY_MAP`), is the case of two knots.
- MR: intensities have no unit, so that two robust percentiles of the body set the scale (`robust_mr_scale`; the
  landmark idea of Nyúl and Udupa, Magn Reson Med 42:1072, 1999, reduced to the two ends).
- int16 storage of units in steps of 1/16384, range [-2, 2).

HU bounds: [-1024, 3071] are the ends of the 12-bit CT scale, as clipped by the SynthRAD2025 evaluation.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float32]

HU_LOW = -1024.0
"""Lowest HU that is kept."""

HU_HIGH = 3071.0
"""Highest HU that is kept."""

MR_UNIT_AT_HIGH = 0.6
"""Unit of the upper MR percentile: a quarter of the window stays free above it for fat, vessels, enhancing lesions."""

INT16_STEPS_PER_UNIT = 16384
"""Storage steps in one unit: int16 then spans [-2, 2)."""


def _increases(knots: npt.NDArray[np.float64]) -> bool:
    return bool(np.isfinite(knots).all() and (np.diff(knots) > 0).all())


@dataclass(frozen=True)
class PiecewiseLinearMap:
    """Strictly increasing piecewise-linear map of HU (or grey levels) to units, with its exact inverse.

    Args:
        knots_hu: HU (or grey levels) of the knots, at least two, strictly increasing.
        knots_unit: units of the same knots, strictly increasing, within [-1, 1].

    Raises:
        InputError: fewer than two knots, unequal numbers, a value that is not finite, knots that do not increase,
            or units outside [-1, 1].
    """

    knots_hu: tuple[float, ...]
    knots_unit: tuple[float, ...]

    def __post_init__(self) -> None:
        hu, unit = np.asarray(self.knots_hu, dtype=np.float64), np.asarray(self.knots_unit, dtype=np.float64)
        if len(hu) == len(unit) >= 2 and _increases(hu) and _increases(unit) and unit[0] >= -1 and unit[-1] <= 1:
            return
        raise InputError(
            "An intensity map needs knots that strictly increase on both sides.",
            found=f"knots_hu {self.knots_hu}, knots_unit {self.knots_unit}",
            allowed="two or more finite knots, equally many on both sides, increasing, units within [-1, 1]",
            change="Correct the knots of the intensity map.",
        )

    def encode(self, hu: Array) -> FloatArray:
        """Map HU of any shape to units (float32); values beyond the outer knots are clipped to them, NaN stays NaN."""
        return np.interp(hu, self.knots_hu, self.knots_unit).astype(np.float32)

    def decode(self, unit: Array) -> FloatArray:
        """Map units of any shape back to HU (float32); values beyond the outer knots are clipped to them."""
        return np.interp(unit, self.knots_unit, self.knots_hu).astype(np.float32)


CT_MAP = PiecewiseLinearMap(knots_hu=(HU_LOW, -200.0, 300.0, HU_HIGH), knots_unit=(-1.0, -0.5, 0.4, 1.0))
"""Default CT map. HU per unit: 1648 in air and lung, 556 in soft tissue, 4618 in bone.

The steepest part keeps an int16 storage step at 0.28 HU, so that storage costs at most 0.15 HU."""

GREY_MAP = PiecewiseLinearMap(knots_hu=(0.0, 255.0), knots_unit=(-1.0, 1.0))
"""8-bit grey levels to [-1, 1], for picture data sets that carry no HU."""


@dataclass(frozen=True)
class MRScale:
    """Linear scale of one MR series: `low` becomes -1 and `high` becomes `MR_UNIT_AT_HIGH`, clipped to [-1, 1].

    Args:
        low: intensity at unit -1, in the intensities of the series.
        high: intensity at unit `MR_UNIT_AT_HIGH`; larger than `low`.

    Raises:
        InputError: `high` is not larger than `low`, or one of them is not finite.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if np.isfinite(self.low) and np.isfinite(self.high) and self.high > self.low:
            return
        raise InputError(
            "An MR scale needs an upper intensity above its lower one.",
            found=f"low {self.low:g}, high {self.high:g}",
            allowed="finite values, high > low",
            change="Check that the scan is not constant inside the body, or widen the percentiles.",
        )

    @property
    def intensity_per_unit(self) -> float:
        """Intensities that one unit spans."""
        return (self.high - self.low) / (MR_UNIT_AT_HIGH + 1.0)

    def encode(self, voxels: Array) -> FloatArray:
        """Map intensities of any shape to units in [-1, 1] (float32), clipped at both ends."""
        unit = (np.asarray(voxels, dtype=np.float64) - self.low) / self.intensity_per_unit - 1.0
        return np.clip(unit, -1.0, 1.0).astype(np.float32)

    def decode(self, unit: Array) -> FloatArray:
        """Map units of any shape to intensities (float32): the inverse of `encode` wherever that did not clip."""
        return ((np.asarray(unit, dtype=np.float64) + 1.0) * self.intensity_per_unit + self.low).astype(np.float32)


def robust_mr_scale(voxels: Array, mask: Array, percentiles: tuple[float, float] = (1.0, 99.0)) -> MRScale:
    """Scale of an MR series from two percentiles of its intensities inside the body.

    Args:
        voxels: (i, j, k) intensities, or any shape.
        mask: same shape, true inside the body.
        percentiles: lower and upper percentile, 0 <= lower < upper <= 100.

    Raises:
        InputError: shapes differ, the mask is empty, the percentiles are out of order, or the body is constant.
    """
    inside = np.asarray(mask).astype(bool)
    if inside.shape != np.shape(voxels) or not inside.any():
        raise InputError(
            "The MR scale is taken from the intensities inside the body mask.",
            found=f"voxels {np.shape(voxels)}, mask {inside.shape} with {int(inside.sum())} voxels inside",
            allowed="equal shapes and a mask that is not empty",
            change="Check the body mask of this series.",
        )
    if not 0 <= percentiles[0] < percentiles[1] <= 100:
        raise InputError(
            "Percentiles of the MR scale must be in order.",
            found=str(percentiles),
            allowed="0 <= lower < upper <= 100",
            change="Set for example (1, 99).",
        )
    low, high = np.percentile(np.asarray(voxels)[inside], percentiles)
    return MRScale(float(low), float(high))


def to_int16(unit: Array) -> npt.NDArray[np.int16]:
    """Units to storage: round(unit * 16384), clipped to int16, that is to [-2, 2).

    Raises:
        InputError: a value is not finite; int16 cannot hold it.
    """
    steps = np.rint(np.asarray(unit, dtype=np.float64) * INT16_STEPS_PER_UNIT)
    if not np.isfinite(steps).all():
        raise InputError(
            "Only finite values can be stored as int16.",
            found=f"{int((~np.isfinite(steps)).sum())} values that are NaN or infinite",
            allowed="finite units",
            change="Find out where the values come from; scans with such voxels belong in quarantine.",
        )
    bounds = np.iinfo(np.int16)
    return np.clip(steps, bounds.min, bounds.max).astype(np.int16)


def from_int16(stored: npt.NDArray[np.int16]) -> FloatArray:
    """Storage to units (float32), exactly: stored / 16384."""
    return np.asarray(stored, dtype=np.float32) / np.float32(INT16_STEPS_PER_UNIT)
