"""Where voxels lie in the patient: the only module that knows RAS+ and LPS+.

An array has axes (i, j, k). An affine is a 4×4 matrix that maps the index (i, j, k, 1) of a voxel center to millimeters
in RAS+ (+x right, +y anterior, +z superior, as NIfTI). DICOM speaks LPS+ (+x left, +y posterior, +z superior, PS3.3
C.7.6.2.1.1); the two differ by the sign of the first two rows. For DICOM slices i counts columns, j rows and k slices,
so that a slice of an array is the transposed pixel matrix, as in nibabel.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import InputError

Affine = NDArray[np.float64]
Volume = NDArray[Any]
OBLIQUE_TOLERANCE = 1e-3
"""Largest sine of the angle between a voxel axis and a patient axis that still counts as aligned (0.06 degrees)."""

SHEAR_TOLERANCE = 1e-3
"""Largest cosine between two voxel axes that still counts as perpendicular."""

SINGULAR_TOLERANCE = 1e-6
"""Smallest determinant of the direction cosines (1 for perpendicular axes) of a usable affine."""

_LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_RAS_SIGNS = (1.0, 1.0, 1.0)
_LPS_SIGNS = (-1.0, -1.0, 1.0)


def checked_affine(affine: ArrayLike) -> Affine:
    """Return a read-only float64 copy; raises InputError if not 4×4, not finite, not homogeneous, or singular."""
    matrix = np.array(affine, dtype=np.float64)
    problem = _affine_problem(matrix)
    if problem:
        raise InputError(
            "An affine must map voxel indices to millimeters one to one",
            found=problem,
            allowed="a finite 4x4 matrix with last row 0 0 0 1 and three independent voxel axes",
            change="correct the header of the image, or leave the image out",
        )
    matrix.setflags(write=False)
    return matrix


def _affine_problem(matrix: Affine) -> str:
    if matrix.shape != (4, 4):
        return f"shape {matrix.shape}"
    if not np.isfinite(matrix).all():
        return "non-finite entries"
    if not np.array_equal(matrix[3], [0.0, 0.0, 0.0, 1.0]):
        return f"last row {matrix[3].tolist()}"
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    if (spacing <= 0.0).any():
        return f"voxel size {spacing.tolist()} mm"
    determinant = abs(float(np.linalg.det(matrix[:3, :3] / spacing)))
    return f"voxel axes with determinant {determinant:.3g}" if determinant < SINGULAR_TOLERANCE else ""


@dataclass(frozen=True, eq=False)
class Geometry:
    """A voxel grid in the patient.

    Raises InputError if the affine is singular or an axis is empty.

    Args:
        shape: voxels along (i, j, k).
        affine: 4×4, voxel index → RAS+ mm; copied and made read-only.
    """

    shape: tuple[int, ...]
    affine: Affine

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise InputError(
                "A grid must have three axes with at least one voxel each",
                found=str(tuple(self.shape)),
                allowed="three positive sizes",
                change="select one volume, and check that it is not empty",
            )
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))
        object.__setattr__(self, "affine", checked_affine(self.affine))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighboring voxel centers along (i, j, k), in mm."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)

    @property
    def direction(self) -> Affine:
        """3×3 unit vectors of the voxel axes in RAS+, one a column."""
        return np.asarray(self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0))

    def to_world(self, index: ArrayLike) -> Affine:
        """Map voxel indices (..., 3) to RAS+ mm (..., 3)."""
        return np.asarray(np.asarray(index) @ self.affine[:3, :3].T + self.affine[:3, 3])

    def to_index(self, world_mm: ArrayLike) -> Affine:
        """Map RAS+ mm (..., 3) to continuous voxel indices (..., 3)."""
        inverse = np.linalg.inv(self.affine)
        return np.asarray(np.asarray(world_mm) @ inverse[:3, :3].T + inverse[:3, 3])

    def matches(self, other: "Geometry", tolerance_mm: float = 1e-3) -> bool:
        """Tell whether both grids have equal shapes and no voxel center lies further apart than ``tolerance_mm``."""
        return self.shape == other.shape and self.distance_mm(other) <= tolerance_mm

    def distance_mm(self, other: "Geometry") -> float:
        """Largest distance between equal indices of this grid and ``other``; it is reached at a corner."""
        corners = _corners(self.shape)
        return float(np.linalg.norm(self.to_world(corners) - other.to_world(corners), axis=1).max())


def _corners(shape: tuple[int, ...]) -> Affine:
    """Indices of the eight corner voxels, (8, 3)."""
    return np.array(list(itertools.product(*((0.0, size - 1.0) for size in shape))))


def lps_to_ras(affine: ArrayLike) -> Affine:
    """Turn an affine (or 4-vector) that yields LPS+ millimeters into one that yields RAS+; its own inverse."""
    return np.asarray(_LPS_RAS @ np.asarray(affine, dtype=np.float64))


def ras_to_lps(affine: ArrayLike) -> Affine:
    """Turn an affine (or 4-vector) that yields RAS+ millimeters into one that yields LPS+; its own inverse."""
    return lps_to_ras(affine)


def slice_normal(image_orientation_patient: Sequence[float]) -> Affine:
    """Normal of a DICOM slice in LPS+, (3,): row direction × column direction, normalized.

    Raises InputError if the two directions are not perpendicular unit vectors, to 1e-3.
    """
    cosines = np.asarray(image_orientation_patient, dtype=np.float64).reshape(-1)
    gram = cosines.reshape(2, 3) @ cosines.reshape(2, 3).T if cosines.size == 6 else np.full((2, 2), np.nan)
    if not np.allclose(gram, np.eye(2), rtol=0.0, atol=SHEAR_TOLERANCE):
        raise InputError(
            "ImageOrientationPatient must hold two perpendicular unit vectors",
            found=str(cosines.tolist()),
            allowed="six direction cosines (PS3.3 C.7.6.2.1.1)",
            change="correct the header, or leave the series out",
        )
    normal = np.cross(cosines[:3], cosines[3:])
    return np.asarray(normal / np.linalg.norm(normal))


def affine_from_dicom(
    image_orientation_patient: Sequence[float],
    pixel_spacing: Sequence[float],
    first_position: Sequence[float],
    slice_step: Sequence[float],
) -> Affine:
    """Affine (voxel index (column, row, slice) → RAS+ mm) of a stack of DICOM slices, equation C.7.6.2.1-1 of PS3.3.

    Raises InputError if the cosines are not perpendicular unit vectors or the result is singular.

    Args:
        image_orientation_patient: six cosines in LPS+: direction of growing column index, then of growing row index.
        pixel_spacing: distance between rows, then between columns, in mm (PS3.3 10.7.1.3).
        first_position: ImagePositionPatient of slice 0, LPS+ mm.
        slice_step: vector from one slice to the next, LPS+ mm: (last − first position) / (slices − 1).
    """
    slice_normal(image_orientation_patient)
    between_rows, between_columns = (float(value) for value in pixel_spacing)
    lps = np.eye(4)
    lps[:3, 0] = np.asarray(image_orientation_patient[:3], dtype=np.float64) * between_columns
    lps[:3, 1] = np.asarray(image_orientation_patient[3:], dtype=np.float64) * between_rows
    lps[:3, 2] = slice_step
    lps[:3, 3] = first_position
    return checked_affine(lps_to_ras(lps))


@dataclass(frozen=True)
class DicomPlanes:
    """The DICOM attributes of a stack of slices, in LPS+ and mm; one position a slice, in order of k."""

    image_orientation_patient: tuple[float, ...]
    pixel_spacing: tuple[float, float]
    positions: tuple[tuple[float, float, float], ...]
    slice_spacing_mm: float


def dicom_planes(geometry: Geometry) -> DicomPlanes:
    """DICOM attributes of a grid whose axes are (column, row, slice); inverse of `affine_from_dicom`.

    Raises InputError if the grid is sheared: parallel slices express shear by a gantry tilt only.
    """
    if is_sheared(geometry.affine):
        raise InputError(
            "A DICOM series must have perpendicular axes",
            found=f"cosines between axes {np.round(geometry.direction.T @ geometry.direction, 4).tolist()}",
            allowed=f"off-diagonal cosines up to {SHEAR_TOLERANCE}",
            change="resample to axial_geometry_for(geometry) first",
        )
    lps = ras_to_lps(geometry.affine)
    spacing = geometry.spacing_mm
    cosines = np.concatenate([lps[:3, 0] / spacing[0], lps[:3, 1] / spacing[1]])
    positions = lps[:3, 3] + np.arange(geometry.shape[2])[:, None] * lps[:3, 2]
    return DicomPlanes(
        tuple(float(value) for value in cosines),
        (spacing[1], spacing[0]),
        tuple((float(x), float(y), float(z)) for x, y, z in positions),
        spacing[2],
    )


def is_oblique(affine: ArrayLike, tolerance: float = OBLIQUE_TOLERANCE) -> bool:
    """Tell whether any voxel axis leaves its nearest patient axis by more than ``tolerance`` (sine of the angle)."""
    cosines = Geometry((1, 1, 1), checked_affine(affine)).direction
    return bool((1.0 - np.abs(cosines).max(axis=0) ** 2 > tolerance**2).any())


def is_sheared(affine: ArrayLike, tolerance: float = SHEAR_TOLERANCE) -> bool:
    """Tell whether two voxel axes are not perpendicular: cosine of the angle between them above ``tolerance``."""
    cosines = Geometry((1, 1, 1), checked_affine(affine)).direction
    return bool((np.abs(cosines.T @ cosines - np.eye(3)) > tolerance).any())


@dataclass(frozen=True, eq=False)
class AxisReordering:
    """An exact reordering of voxels from grid ``source`` to grid ``target`` (nothing interpolated), and its inverse.

    ``axes`` tells for each target axis which source axis it is, ``reversed_axes`` whether it runs backwards.
    """

    source: Geometry
    target: Geometry
    axes: tuple[int, ...]
    reversed_axes: tuple[bool, ...]

    def apply(self, array: Volume) -> Volume:
        """Reorder an array of the source grid's shape; returns a contiguous copy."""
        return np.array(self.view(array), order="C")

    def view(self, array: Volume) -> Volume:
        """Reorder an array of the source grid's shape without copying it."""
        check_shape(array, self.source)
        return np.flip(array.transpose(self.axes), self._flips())

    def restore(self, array: Volume) -> Volume:
        """Undo `apply`: bring an array of the target grid's shape back to the source grid; returns a copy."""
        check_shape(array, self.target)
        return np.array(np.flip(array, self._flips()).transpose(np.argsort(self.axes).tolist()), order="C")

    def _flips(self) -> tuple[int, ...]:
        return tuple(axis for axis, backwards in enumerate(self.reversed_axes) if backwards)


def check_shape(array: Volume, geometry: Geometry) -> None:
    """Raise InputError unless ``array`` has the shape of ``geometry``."""
    if array.shape != geometry.shape:
        raise InputError(
            "An array must have the shape of its grid",
            found=str(array.shape),
            allowed=str(geometry.shape),
            change="pass the array that belongs to this grid",
        )


def _reordering(geometry: Geometry, signs: tuple[float, float, float]) -> AxisReordering:
    """The reordering after which axis a runs closest to patient axis a, in the sense of ``signs``.

    Among the six assignments of voxel axes to patient axes, the one with the largest sum of absolute cosines is taken;
    the earliest permutation wins a tie, so that the result does not depend on rounding order.
    """
    cosines = geometry.direction
    axes = max(
        itertools.permutations(range(3)),
        key=lambda order: round(sum(abs(cosines[world, axis]) for world, axis in enumerate(order)), 9),
    )
    reversed_axes = tuple(bool(cosines[world, axis] * signs[world] < 0) for world, axis in enumerate(axes))
    affine = np.eye(4)
    affine[:3, 3] = geometry.affine[:3, 3]
    for new, (old, backwards) in enumerate(zip(axes, reversed_axes, strict=True)):
        column = geometry.affine[:3, old]
        affine[:3, new] = -column if backwards else column
        affine[:3, 3] += column * (geometry.shape[old] - 1) if backwards else 0.0
    return AxisReordering(geometry, Geometry(tuple(geometry.shape[axis] for axis in axes), affine), axes, reversed_axes)


def to_canonical(array: Volume, affine: ArrayLike) -> tuple[Volume, Affine, AxisReordering]:
    """Reorder axes so that i, j, k run closest to right, anterior, superior; exact, nothing is interpolated.

    Returns:
        The reordered copy of ``array``, its affine, and the reordering, whose ``restore`` and ``source`` give the input
        array and grid back exactly.
    """
    reordering = _reordering(Geometry(array.shape, checked_affine(affine)), _RAS_SIGNS)
    return reordering.apply(array), reordering.target.affine, reordering


def canonical_view(array: Volume, affine: ArrayLike) -> Volume:
    """As `to_canonical`, but a view of ``array``: quick where only some of it is looked at."""
    return _reordering(Geometry(array.shape, checked_affine(affine)), _RAS_SIGNS).view(array)


def to_dicom_axial(array: Volume, affine: ArrayLike) -> tuple[Volume, Affine, AxisReordering]:
    """As `to_canonical`, but with i, j, k closest to left, posterior, superior: the axes of an axial DICOM series."""
    reordering = _reordering(Geometry(array.shape, checked_affine(affine)), _LPS_SIGNS)
    return reordering.apply(array), reordering.target.affine, reordering


def geometry_with_spacing(geometry: Geometry, spacing_mm: Sequence[float]) -> Geometry:
    """Grid over the same field of view with another voxel size along (i, j, k), in mm.

    The outer corner of the first voxel (index −½, −½, −½) stays where it is and the number of voxels is rounded, so
    that the far side moves by at most half a new voxel. Keeping the first center instead would shift the field of view.
    """
    new = np.asarray(spacing_mm, dtype=np.float64)
    if new.shape != (3,) or not (np.isfinite(new).all() and (new > 0).all()):
        raise InputError(
            "A voxel size must be three positive numbers",
            found=str(list(spacing_mm)),
            allowed="three values above 0 mm",
            change="set the spacing in mm",
        )
    counts = [
        max(1, math.floor(n * old / s + 0.5))
        for n, old, s in zip(geometry.shape, geometry.spacing_mm, new, strict=True)
    ]
    affine = np.eye(4)
    affine[:3, :3] = geometry.direction * new
    affine[:3, 3] = geometry.to_world([-0.5, -0.5, -0.5]) + affine[:3, :3] @ [0.5, 0.5, 0.5]
    return Geometry(tuple(counts), affine)


def axial_geometry_for(geometry: Geometry) -> Geometry:
    """Axis-aligned axial grid (columns to the left, rows to posterior, slices to superior) that covers ``geometry``.

    Each patient axis takes the spacing of the voxel axis closest to it. For an axis-aligned input in any of the 48
    orientations the voxel centers are the same points; an oblique input is covered to its outermost voxel centers.
    A grid that already runs this way is returned as it is.
    """
    ordered = _reordering(geometry, _LPS_SIGNS).target
    target = np.diag([-ordered.spacing_mm[0], -ordered.spacing_mm[1], ordered.spacing_mm[2], 1.0])
    if np.allclose(ordered.direction, np.diag(_LPS_SIGNS), rtol=0.0, atol=1e-9):
        return geometry if np.array_equal(ordered.affine, geometry.affine) else ordered
    corners = geometry.to_world(_corners(geometry.shape))
    low, high = corners.min(axis=0), corners.max(axis=0)
    steps = np.ceil((high - low) / ordered.spacing_mm - 1e-3).astype(int)
    half = steps * np.asarray(ordered.spacing_mm) / 2
    target[:3, 3] = (low + high) / 2 - half * np.asarray(_LPS_SIGNS)
    return Geometry(tuple(int(step) + 1 for step in steps), target)
