"""Segments onto a voxel grid, by the position of every frame."""

import itertools
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import QuarantineError
from pipeline.geometry import Geometry
from pipeline.scan_io.segmentation import Frame, Segmentation

FRAME_TOLERANCE = 0.05
"""Largest distance of a frame's pixel from its voxel along each axis of the image, in voxels."""

_LARGEST_RATIO = 1.5
"""Spacing of frames that are described as further apart than slices, in slice spacings; they would leave gaps."""

Indices = NDArray[np.int64]


@dataclass
class _Voxels:
    """What was found of one segment: voxels of each frame, where frames lie, and why it cannot be used."""

    parts: list[Indices] = field(default_factory=list)
    places: set[bytes] = field(default_factory=set)
    refusal: QuarantineError | None = None


def segment_voxels(
    segmentation: Segmentation, wanted: Collection[int], grid: Geometry
) -> Mapping[int, Indices | QuarantineError]:
    """Flat indices of the voxels of every wanted segment, or why it has none.

    Reasons: MASK_GRID_MISMATCH for a frame beside the voxels of the image; OUTSIDE_GRID; REPEATED_FRAMES for two frames
    of a segment in one place, e.g. of two time points; EMPTY_LESION.

    Raises:
        QuarantineError: frames that cannot be read.
    """
    found: dict[int, _Voxels] = defaultdict(_Voxels)
    for frame in segmentation.frames():
        if frame.segment is not None and frame.segment not in wanted:
            continue
        for number, rows, columns in _drawn(segmentation, frame, wanted):
            _add(found[number], frame, grid, rows, columns)
    return {number: _result(found[number]) for number in wanted}


def _drawn(
    segmentation: Segmentation, frame: Frame, wanted: Collection[int]
) -> Iterator[tuple[int, NDArray[Any], NDArray[Any]]]:
    """Segments in a frame, with the rows and columns of their pixels."""
    values = segmentation.values(frame)
    for number in [frame.segment] if frame.segment is not None else np.unique(values).tolist():
        if number in wanted:
            rows, columns = np.nonzero(values == number)
            if rows.size:
                yield number, rows, columns


def _add(segment: _Voxels, frame: Frame, grid: Geometry, rows: NDArray[Any], columns: NDArray[Any]) -> None:
    place = np.round(frame.affine, 3).tobytes()
    try:
        if place in segment.places:
            found = "several frames of a segment in one place"
            raise QuarantineError("REPEATED_FRAMES", found, "Export one time point, or one frame for each place.")
        segment.places.add(place)
        segment.parts.append(_voxels(frame, grid, rows, columns))
    except QuarantineError as error:
        segment.refusal = segment.refusal or error


def _voxels(frame: Frame, grid: Geometry, rows: NDArray[Any], columns: NDArray[Any]) -> Indices:
    """Flat indices of the voxels at the pixels of a frame; what holds at their outermost ones holds at all."""
    steps = _steps(frame, grid)
    outermost = np.array(list(itertools.product((columns.min(), columns.max()), (rows.min(), rows.max()))))
    index = grid.to_index((np.column_stack([outermost, np.tile([0, 1], (4, 1))]) @ frame.affine.T)[:, :3])
    voxels = np.rint(index[0]).astype(np.int64) + (outermost - outermost[0]) @ steps.T
    off = np.abs(index - voxels)
    if off.max() > FRAME_TOLERANCE:
        worst = float(np.linalg.norm(off * grid.spacing_mm, axis=1).max())
        raise _mismatch(f"a frame whose pixels lie up to {worst:.3g} mm beside the voxels of the image")
    beyond = np.maximum(-voxels, voxels - np.array(grid.shape) + 1).max(axis=0)
    if beyond.max() > 0:
        found = f"a segment that reaches {(beyond * grid.spacing_mm).max():.3g} mm beyond the image"
        raise QuarantineError("OUTSIDE_GRID", found, "Add the missing slices, or draw on the grid of the image.")
    strides = np.array([grid.shape[1] * grid.shape[2], grid.shape[2], 1]) @ np.column_stack([steps, voxels[0]])
    return np.asarray(strides[2] + (columns - columns.min()) * strides[0] + (rows - rows.min()) * strides[1])


def _steps(frame: Frame, grid: Geometry) -> Indices:
    """Voxels from one column, and from one row, to the next, (3, 2).

    Raises:
        QuarantineError: MASK_GRID_MISMATCH for pixels that are not as large as voxels, or do not run along two axes of
            the image, or for slices too far apart.
    """
    exact = np.linalg.solve(grid.affine[:3, :3], frame.affine[:3, :2])
    steps: Indices = np.rint(exact).astype(np.int64)
    along = np.abs(steps)
    if np.abs(exact - steps).max() > FRAME_TOLERANCE or along.sum(axis=0).tolist() != [1, 1]:
        sizes = " x ".join(f"{size:.4g}" for size in np.linalg.norm(frame.affine[:3, :2], axis=0))
        raise _mismatch(f"a frame of {sizes} mm pixels that does not run along two axes of the image")
    across = grid.spacing_mm[int(np.argmin(along.sum(axis=1)))]
    if frame.slice_spacing_mm is not None and frame.slice_spacing_mm > _LARGEST_RATIO * across:
        raise _mismatch(f"frames {frame.slice_spacing_mm:.4g} mm apart on slices {across:.4g} mm apart")
    return steps


def _mismatch(found: str) -> QuarantineError:
    advice = "Draw or resample the segmentation on the grid of the image."
    return QuarantineError("MASK_GRID_MISMATCH", found, advice)


def _result(segment: _Voxels) -> Indices | QuarantineError:
    if segment.refusal is not None:
        return segment.refusal
    if not segment.parts:
        return QuarantineError("EMPTY_LESION", "a segment without voxels", "Leave the segment out.")
    return np.concatenate(segment.parts)
