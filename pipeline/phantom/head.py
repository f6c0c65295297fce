"""A head: scalp, three-layered skull, folded brain, ventricles, orbits, air cells, and a capsule on the left.

Sizes follow adult means: head 150 × 195 mm, skull 6–8 mm with tables and diploë of 2–4 mm each (Lynnerup et al. 2005),
cortex 2–4 mm.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.phantom.anatomy import (
    Anatomy,
    Field,
    Mask,
    Point,
    Space,
    Tissue,
    attach_marker,
    capsule,
    centered_geometry,
    ellipsoid,
    paint,
    paint_bone,
    smooth_noise,
    space_of,
    true_distance,
)

_SKIN_MM, _SINUS_WALL_MM = 2.5, 2.6


@dataclass(frozen=True)
class HeadTraits:
    """What varies between heads; lengths in mm, angles in degrees."""

    semi_axes: Point
    asymmetry: float
    angles: Point
    shift: Point
    fat: float
    outer_table: float
    diploe: float
    inner_table: float
    csf: float
    ventricle_scale: float
    sinus_scale: float
    frontal_scale: float
    septum: float


def draw_head_traits(rng: np.random.Generator) -> HeadTraits:
    """Draw one head."""
    u = rng.uniform
    return HeadTraits(
        semi_axes=(u(70, 79), u(90, 101), u(82, 92)),
        asymmetry=u(0.01, 0.04),
        angles=(u(-6, 6), u(-4, 4), u(-8, 8)),
        shift=(u(-5, 5), u(-5, 5), u(-4, 4)),
        fat=u(2.0, 5.0),
        outer_table=u(2.2, 3.0),
        diploe=u(2.0, 4.5),
        inner_table=u(2.0, 2.8),
        csf=u(1.5, 4.0),
        ventricle_scale=u(0.75, 1.35),
        sinus_scale=u(0.8, 1.15),
        frontal_scale=u(0.6, 1.2),
        septum=u(-2.5, 2.5),
    )


def head_anatomy(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> Anatomy:
    """Draw a head phantom that fills a field of view of about 220 × 256 × 160 mm.

    Args:
        rng: source of all variation.
        shape: voxels along right, anterior, superior.
        spacing_mm: voxel size.
    """
    traits = draw_head_traits(rng)
    thickness = smooth_noise(rng, shape, spacing_mm, 45.0)
    folds = _fold_field(rng, shape, spacing_mm)
    geometry = centered_geometry(shape, spacing_mm)
    fixed = space_of(geometry)
    space = fixed.turned(traits.angles, traits.shift)
    body = _head_surface(space, traits)
    base = _base_plane(space, thickness)
    tissue = np.zeros(shape, dtype=np.uint8)
    brain_depth = _paint_layers(tissue, -body, thickness, base, traits)
    site = _paint_brain(tissue, space, brain_depth, folds, traits)
    _paint_face(tissue, space, -body, base, thickness, traits)
    marker = attach_marker(tissue, fixed, body, (0.0, traits.shift[1] + 8.0, 12.0))
    site &= np.isin(tissue, (Tissue.GRAY_MATTER, Tissue.WHITE_MATTER, Tissue.CSF))
    return Anatomy(tissue, geometry, "HEAD", site, marker)


def _head_surface(space: Space, traits: HeadTraits) -> Field:
    """Signed distance to the skin: an ellipsoid, wider behind, drawn out below, one side larger than the other."""
    a, b, c = traits.semi_axes
    z = space.z + 14.0
    z = np.where(z < 0, z * 0.5, z)
    width = a * (1.0 + traits.asymmetry * np.tanh(space.x / 20.0) - 0.0011 * space.y)
    rho = np.sqrt((space.x / width) ** 2 + (space.y / b) ** 2 + (z / c) ** 2)
    jaw = np.clip((-space.z - 30.0) / 60.0, 0.0, 1.0) * np.clip(-space.y / 60.0, 0.0, 1.0)
    return true_distance(np.asarray((rho * (1.0 + 0.18 * jaw) - 1.0) * 85.0, dtype=np.float32), space.spacing_mm)


def _base_plane(space: Space, relief: Field) -> Field:
    """Height above the skull base, mm: the base is higher in front than behind, with ridges along the petrous bones."""
    forward = space.y + 10.0 - 0.45 * np.abs(space.x) + 3.0 * relief
    return np.asarray(space.z + 38.0 - 24.0 * np.tanh(forward / 28.0), dtype=np.float32)


def _fold_field(rng: np.random.Generator, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Field:
    """Band-pass noise whose zero set serves as sulci."""
    field = smooth_noise(rng, shape, spacing_mm, 9.0) - 0.55 * smooth_noise(rng, shape, spacing_mm, 24.0)
    return np.asarray(field / field.std(), dtype=np.float32)


def _paint_layers(tissue: NDArray[np.uint8], depth: Field, thickness: Field, base: Field, traits: HeadTraits) -> Field:
    """Paint scalp, skull and CSF; returns the depth below the brain's surface, mm."""
    fat_end = _SKIN_MM + traits.fat * (1.0 + 0.2 * thickness)
    outer_end = fat_end + traits.outer_table
    diploe_end = outer_end + np.maximum(traits.diploe * (1.0 + 0.3 * thickness), 0.8)
    inner_end = diploe_end + traits.inner_table
    paint(tissue, depth > 0, Tissue.SKIN)
    paint(tissue, depth > _SKIN_MM, Tissue.FAT)
    below = (depth > fat_end + 3.0) & (base <= 0)
    paint(tissue, below, Tissue.MUSCLE)
    above = base > -4.5
    paint(tissue, (depth > fat_end) & above, Tissue.CORTICAL_BONE)
    paint(tissue, (depth > outer_end) & (depth <= diploe_end) & above, Tissue.DIPLOE)
    inside = (depth > inner_end) & (base > 0)
    paint(tissue, inside, Tissue.CSF)
    return np.asarray(np.minimum(depth - inner_end, base) - traits.csf, dtype=np.float32)


def _paint_brain(tissue: NDArray[np.uint8], space: Space, depth: Field, folds: Field, traits: HeadTraits) -> Mask:
    """Paint gray and white matter, deep nuclei, ventricles; returns where lesions may lie."""
    brain = depth > 0
    cerebellum = brain & (space.y < -18.0) & (space.z < -12.0 - 0.15 * (space.y + 18.0))
    paint(tissue, brain, Tissue.WHITE_MATTER)
    ribbon = (depth < 3.2) | ((np.abs(folds) < 0.6) & (depth < 20.0))
    paint(tissue, brain & ribbon, Tissue.GRAY_MATTER)
    paint(tissue, brain & (np.abs(folds) < 0.13) & (depth < 14.0) & ~cerebellum, Tissue.CSF)
    leaves = np.sin((space.z * 0.9 + 0.35 * np.abs(space.x) + 3.0 * folds) / 2.6) > -0.35
    paint(tissue, cerebellum & leaves & (depth < 20.0), Tissue.GRAY_MATTER)
    for side in (-1.0, 1.0):
        paint(tissue, brain & (ellipsoid(space, (side * 12, -8, 6), (8, 13, 9)) < 0), Tissue.GRAY_MATTER)
        paint(tissue, brain & (ellipsoid(space, (side * 25, 8, 5), (5, 14, 9)) < 0), Tissue.GRAY_MATTER)
    paint(tissue, brain & (capsule(space, (0, -12, -12), (0, -16, -60), 11.0) < 0), Tissue.WHITE_MATTER)
    fissure = (np.abs(space.x + 0.8 * folds) < 1.5) & (space.z > 14.0)
    paint(tissue, brain & fissure, Tissue.CSF)
    ventricles = _ventricles(space, traits) < 0
    paint(tissue, brain & ventricles, Tissue.CSF)
    return np.asarray(brain & ~ventricles & (depth > 2.0))


def _ventricles(space: Space, traits: HeadTraits) -> Field:
    """Lateral ventricles (one larger than the other), with frontal and temporal horns, and the third ventricle."""
    s = traits.ventricle_scale
    parts = [ellipsoid(space, (0, -4, 6), (1.6 + s, 10, 9))]
    for side, scale in ((-1.0, s * (1.0 + 2 * traits.asymmetry)), (1.0, s)):
        parts.append(capsule(space, (side * 6, 26, 14), (side * 8, 0, 22), 5.0 * scale))
        parts.append(capsule(space, (side * 8, 0, 22), (side * 17, -34, 14), 6.0 * scale))
        parts.append(capsule(space, (side * 17, -34, 14), (side * 27, -12, -10), 2.6 * scale))
    return np.asarray(np.minimum.reduce(parts), dtype=np.float32)


def _paint_face(
    tissue: NDArray[np.uint8], space: Space, depth: Field, base: Field, thickness: Field, traits: HeadTraits
) -> None:
    """Paint orbits, nasal cavity, sinuses, mastoid cells, teeth and neck bone; air spaces have thin bone walls."""
    face = (depth > 5.0) & (base < 2.0)
    front = space.y > 15.0
    paint(tissue, face & front & (depth < 16.0 + 4.0 * thickness) & (space.z < -30), Tissue.FAT)
    _paint_bone_frame(tissue, space, face)
    s = traits.sinus_scale
    for side in (-1.0, 1.0):
        orbit = capsule(space, (side * 31, 74, -26), (side * 20, 42, -24), 15.0)
        paint(tissue, (orbit < 2.0) & (depth > 3.0) & (base < 4.0), Tissue.CORTICAL_BONE)
        below = base < 1.0
        paint(tissue, (orbit < 0) & (depth > 1.5) & below, Tissue.FAT)
        paint(tissue, (capsule(space, (side * 28, 60, -26), (side * 18, 40, -24), 3.0) < 0) & face, Tissue.MUSCLE)
        eye = ellipsoid(space, (side * 31, 72, -26), (12, 12, 12))
        paint(tissue, (eye < 1.2) & (depth > 0) & below, Tissue.MUSCLE)
        paint(tissue, (eye < 0) & (depth > 0) & below, Tissue.VITREOUS)
        size = s * (1.0 + side * 2 * traits.asymmetry)
        _paint_air(tissue, ellipsoid(space, (side * 24, 50, -58), (13 * size, 16 * size, 16 * size)), depth > 8.0)
        mastoid = ellipsoid(space, (side * 55, -20, -48), (11, 14, 14))
        paint_bone(tissue, mastoid, 2.5, Tissue.DIPLOE, depth > 4.0)
        paint(tissue, (mastoid < -3) & (thickness * 3 % 1.0 > 0.55) & (depth > 7.0), Tissue.CAVITY_AIR)
        frontal = ellipsoid(space, (side * 13 + 2, 84, 2), (12 * traits.frontal_scale, 7, 12 * traits.frontal_scale))
        _paint_air(tissue, frontal, depth > 7.5)
    nose = ellipsoid(space, (0, 60, -58), (11, 34, 22), exponent=2.5)
    _paint_air(tissue, nose, depth > 6.0)
    septum = np.abs(space.x - traits.septum * np.cos(space.y / 14.0)) < 1.4
    paint(tissue, septum & (nose < 0) & (depth > 6.0), Tissue.MUSCLE)
    pharynx = capsule(space, (0, 14, -54), (0, 6, -90), 9.0)
    paint(tissue, (pharynx < 0) & (base < -10.0), Tissue.CAVITY_AIR)


def _paint_bone_frame(tissue: NDArray[np.uint8], space: Space, face: Mask) -> None:
    """Paint cheek bones, upper jaw and the first vertebra with the spinal canal."""
    for side in (-1.0, 1.0):
        arch = capsule(space, (side * 50, 44, -44), (side * 64, -2, -42), 4.0)
        paint_bone(tissue, arch, 2.5, Tissue.DIPLOE, face)
        ramus = capsule(space, (side * 49, 4, -50), (side * 46, 12, -95), 6.0)
        paint_bone(tissue, ramus, 2.5, Tissue.DIPLOE, face)
    jaw = ellipsoid(space, (0, 46, -80), (32, 38, 9), exponent=2.5)
    paint_bone(tissue, jaw, 3.0, Tissue.DIPLOE, face)
    vertebra = ellipsoid(space, (0, -18, -72), (36, 20, 14))
    paint_bone(tissue, vertebra, 3.0, Tissue.DIPLOE, face)
    canal = capsule(space, (0, -18, -40), (0, -22, -95), 10.0)
    paint(tissue, (canal < 0) & face, Tissue.CSF)
    paint(tissue, (canal < -4.0) & face, Tissue.WHITE_MATTER)


def _paint_air(tissue: NDArray[np.uint8], field: Field, within: Mask) -> None:
    """Paint an air space with a thin bone wall."""
    paint(tissue, (field < _SINUS_WALL_MM) & within & (tissue != Tissue.CAVITY_AIR), Tissue.CORTICAL_BONE)
    paint(tissue, (field < 0) & within, Tissue.CAVITY_AIR)
