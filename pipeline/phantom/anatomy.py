"""What digital phantoms are made of: tissue ids on a grid, and the implicit shapes that anatomy is drawn with.

Coordinates are RAS+ mm from the middle of the grid (x right, y anterior, z superior). A shape is a scalar field
that is negative inside, close to the signed distance in mm near its surface: shells and layers are intervals of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.geometry import Geometry

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]
Point = tuple[float, float, float]


class Tissue(IntEnum):
    """Tissue ids of a phantom; the tissue map holds them as uint8."""

    AIR = 0
    SKIN = 1
    FAT = 2
    MUSCLE = 3
    CORTICAL_BONE = 4
    DIPLOE = 5
    MARROW = 6
    CSF = 7
    GRAY_MATTER = 8
    WHITE_MATTER = 9
    VITREOUS = 10
    URINE = 11
    SOFT_ORGAN = 12
    CAVITY_AIR = 13
    FIDUCIAL = 14


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A phantom's anatomy.

    Args:
        tissue: (i, j, k) uint8 ids of `Tissue`.
        geometry: the grid; axes run right, anterior, superior.
        body_part: "HEAD" or "PELVIS".
        lesion_site: (i, j, k) where lesions may lie: brain without ventricles, or muscle and soft organs.
        marker_mm: RAS+ center of the fiducial capsule, which always lies on the patient's left.
    """

    tissue: NDArray[np.uint8]
    geometry: Geometry
    body_part: str
    lesion_site: Mask
    marker_mm: Point


@dataclass(frozen=True, eq=False)
class Space:
    """Coordinates of every voxel, RAS+ mm from the middle of the grid, each (i, j, k) float32."""

    x: Field
    y: Field
    z: Field
    spacing_mm: tuple[float, float, float]

    def turned(self, degrees: Point, shift_mm: Point) -> "Space":
        """Coordinates in a frame rotated about x, y, z (in this order) and shifted; the grid stays."""
        x, y, z = (axis - offset for axis, offset in zip((self.x, self.y, self.z), shift_mm, strict=True))
        a, b, c = np.radians(degrees)
        y, z = y * np.cos(a) + z * np.sin(a), z * np.cos(a) - y * np.sin(a)
        z, x = z * np.cos(b) + x * np.sin(b), x * np.cos(b) - z * np.sin(b)
        x, y = x * np.cos(c) + y * np.sin(c), y * np.cos(c) - x * np.sin(c)
        return Space(x.astype(np.float32), y.astype(np.float32), z.astype(np.float32), self.spacing_mm)


def centered_geometry(shape: Sequence[int], spacing_mm: Sequence[float]) -> Geometry:
    """Grid along right, anterior, superior whose middle is the origin."""
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = -(np.asarray(shape) - 1) / 2 * np.asarray(spacing_mm)
    return Geometry(tuple(shape), affine)


def space_of(geometry: Geometry) -> Space:
    """Voxel coordinates of an axis-aligned grid."""
    axes = [
        (np.arange(size, dtype=np.float32) * np.float32(geometry.affine[axis, axis]) + geometry.affine[axis, 3])
        for axis, size in enumerate(geometry.shape)
    ]
    x, y, z = np.meshgrid(*(axis.astype(np.float32) for axis in axes), indexing="ij")
    return Space(x, y, z, geometry.spacing_mm)


def ellipsoid(space: Space, center: Point, semi_axes: Point, exponent: float = 2.0) -> Field:
    """Superellipsoid Σ|d/s|ᵖ = 1 as a field of about signed distance: (ρ − 1) times the mean semi-axis."""
    parts = zip((space.x, space.y, space.z), center, semi_axes, strict=True)
    total = sum(np.abs((axis - c) / s) ** exponent for axis, c, s in parts)
    return np.asarray((total ** (1.0 / exponent) - 1.0) * float(np.mean(semi_axes)), dtype=np.float32)


def capsule(space: Space, start: Point, end: Point, radius: float) -> Field:
    """Rounded cylinder around a segment: distance to the segment − radius."""
    # Plain floats keep the arrays in float32: half the time of float64.
    u, v, w = (float(b - a) for a, b in zip(start, end, strict=True))
    dx, dy, dz = (axis - float(a) for axis, a in zip((space.x, space.y, space.z), start, strict=True))
    along = np.clip((dx * u + dy * v + dz * w) / (u * u + v * v + w * w), 0.0, 1.0)
    squared = (dx - along * u) ** 2 + (dy - along * v) ** 2 + (dz - along * w) ** 2
    return np.asarray(np.sqrt(squared) - radius, dtype=np.float32)


def true_distance(field: Field, spacing_mm: Sequence[float]) -> Field:
    """First-order signed distance of a field: f / |∇f|, in mm."""
    gradient = np.gradient(field, *spacing_mm)
    norm = np.sqrt(sum(part**2 for part in gradient))
    return np.asarray(field / np.maximum(norm, 0.25), dtype=np.float32)


def smooth_noise(rng: np.random.Generator, shape: Sequence[int], spacing_mm: Sequence[float], scale_mm: float) -> Field:
    """Gaussian random field of mean 0 and deviation 1 whose features measure about ``scale_mm``."""
    white = rng.standard_normal(tuple(shape), dtype=np.float32)
    smooth = ndimage.gaussian_filter(white, [scale_mm / (2.0 * step) for step in spacing_mm], mode="wrap")
    return np.asarray((smooth - smooth.mean()) / smooth.std(), dtype=np.float32)


def paint(tissue: NDArray[np.uint8], where: Mask, value: Tissue) -> None:
    """Set ``value`` where the mask holds, in place: the one function here that changes its argument."""
    tissue[where] = np.uint8(value)


def paint_bone(tissue: NDArray[np.uint8], field: Field, shell_mm: float, core: Tissue, within: Mask) -> None:
    """Paint a bone: a cortical shell of ``shell_mm`` around a core, where ``within`` allows, in place."""
    paint(tissue, (field < 0) & within, Tissue.CORTICAL_BONE)
    paint(tissue, (field < -shell_mm) & within, core)


def attach_marker(tissue: NDArray[np.uint8], space: Space, body: Field, level: Point) -> Point:
    """Glue a capsule of 8 mm radius to the left side of the body at the height of ``level``; returns its center.

    Args:
        tissue: painted in place.
        space: coordinates in the frame of the grid (not of the turned patient).
        body: negative inside the body.
        level: (unused x, y, z) mm of the wanted place.
    """
    j = int(np.argmin(np.abs(space.y[0, :, 0] - level[1])))
    k = int(np.argmin(np.abs(space.z[0, 0, :] - level[2])))
    inside = np.flatnonzero(body[:, j, k] < 0)
    edge = float(space.x[inside[0], j, k])
    center = (edge - 7.0, float(space.y[0, j, 0]), float(space.z[0, 0, k]))
    capsule_field = ellipsoid(space, center, (8.0, 8.0, 11.0))
    paint(tissue, (capsule_field < 0) & (body >= 0), Tissue.FIDUCIAL)
    return center
