"""Rigid registration of a CT to an MR of the same subject, through SimpleITK.

Mattes mutual information (Mattes et al., IEEE TMI 22:120, 2003; 32 bins) over every voxel in and around the MR's body,
on grids of 8, 4 and 2 mm. The coarsest one is started from several places, because two frames of reference need have
nothing in common. One thread and no random sampling: equal input gives equal output.

Space is RAS+ mm. A result is a matrix that maps places in the MR to places in the CT, so that the CT lies on the MR
once its affine is multiplied by the inverse.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from pipeline.geometry import Affine, Geometry, geometry_with_spacing
from pipeline.prepare.bend import Bend
from pipeline.resampling import one_thread, resample

Volume = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

LEVELS_MM = (8.0, 4.0, 2.0)
"""Voxel sizes of the grids, coarse to fine; an axis that is coarser already stays as it is."""

CT_RANGE_HU = (-1000.0, 1300.0)
"""HU beyond are clipped: metal must not fill the histogram."""

START_OFFSETS_MM = (-90.0, -60.0, -30.0, 0.0, 30.0, 60.0, 90.0)
"""Starts along the body, from where the middles of both bodies meet: fields of view differ most in this direction."""

LOST_INFORMATION = 0.02
"""Share of the mutual information before that may be lost: interpolation changes it too."""

_BINS = 32
_MARGIN_MM = 10.0
_KEPT_STARTS = 3
_ITERATIONS, _FIRST_STEP_MM, _LAST_STEP_MM = 100, 4.0, 0.01
_SMALLEST_OVERLAP = 0.3


@dataclass(frozen=True, eq=False)
class Side:
    """One image of a pair.

    Attributes:
        voxels: (i, j, k) in canonical order.
        grid: where they lie.
        body: same shape.
    """

    voxels: Volume
    grid: Geometry
    body: Mask

    def at_level(self, spacing_mm: float) -> "Side":
        """The same on a grid of this voxel size, blurred as needed."""
        wanted = [max(spacing_mm, own) for own in self.grid.spacing_mm]
        grid = geometry_with_spacing(self.grid, wanted)
        voxels = resample(self.voxels, self.grid.affine, grid, antialias=True)
        return Side(voxels, grid, resample(self.body, self.grid.affine, grid, order=0) > 0)

    def moved(self, matrix: Affine) -> "Side":
        """The same image elsewhere: its affine multiplied by ``matrix``."""
        return Side(self.voxels, Geometry(self.grid.shape, matrix @ self.grid.affine), self.body)


@dataclass(frozen=True, eq=False)
class Transform:
    """Places in the MR to places in the CT.

    Attributes:
        rigid: 4×4, RAS+ mm.
        bend: of the MR's space before it is moved; None for a rigid transform.
    """

    rigid: Affine
    bend: Bend | None = None

    def map(self, points_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Map points (n, 3)."""
        bent = points_mm if self.bend is None else self.bend.move(points_mm)
        return np.asarray(bent @ self.rigid[:3, :3].T + self.rigid[:3, 3])

    def warp(self, ct: npt.NDArray[Any], affine: Affine, target: Geometry, fill: float) -> Volume:
        """The CT on a grid of the MR, float32, interpolated once; ``fill`` beyond its field of view."""
        moved = inverse(self.rigid) @ affine
        bent = None if self.bend is None else self.bend.on(target)
        return resample(ct.astype(np.float32), moved, target, fill=fill, antialias=True, displacement_mm=bent)


def register(mr: Side, ct: Side, *, same_frame: bool) -> Transform:
    """Find the rigid transform from an MR to a CT.

    Args:
        mr: intensities ≥ 0.
        ct: HU, outside the body air.
        same_frame: both are in one frame of reference, so that the search starts there and nowhere else.
    """
    levels = [(mr.at_level(spacing), ct.at_level(spacing)) for spacing in LEVELS_MM]
    with one_thread():
        rigid = _best_start(*levels[0], starts(mr, ct, same_frame=same_frame))
        for fixed, moving in levels[1:]:
            rigid = _better(fixed, moving, rigid, refine(fixed, moving, rigid))
    return Transform(rigid)


def starts(mr: Side, ct: Side, *, same_frame: bool) -> list[Affine]:
    """Where the search begins: the frames as they are, and middle on middle, shifted along the body."""
    found = [np.eye(4)]
    if same_frame:
        return found
    gap = body_center(ct) - body_center(mr)
    for offset in START_OFFSETS_MM:
        start = np.eye(4)
        start[:3, 3] = gap + np.array([0.0, 0.0, offset])
        found.append(start)
    return found


def refine(mr: Side, ct: Side, start: Affine) -> Affine:
    """The rigid transform of highest mutual information near ``start``, on the grids given."""
    center = body_center(mr)
    initial = sitk.Euler3DTransform()
    initial.SetCenter(center.tolist())
    initial.SetMatrix(start[:3, :3].ravel().tolist(), 1e-6)
    initial.SetTranslation((start[:3, :3] @ center + start[:3, 3] - center).tolist())
    search = _search(mr)
    search.SetOptimizerAsRegularStepGradientDescent(_FIRST_STEP_MM, _LAST_STEP_MM, _ITERATIONS, relaxationFactor=0.5)
    search.SetOptimizerScalesFromPhysicalShift()
    search.SetInitialTransform(initial, inPlace=True)
    search.Execute(image_of(clipped_mr(mr), mr.grid), image_of(clipped_ct(ct), ct.grid))
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(initial.GetMatrix(), (3, 3))
    matrix[:3, 3] = np.array(initial.GetTranslation()) + center - matrix[:3, :3] @ center
    return matrix


def inverse(matrix: Affine) -> Affine:
    """The transform back."""
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def body_center(side: Side) -> npt.NDArray[np.float64]:
    """Middle of the body's bounding box, RAS+ mm; of the grid where there is no body."""
    inside = np.argwhere(side.body)
    box = (inside.min(axis=0) + inside.max(axis=0)) / 2 if len(inside) else (np.array(side.grid.shape) - 1) / 2
    return side.grid.to_world(box)


def _best_start(mr: Side, ct: Side, candidates: Sequence[Affine]) -> Affine:
    """The best of the best starts, each refined; one start is refined without a contest."""
    if len(candidates) > 1:
        scores = [mutual_information(mr, ct.moved(inverse(start))) for start in candidates]
        order = np.argsort(scores)[::-1][:_KEPT_STARTS]
        candidates = [candidates[number] for number in order]
    found = [refine(mr, ct, start) for start in candidates]
    return max(found, key=lambda matrix: mutual_information(mr, ct.moved(inverse(matrix))))


def _better(mr: Side, ct: Side, before: Affine, found: Affine) -> Affine:
    """The transform found, unless it loses mutual information: where a CT is bent, a search may run off."""
    first, second = (mutual_information(mr, ct.moved(inverse(matrix))) for matrix in (before, found))
    return found if second >= (1 - LOST_INFORMATION) * first else before


def _search(mr: Side) -> sitk.ImageRegistrationMethod:
    search = sitk.ImageRegistrationMethod()
    search.SetMetricAsMattesMutualInformation(_BINS)
    search.SetMetricSamplingStrategy(search.NONE)
    search.SetMetricFixedMask(image_of(near_body(mr).astype(np.uint8), mr.grid))
    search.SetInterpolator(sitk.sitkLinear)
    return search


def near_body(side: Side) -> Mask:
    """The body and some air around it, so that the skin counts."""
    radius = [
        max(1, round(_MARGIN_MM / step)) if size > 2 else 0
        for size, step in zip(side.body.shape, side.grid.spacing_mm, strict=True)
    ]
    grown = sitk.BinaryDilate(sitk.GetImageFromArray(side.body.astype(np.uint8)), radius[::-1])
    return np.asarray(sitk.GetArrayFromImage(grown) > 0)


def mutual_information(mr: Side, ct: Side) -> float:
    """Mutual information in nats of both images where the MR's surroundings of the body and the CT's grid meet.

    Counted here, not taken from the search: its own value depends on its sampling. −1 where less than
    `_SMALLEST_OVERLAP` of them meet.
    """
    points = mr.grid.to_world(np.argwhere(near_body(mr)))
    index = np.rint(ct.grid.to_index(points)).astype(int)
    there = np.all((index >= 0) & (index < ct.grid.shape), axis=1)
    if there.mean() < _SMALLEST_OVERLAP:
        return -1.0
    first = clipped_mr(mr)[near_body(mr)][there]
    second = clipped_ct(ct)[tuple(index[there].T)]
    joint = np.histogram2d(first, second, bins=_BINS)[0] / len(first)
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    filled = joint > 0
    return float((joint[filled] * np.log(joint[filled] / apart[filled])).sum())


def clipped_mr(mr: Side) -> Volume:
    """MR without its brightest half percent."""
    brightest = float(np.percentile(mr.voxels[mr.body], 99.5)) if mr.body.any() else float(mr.voxels.max())
    return np.clip(mr.voxels, 0.0, brightest).astype(np.float32)


def clipped_ct(ct: Side) -> Volume:
    """HU within `CT_RANGE_HU`."""
    return np.clip(ct.voxels, *CT_RANGE_HU).astype(np.float32)


def image_of(voxels: npt.NDArray[Any], grid: Geometry) -> sitk.Image:
    """A SimpleITK image of voxels (i, j, k), in RAS+ mm."""
    image = sitk.GetImageFromArray(voxels.transpose(2, 1, 0))
    image.SetSpacing(grid.spacing_mm)
    image.SetOrigin(grid.affine[:3, 3].tolist())
    image.SetDirection(grid.direction.ravel().tolist())
    return image


def body_points(side: Side, count: int = 400) -> npt.NDArray[np.float64]:
    """Places spread over the body, (n, 3) RAS+ mm."""
    inside = np.argwhere(side.body)
    return side.grid.to_world(inside[:: max(1, len(inside) // count)])


def displaced(matrix: Affine, center: npt.NDArray[np.float64], shift_mm: float, degrees: float) -> Affine:
    """A rigid transform followed by a turn around every axis through ``center`` and a shift along every axis."""
    angle = np.deg2rad(degrees)
    turn = np.eye(3)
    for first, second in itertools.combinations(range(3), 2):
        one = np.eye(3)
        one[[first, first, second, second], [first, second, first, second]] = (
            np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        )  # fmt: skip
        turn = turn @ one
    beside = np.eye(4)
    beside[:3, :3] = turn
    beside[:3, 3] = center - turn @ center + shift_mm / np.sqrt(3)
    return np.asarray(matrix @ beside)
