"""Lesions of three classes that differ in outline, margin, texture and contrast, painted into noise-free images.

A lesion is star-shaped: its surface lies at R(u) from the center along direction u. It is blended into an image by a
weight that falls from 1 to 0 across the margin, a logistic of (R(u) − distance) / softness.

    cyst        nearly ellipsoidal, sharp, homogeneous fluid: dark T1, bright T2, about 10 HU
    ring        irregular enhancing wall (short T1) around a necrotic core
    spiculated  star-shaped with spikes, soft margin, mottled solid tissue
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.errors import InputError
from pipeline.geometry import Geometry
from pipeline.phantom.anatomy import Anatomy, Field, Mask, Point, Tissue, smooth_noise
from pipeline.phantom.contrast import TissueProperties, spin_echo_signal


class LesionClass(StrEnum):
    """Classes of phantom lesions."""

    CYST = "cyst"
    RING = "ring"
    SPICULATED = "spiculated"


LESION_CLASSES: tuple[str, ...] = tuple(item.value for item in LesionClass)

_FLUID = TissueProperties(10, 2, 1.00, 2600, 320)
_WALL = TissueProperties(72, 5, 0.92, 290, 75)
_CORE = TissueProperties(18, 3, 0.95, 2200, 240)
_SOLID = TissueProperties(62, 10, 0.88, 390, 105)

_SOFTNESS_MM = {LesionClass.CYST: 0.35, LesionClass.RING: 0.6, LesionClass.SPICULATED: 1.1}
_MOTTLE = 0.16
"""Relative deviation of signal inside spiculated lesions."""

_SPARED = (
    Tissue.AIR,
    Tissue.SKIN,
    Tissue.CORTICAL_BONE,
    Tissue.DIPLOE,
    Tissue.MARROW,
    Tissue.CAVITY_AIR,
    Tissue.FIDUCIAL,
)
"""Tissues that no lesion grows into."""

_LARGEST_REACH = 1.75
"""Largest R(u) relative to the nominal radius, over all classes."""


@dataclass(frozen=True, eq=False)
class Lesion:
    """One lesion.

    Args:
        lesion_class: its class.
        center_mm: RAS+ mm.
        radius_mm: nominal radius.
        value: its number in the lesion mask, from 1.
        weight: (i, j, k) float32 blend weight in [0, 1]; the lesion's mask is ``weight > 0.5``.
        core: (i, j, k) float32 share of the core inside the wall, in [0, 1]; zero but for rings.
        mottle: (i, j, k) float32 relative signal change inside; zero but for spiculated lesions.
    """

    lesion_class: LesionClass
    center_mm: Point
    radius_mm: float
    value: int
    weight: Field
    core: Field
    mottle: Field

    def paint_mr(self, signal: Field, sequence: str) -> Field:
        """Blend the lesion into a noise-free MR image; returns a new array."""
        if self.lesion_class is LesionClass.CYST:
            inside = np.full(signal.shape, spin_echo_signal(_FLUID, sequence), dtype=np.float32)
        elif self.lesion_class is LesionClass.RING:
            wall, core = spin_echo_signal(_WALL, sequence), spin_echo_signal(_CORE, sequence)
            inside = (wall + (core - wall) * self.core).astype(np.float32)
        else:
            inside = spin_echo_signal(_SOLID, sequence) * (1.0 + self.mottle)
        return np.asarray(signal + self.weight * (inside - signal), dtype=np.float32)

    def paint_ct(self, hu: Field) -> Field:
        """Blend the lesion into a noise-free CT image in HU; returns a new array."""
        if self.lesion_class is LesionClass.CYST:
            inside = np.full(hu.shape, _FLUID.hu, dtype=np.float32)
        elif self.lesion_class is LesionClass.RING:
            inside = (_WALL.hu + (_CORE.hu - _WALL.hu) * self.core).astype(np.float32)
        else:
            inside = _SOLID.hu + 40.0 * self.mottle
        return np.asarray(hu + self.weight * (inside - hu), dtype=np.float32)


def place_lesions(
    anatomy: Anatomy, lesion_classes: Sequence[str], radius_mm: tuple[float, float], rng: np.random.Generator
) -> list[Lesion]:
    """Place lesions where ``anatomy`` allows them, without overlap.

    Args:
        anatomy: the phantom.
        lesion_classes: one class a lesion, in the order of mask values 1, 2, …
        radius_mm: smallest and largest nominal radius.
        rng: source of place, size and shape.

    Raises:
        InputError: if no room is left for a lesion of the smallest radius.
    """
    room = ndimage.distance_transform_edt(anatomy.lesion_site, sampling=anatomy.geometry.spacing_mm)
    lesions = []
    for value, name in enumerate(lesion_classes, start=1):
        lesion_class = LesionClass(name)
        radius = float(rng.uniform(*radius_mm))
        allowed = room >= 0.75 * radius
        if not allowed.any():
            radius = radius_mm[0]
            allowed = room >= 0.6 * radius
        center = _draw_center(allowed, anatomy.geometry, rng)
        lesions.append(_shape_lesion(lesion_class, center, radius, value, anatomy, rng))
        gap = np.sqrt(_squared_distance(anatomy.geometry, center)) - _LARGEST_REACH * radius
        room = np.minimum(room, np.maximum(gap, 0.0))
    return lesions


def _offsets(geometry: Geometry, center: Point) -> list[Field]:
    """Distance of all voxels from a point along each axis of an axis-aligned grid; broadcast together."""
    origin = np.diag(geometry.affine)[:3], geometry.affine[:3, 3]
    axes = [
        np.arange(size) * step + start - c for size, step, start, c in zip(geometry.shape, *origin, center, strict=True)
    ]
    return [axis.astype(np.float32) for axis in np.meshgrid(*axes, indexing="ij", sparse=True)]


def _squared_distance(geometry: Geometry, center: Point) -> Field:
    x, y, z = _offsets(geometry, center)
    return np.asarray(x**2 + y**2 + z**2, dtype=np.float32)


def _draw_center(allowed: Mask, geometry: Geometry, rng: np.random.Generator) -> Point:
    candidates = np.argwhere(allowed)
    if not len(candidates):
        raise InputError(
            "Every lesion of a phantom needs room",
            found="no free place left in the soft tissue",
            allowed="fewer or smaller lesions",
            change="ask for fewer lesions a subject or a smaller radius",
        )
    x, y, z = geometry.to_world(candidates[int(rng.integers(len(candidates)))])
    return float(x), float(y), float(z)


def _shape_lesion(
    lesion_class: LesionClass,
    center: Point,
    radius: float,
    value: int,
    anatomy: Anatomy,
    rng: np.random.Generator,
) -> Lesion:
    """Draw outline and inside of a lesion, on the voxels that it can reach; bone, skin and air stay as they are."""
    geometry = anatomy.geometry
    offsets = _offsets(geometry, center)
    far = _LARGEST_REACH * radius + 5.0 * _SOFTNESS_MM[lesion_class]
    box = tuple(slice(*np.flatnonzero(np.abs(axis.ravel()) <= far)[[0, -1]] + (0, 1)) for axis in offsets)
    near = np.broadcast_arrays(*(axis for axis in np.ix_(*(o.ravel()[b] for o, b in zip(offsets, box, strict=True)))))
    distance = np.sqrt(near[0] ** 2 + near[1] ** 2 + near[2] ** 2) + np.float32(1e-3)
    unit = tuple(part / distance for part in near)
    reach = radius * _outline(lesion_class, unit, rng)
    reach = np.clip(reach, 0.4 * radius, _LARGEST_REACH * radius)
    weight = _logistic((reach - distance) / _SOFTNESS_MM[lesion_class])
    core = mottle = np.zeros_like(weight)
    if lesion_class is LesionClass.RING:
        wall = rng.uniform(0.28, 0.36) * radius * (1.0 + _lobes(unit, rng, 4, 4.0, (-0.3, 0.5), 0.8))
        core = _logistic((reach - wall - distance) / 0.6)
    elif lesion_class is LesionClass.SPICULATED:
        mottle = np.clip(_MOTTLE * smooth_noise(rng, weight.shape, geometry.spacing_mm, 5.0), -0.6, 0.6)
    spared = np.isin(anatomy.tissue[box], _SPARED)
    whole = [np.zeros(geometry.shape, dtype=np.float32) for _ in range(3)]
    for target, part in zip(whole, (np.where(spared | (weight < 0.01), 0.0, weight), core, mottle), strict=True):
        target[box] = part
    return Lesion(lesion_class, center, radius, value, whole[0], whole[1], whole[2])


def _outline(lesion_class: LesionClass, unit: tuple[Field, ...], rng: np.random.Generator) -> Field:
    """Relative radius R(u) / radius along each direction."""
    if lesion_class is LesionClass.CYST:
        return 1.0 + _lobes(unit, rng, count=2, sharpness=1.0, height=(0.05, 0.2), flat=1.0)
    if lesion_class is LesionClass.RING:
        return 1.0 + _lobes(unit, rng, count=5, sharpness=4.0, height=(-0.15, 0.22), flat=0.8)
    count = int(rng.integers(7, 11))
    return 0.62 + _lobes(unit, rng, count, sharpness=22.0, height=(0.6, 1.05), flat=0.35)


def _lobes(
    unit: tuple[Field, ...],
    rng: np.random.Generator,
    count: int,
    sharpness: float,
    height: tuple[float, float],
    flat: float,
) -> Field:
    """Sum of bumps on the sphere, h·exp(κ(u·v − 1)); ``flat`` < 1 turns their directions v toward the slice plane."""
    total = np.zeros(unit[0].shape, dtype=np.float32)
    start = rng.uniform(0, 2 * np.pi)
    for number in range(count):
        angle = start + 2 * np.pi * (number + rng.uniform(-0.3, 0.3)) / count
        rise = flat * rng.uniform(-1, 1)
        v = np.array([np.cos(angle), np.sin(angle), rise]) / np.hypot(1.0, rise)
        cosine = unit[0] * v[0] + unit[1] * v[1] + unit[2] * v[2]
        total = total + float(rng.uniform(*height)) * np.exp(sharpness * (cosine - 1.0))
    return np.asarray(total, dtype=np.float32)


def _logistic(value: Field) -> Field:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(value, -30.0, 30.0))), dtype=np.float32)


def lesion_mask(lesions: Sequence[Lesion], shape: Sequence[int]) -> NDArray[np.int16]:
    """Mask of all lesions: 0 outside, the lesion's value inside (weight above one half)."""
    mask = np.zeros(tuple(shape), dtype=np.int16)
    for lesion in lesions:
        mask[lesion.weight > 0.5] = lesion.value
    return mask
