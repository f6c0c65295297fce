"""The images of one volume in order of their position along the normal, and the grid that they make.

Slices are ordered by ImagePositionPatient · normal (PS3.3 C.7.6.2.1.1), never by file name or InstanceNumber.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import InputError, QuarantineError
from pipeline.geometry import Affine, affine_from_dicom, slice_normal
from pipeline.scan_io.dicom.header import FrameHeader
from pipeline.scan_io.dicom.passes import POSITION_ROUNDING_MM, position_numbers
from pipeline.scan_io.dicom.tilt import Shear, check_tilt, shear_of

SPACING_TOLERANCE = 0.01
"""Largest deviation of a slice distance from the median one, as a fraction of it."""


@dataclass(frozen=True, eq=False, slots=True)
class Stack:
    """Order and grid.

    Attributes:
        slices: for each k the numbers of the frames at its position, in the order given; more than one are copies.
        affine: index (column, row, slice) → RAS+ mm; of the corrected grid where there is a shear.
        shear: what is to be corrected, or None.
    """

    slices: tuple[tuple[int, ...], ...]
    affine: Affine
    shear: Shear | None


def stack(
    frames: Sequence[FrameHeader], modality: str, distance_mm: float | None, tilt: float | None, correct_tilt: bool
) -> Stack:
    """Order frames and check that they make an even grid.

    Args:
        frames: images of one volume, at least one.
        modality: MR or CT.
        distance_mm: what the header tells of the slice distance; used for single slices.
        tilt: GantryDetectorTilt in degrees, or None.
        correct_tilt: whether tilted CT is to be corrected.

    Raises:
        QuarantineError: MISSING_SLICE, NONUNIFORM_SPACING, GANTRY_TILT, BAD_ORIENTATION, each with numbers.
    """
    numbers = position_numbers(frames)
    places: list[list[int]] = [[] for _ in range(max(numbers) + 1)]
    for index, number in enumerate(numbers):
        places[number].append(index)
    order = tuple(tuple(indices) for indices in places)
    first = frames[order[0][0]]
    normal = slice_normal(first.orientation)
    positions = np.array([frames[indices[0]].position for indices in order])
    if len(order) == 1:
        return Stack(order, _affine(first, positions[0], normal * (distance_mm or 1.0)), None)
    _check_spacing(positions @ normal)
    step = (positions[-1] - positions[0]) / (len(order) - 1)
    _check_line(positions, step)
    shear = _shear(first, step, normal, len(order))
    check_tilt(0.0 if shear is None else shear.degrees, tilt, modality, correct_tilt)
    if shear is None:
        return Stack(order, _affine(first, positions[0], step), None)
    row, column = _directions(first)
    origin = positions[0] + row * first.pixel_spacing[1] * shear.first[0]
    origin += column * first.pixel_spacing[0] * shear.first[1]
    return Stack(order, _affine(first, origin, normal * float(step @ normal)), shear)


def _directions(frame: FrameHeader) -> tuple[Affine, Affine]:
    """Directions of growing i (column index) and j (row index)."""
    return np.array(frame.orientation[:3]), np.array(frame.orientation[3:])


def _shear(first: FrameHeader, step: Affine, normal: Affine, slices: int) -> Shear | None:
    between_rows, between_columns = first.pixel_spacing
    return shear_of(step, normal, _directions(first), (between_columns, between_rows), slices)


def _affine(frame: FrameHeader, origin: Affine, step: Affine) -> Affine:
    try:
        return affine_from_dicom(frame.orientation, frame.pixel_spacing, origin.tolist(), step.tolist())
    except InputError as error:
        raise QuarantineError("BAD_ORIENTATION", error.found, "Export with valid geometry.") from error


def _check_spacing(along_normal: Affine) -> None:
    """Refuse gaps and uneven distances, and tell where the worst one is."""
    gaps = np.diff(along_normal)
    median = float(np.sort(gaps)[(len(gaps) - 1) // 2])  # the lower one of two, so that one long gap stands out
    allowed = max(SPACING_TOLERANCE * median, POSITION_ROUNDING_MM)
    place = int(np.argmax(np.abs(gaps - median)))
    worst = float(gaps[place])
    if abs(worst - median) <= allowed + 1e-6:
        return
    found = (
        f"a gap of {worst:.3f} mm between slices {place + 1} and {place + 2} of {len(gaps) + 1}, "
        f"among gaps of {median:.3f} mm"
    )
    if worst > 1.5 * median:
        raise QuarantineError("MISSING_SLICE", found, "Send the missing slices.")
    raise QuarantineError("NONUNIFORM_SPACING", found, "Resample the series to even spacing at its source.")


def _check_line(positions: Affine, step: Affine) -> None:
    """Refuse slices that leave the line from the first to the last one."""
    drift = np.linalg.norm(positions - positions[0] - np.outer(np.arange(len(positions)), step), axis=1)
    allowed = 2 * max(SPACING_TOLERANCE * float(np.linalg.norm(step)), 2 * POSITION_ROUNDING_MM)
    worst = int(np.argmax(drift))
    if drift[worst] > allowed:
        found = f"slice {worst + 1} of {len(positions)} leaves the line of the stack by {drift[worst]:.3f} mm"
        raise QuarantineError("NONUNIFORM_SPACING", found, "Resample the series to even spacing at its source.")
