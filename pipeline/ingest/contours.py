"""Contours onto a voxel grid: which voxel centers they enclose, slice by slice, in the index space of the image.

The slice of a contour is told by its plane, which must lie within `PLANE_TOLERANCE` slice distances of a slice, and
must not contradict the images that the contour names. On each slice all contours of a structure enclose the centers
that a ray crosses an odd number of lines to reach: an inner contour is a hole, a keyhole contour works as it is, and of
two contours with a common side every center belongs to one. A center on a line belongs to the side of growing index.
Nothing is drawn between contours; contours on every second slice or fewer are refused.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import QuarantineError
from pipeline.geometry import Geometry
from pipeline.scan_io.structure_set import Contour, Roi

PLANE_TOLERANCE = 0.1
"""Largest distance of a contour point from its slice, in slice distances."""

EDGE_TOLERANCE = 0.01
"""How far a contour may lie beyond the border of the outermost voxels, in voxels."""

_DECIMALS = 6
"""Of an index; so that a line through voxel centers does not fall to one side or the other by rounding."""

Indices = NDArray[np.int64]
Points = NDArray[np.float64]


def enclosed(size: tuple[int, int], lines: Sequence[Points]) -> NDArray[np.bool_]:
    """Voxel centers that closed lines enclose by the even-odd rule.

    Args:
        size: voxels along (i, j).
        lines: (n, 2) continuous indices (i, j) each; the last point joins the first.

    Returns:
        (i, j); a center on a line is inside where the inside lies toward growing i, else growing j.
    """
    inside = np.zeros(size, bool)
    points = np.concatenate(lines)
    first = np.clip(np.floor(points.min(axis=0)), 0, size).astype(int)
    last = np.clip(np.ceil(points.max(axis=0)) + 1, first, size).astype(int)
    box = tuple((last - first).tolist())
    inside[first[0] : last[0], first[1] : last[1]] = _enclosed((box[0], box[1]), [line - first for line in lines])
    return inside


def _enclosed(size: tuple[int, int], lines: Sequence[Points]) -> NDArray[np.bool_]:
    """`enclosed`, without the search for the part of the grid that lines can reach."""
    crossings = np.zeros((size[0] + 1, size[1]), np.int32)
    for line in lines:
        starts, ends = line, np.roll(line, -1, axis=0)
        upward = (starts[:, 1] <= ends[:, 1])[:, None]
        low, high = np.where(upward, starts, ends), np.where(upward, ends, starts)
        first = np.clip(np.ceil(low[:, 1]), 0, size[1]).astype(int)
        counts = np.clip(np.ceil(high[:, 1]), 0, size[1]).astype(int) - first
        side = np.repeat(np.arange(len(line)), counts)
        row = np.arange(len(side)) - np.repeat(np.cumsum(counts) - counts, counts) + first[side]
        slope = (high[side, 0] - low[side, 0]) / (high[side, 1] - low[side, 1])
        place = low[side, 0] + (row - low[side, 1]) * slope
        np.add.at(crossings, (np.clip(np.ceil(place), 0, size[0]).astype(int), row), 1)
    return np.asarray(np.cumsum(crossings, axis=0)[:-1] % 2 == 1)


def roi_voxels(roi: Roi, grid: Geometry, slices: Mapping[str, Sequence[int]], *, by_images: bool) -> Indices:
    """Flat indices of the voxels of a structure.

    Args:
        roi: the structure.
        grid: of the image.
        slices: SOP Instance UID → its slices of the grid.
        by_images: a contour that names images must name one of the grid.

    Raises:
        QuarantineError: NO_CLOSED_CONTOUR, MISSING_REFERENCE, CONTOUR_OFF_SLICE, REFERENCE_CONFLICT, OUTSIDE_GRID,
            CONTOUR_SPACING, EMPTY_LESION.
    """
    if not roi.contours:
        found = f"{roi.open_contours} points or open lines and no closed contour"
        raise QuarantineError("NO_CLOSED_CONTOUR", found, "Draw closed contours, or leave the structure out.")
    if by_images:
        _check_images(roi.contours, slices)
    planes: dict[int, dict[bytes, Points]] = defaultdict(dict)
    for contour in roi.contours:
        points = np.round(grid.to_index(contour.points), _DECIMALS)
        k = _slice_of(points, grid, [place for uid in contour.images for place in slices.get(uid, ())])
        planes[k][points.tobytes()] = points[:, :2]  # a line given twice counts once
    _check_inside([points for lines in planes.values() for points in lines.values()], grid)
    _check_spacing(sorted(planes), grid)
    size = grid.shape[:2]
    parts = []
    for k, lines in planes.items():
        i, j = np.nonzero(enclosed((size[0], size[1]), list(lines.values())))
        parts.append(np.ravel_multi_index((i, j, np.full_like(i, k)), grid.shape))
    voxels = np.concatenate(parts).astype(np.int64)
    if not voxels.size:
        found = f"{len(roi.contours)} contours that enclose no voxel center"
        raise QuarantineError("EMPTY_LESION", found, "Leave the structure out, or use an image of smaller voxels.")
    return voxels


def _check_images(contours: Sequence[Contour], slices: Mapping[str, Sequence[int]]) -> None:
    lost = sum(bool(contour.images) and slices.keys().isdisjoint(contour.images) for contour in contours)
    if lost:
        found = f"{lost} of {len(contours)} contours on images that are not in the series"
        raise QuarantineError("MISSING_REFERENCE", found, "Add the missing images to the input.")


def _slice_of(points: Points, grid: Geometry, named: Sequence[int]) -> int:
    """Slice in whose plane a contour lies."""
    k = int(np.rint(np.median(points[:, 2])))
    distance = float(np.abs(points[:, 2] - k).max())
    if distance > PLANE_TOLERANCE:
        found = f"a contour {distance * grid.spacing_mm[2]:.3g} mm off the nearest slice"
        advice = f"Draw on slices of the image; up to {PLANE_TOLERANCE:g} slice distances are allowed."
        raise QuarantineError("CONTOUR_OFF_SLICE", found, advice)
    beyond = max(-k, k - grid.shape[2] + 1)
    if beyond > 0:
        raise _outside(beyond * grid.spacing_mm[2])
    if named and k not in named:
        away = min(abs(k - place) for place in named) * grid.spacing_mm[2]
        found = f"a contour {away:.3g} mm from the image that it names"
        raise QuarantineError("REFERENCE_CONFLICT", found, "Export image and structure set again, together.")
    return k


def _check_inside(lines: Sequence[Points], grid: Geometry) -> None:
    points = np.concatenate(lines)
    beyond = np.maximum(-0.5 - points, points - (np.array(grid.shape[:2]) - 0.5)).max(axis=0)
    if beyond.max() > EDGE_TOLERANCE:
        raise _outside(float((beyond * grid.spacing_mm[:2]).max()))


def _outside(distance_mm: float) -> QuarantineError:
    found = f"a contour that reaches {distance_mm:.3g} mm beyond the image"
    return QuarantineError("OUTSIDE_GRID", found, "Add the missing slices, or correct the contours.")


def _check_spacing(planes: Sequence[int], grid: Geometry) -> None:
    steps = np.diff(planes)
    if steps.size and steps.min() > 1:
        found = f"contours {steps.min() * grid.spacing_mm[2]:.3g} mm apart on slices of {grid.spacing_mm[2]:.3g} mm"
        advice = "Interpolate the contours where they were drawn; nothing is drawn between them."
        raise QuarantineError("CONTOUR_SPACING", found, advice)
