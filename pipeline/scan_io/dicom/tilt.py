"""CT stacked off its normal by a tilted gantry: measured, checked against the header, and corrected by shear.

With a tilted gantry the table moves along the patient while slices stay parallel to the gantry: each slice is shifted
in its plane against the one before. The correction moves every slice back by linear interpolation in its plane, onto a
grid that is perpendicular to the slices and large enough to cut nothing off. Voxels keep their place in the patient.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import QuarantineError
from pipeline.geometry import Affine

TILT_TOLERANCE_DEGREES = 0.1
"""Smallest angle between stacking direction and slice normal that counts as a tilt."""

DRIFT_TOLERANCE_MM = 0.05
"""Smallest in-plane shift over the whole stack that counts as a tilt; positions are rounded to as few as 0.01 mm."""

AGREEMENT_DEGREES = 0.5
"""Largest difference to GantryDetectorTilt (0018,1120)."""


@dataclass(frozen=True, slots=True)
class Shear:
    """Shift of slices in their plane.

    Attributes:
        per_slice: voxels along (i, j) from one slice to the next.
        degrees: angle between stacking direction and normal.
        slices: how many.
    """

    per_slice: tuple[float, float]
    degrees: float
    slices: int

    @property
    def first(self) -> tuple[int, int]:
        """Index of the enlarged grid's origin in the grid of slice 0, (i, j)."""
        i, j = (math.floor(min(0.0, shift * (self.slices - 1))) for shift in self.per_slice)
        return i, j

    @property
    def added(self) -> tuple[int, int]:
        """Voxels that the grid is larger by, (i, j)."""
        i, j = (math.ceil(abs(shift) * (self.slices - 1)) for shift in self.per_slice)
        return i, j

    def moved(self, pixels: NDArray[np.generic], number: int, fill: float) -> NDArray[np.float32]:
        """A slice (rows, columns) on the enlarged grid, ``fill`` outside."""
        columns, rows = self.added
        moved = _shifted(pixels.astype(np.float32), self.per_slice[1] * number - self.first[1], rows, fill)
        return _shifted(moved.T, self.per_slice[0] * number - self.first[0], columns, fill).T


def _shifted(values: NDArray[np.float32], shift: float, added: int, fill: float) -> NDArray[np.float32]:
    """Rows moved down by ``shift`` ≥ 0 into ``added`` more rows, linearly interpolated."""
    count = values.shape[0]
    whole = min(math.floor(shift + 1e-9), added)
    rest = np.float32(max(0.0, shift - whole))
    shape = (count + added + 1, values.shape[1])
    moved = np.full(shape, fill, dtype=np.float32)
    moved[whole : whole + count] = values
    if rest > 1e-6:
        before = np.roll(moved, 1, axis=0)
        before[0] = fill
        moved += rest * (before - moved)
    return moved[: count + added]


def shear_of(
    step: Affine, normal: Affine, directions: tuple[Affine, Affine], spacing: tuple[float, float], slices: int
) -> Shear | None:
    """The shear of a stack, or None where it is within what rounding of positions explains.

    Args:
        step: vector from one slice to the next, LPS+ mm.
        normal: slice normal, LPS+.
        directions: unit vectors of growing i and j, LPS+.
        spacing: mm along i and j.
        slices: how many.
    """
    along = float(step @ normal)
    across = step - along * normal
    degrees = math.degrees(math.atan2(float(np.linalg.norm(across)), along))
    drift = float(np.linalg.norm(across)) * (slices - 1)
    if degrees <= TILT_TOLERANCE_DEGREES or drift <= DRIFT_TOLERANCE_MM:
        return None
    i, j = (float(across @ direction) / size for direction, size in zip(directions, spacing, strict=True))
    return Shear((i, j), degrees, slices)


def check_tilt(measured: float, told: float | None, modality: str, correct: bool) -> None:
    """Refuse a tilt that is not to be corrected, or that the header contradicts.

    Args:
        measured: degrees between stacking direction and normal.
        told: GantryDetectorTilt in degrees, or None.
        modality: CT alone can be tilted.
        correct: whether to correct.

    Raises:
        QuarantineError: GANTRY_TILT.
    """
    if told is not None and modality == "CT" and abs(abs(told) - measured) > AGREEMENT_DEGREES:
        found = f"slices stacked {measured:.2f} degrees off their normal, GantryDetectorTilt {told:.2f} degrees"
        raise QuarantineError("GANTRY_TILT", found, "Correct positions or GantryDetectorTilt at the source.")
    if measured and (modality != "CT" or not correct):
        found = f"{modality} slices stacked {measured:.2f} degrees off their normal"
        advice = "Set ingest.gantry_tilt=correct to resample CT." if modality == "CT" else "Resample it at its source."
        raise QuarantineError("GANTRY_TILT", found, advice)
