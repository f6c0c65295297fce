"""A male pelvis: skin, fat, muscles, bones, bladder, prostate, rectum with gas, and a capsule on the left.

Sizes follow adult means: femoral head 46–50 mm wide, femoral cortex 4–6 mm, bladder 50–300 ml.
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

_SKIN_MM, _CORTEX_MM = 3.0, 4.0


@dataclass(frozen=True)
class PelvisTraits:
    """What varies between pelves; lengths in mm, angles in degrees."""

    semi_axes: tuple[float, float]
    asymmetry: float
    angles: Point
    shift: Point
    fat: float
    head_radius: float
    femur_rotation: tuple[float, float]
    bladder: Point
    gas: float
    prostate: float


def draw_pelvis_traits(rng: np.random.Generator) -> PelvisTraits:
    """Draw one pelvis."""
    u = rng.uniform
    filling = u(0.7, 1.15)
    return PelvisTraits(
        semi_axes=(u(158, 176), u(98, 116)),
        asymmetry=u(0.01, 0.04),
        angles=(u(-4, 4), u(-3, 3), u(-5, 5)),
        shift=(u(-6, 6), u(-4, 4), u(-8, 8)),
        fat=u(10, 26),
        head_radius=u(22.5, 25.5),
        femur_rotation=(u(-18, 18), u(-18, 18)),
        bladder=(36 * filling, 28 * filling, 26 * filling),
        gas=u(0.0, 0.8),
        prostate=u(17, 22),
    )


def pelvis_anatomy(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> Anatomy:
    """Draw a pelvis phantom that fills a field of view of about 390 × 280 × 144 mm.

    Args:
        rng: source of all variation.
        shape: voxels along right, anterior, superior.
        spacing_mm: voxel size.
    """
    traits = draw_pelvis_traits(rng)
    relief = smooth_noise(rng, shape, spacing_mm, 60.0)
    septa = smooth_noise(rng, shape, spacing_mm, 22.0)
    geometry = centered_geometry(shape, spacing_mm)
    fixed = space_of(geometry)
    space = fixed.turned(traits.angles, traits.shift)
    body = _body_surface(space, traits)
    tissue = np.zeros(shape, dtype=np.uint8)
    muscle = _paint_soft(tissue, space, -body, relief, septa, traits)
    _paint_organs(tissue, space, traits)
    _paint_pelvic_bones(tissue, space, -body)
    _paint_femora(tissue, space, -body, traits)
    marker = attach_marker(tissue, fixed, body, (0.0, traits.shift[1] + 10.0, 15.0))
    site = np.asarray(muscle & np.isin(tissue, (Tissue.MUSCLE, Tissue.SOFT_ORGAN)))
    return Anatomy(tissue, geometry, "PELVIS", site, marker)


def _body_surface(space: Space, traits: PelvisTraits) -> Field:
    """Signed distance to the skin: a flattened tube, narrower at the waist, split by the gluteal cleft behind."""
    a, b = traits.semi_axes
    waist = 1.0 - 0.0008 * np.clip(space.z, 0, None) + 0.0003 * np.clip(space.z, None, 0)
    width = a * waist * (1.0 + traits.asymmetry * np.tanh(space.x / 60.0))
    height = np.where(space.y < 0, b * 0.95, b * (1.0 - 0.001 * space.z))
    rho = (np.abs(space.x / width) ** 2.4 + np.abs(space.y / height) ** 2.4) ** (1 / 2.4)
    cleft = 22.0 * np.exp(-((space.x / 9.0) ** 2)) * (space.y < 0) * np.clip((20.0 - space.z) / 40.0, 0, 1)
    return true_distance(np.asarray((rho - 1.0) * b + cleft * (rho > 0.6), dtype=np.float32), space.spacing_mm)


def _paint_soft(
    tissue: NDArray[np.uint8], space: Space, depth: Field, relief: Field, septa: Field, traits: PelvisTraits
) -> Mask:
    """Paint skin, fat, muscles with fat between them, and the fatty pelvic cavity; returns the muscle region."""
    fat_end = _SKIN_MM + traits.fat * (1.0 + 0.25 * relief + 0.35 * np.clip(space.y / 90.0, -1.0, 1.0))
    paint(tissue, depth > 0, Tissue.SKIN)
    paint(tissue, depth > _SKIN_MM, Tissue.FAT)
    muscle = np.asarray(depth > fat_end)
    paint(tissue, muscle, Tissue.MUSCLE)
    between = np.abs(septa) < 0.10
    paint(tissue, muscle & between & (depth < fat_end + 55.0), Tissue.FAT)
    cavity = ellipsoid(space, (0, 4, 20), (70, 62, 85), exponent=2.4)
    paint(tissue, muscle & (cavity < 0), Tissue.FAT)
    for side in (-1.0, 1.0):
        psoas = capsule(space, (side * 58, 30, 70), (side * 82, 42, -30), 17.0)
        paint(tissue, muscle & (psoas < 0), Tissue.MUSCLE)
        vessels = capsule(space, (side * 45, 22, 70), (side * 62, 62, -60), 6.0)
        paint(tissue, muscle & (vessels < 3.0), Tissue.FAT)
        paint(tissue, muscle & (vessels < 0), Tissue.SOFT_ORGAN)
        obturator = ellipsoid(space, (side * 57, 8, -28), (9, 32, 26))
        paint(tissue, muscle & (obturator < 0), Tissue.MUSCLE)
    loops = ellipsoid(space, (0, 34, 62), (55, 30, 36), exponent=2.4)
    paint(tissue, muscle & (loops < 0) & (septa > -0.35), Tissue.SOFT_ORGAN)
    return muscle


def _paint_organs(tissue: NDArray[np.uint8], space: Space, traits: PelvisTraits) -> None:
    """Paint prostate, bladder with its wall, and rectum with gas above its content."""
    paint(tissue, ellipsoid(space, (0, 8, -32), (traits.prostate + 3, 17, traits.prostate)) < 0, Tissue.SOFT_ORGAN)
    bladder = ellipsoid(space, (3, 24, 6), traits.bladder)
    paint(tissue, bladder < 3.5, Tissue.MUSCLE)
    paint(tissue, bladder < 0, Tissue.URINE)
    lower = capsule(space, (0, -26, -75), (2, -34, -20), 14.0)
    upper = capsule(space, (2, -34, -20), (10, -40, 75), 17.0)
    rectum = np.minimum(lower, upper)
    paint(tissue, rectum < 0, Tissue.MUSCLE)
    paint(tissue, rectum < -4.0, Tissue.SOFT_ORGAN)
    gas = (rectum < -4.0) & (space.y > -34.0 + 8.0 - 14.0 * traits.gas) & (space.z > -35)
    paint(tissue, gas, Tissue.CAVITY_AIR)


def _paint_pelvic_bones(tissue: NDArray[np.uint8], space: Space, depth: Field) -> None:
    """Paint sacrum, iliac wings, acetabula, pubis and ischium as shells of cortex around marrow."""
    inside = np.asarray(depth > _SKIN_MM + 4.0)
    tilt = 0.35 * (space.z - 20.0)
    moved = Space(space.x, np.asarray(space.y + tilt, dtype=np.float32), space.z, space.spacing_mm)
    sacrum = ellipsoid(moved, (0, -62, 40), (46, 19, 52), exponent=2.6)
    paint_bone(tissue, sacrum, _CORTEX_MM - 0.5, Tissue.MARROW, inside)
    paint(tissue, (capsule(moved, (0, -70, 20), (0, -70, 95), 7.0) < 0) & inside, Tissue.CSF)
    for side in (-1.0, 1.0):
        wing = _iliac_wing(space, side)
        paint_bone(tissue, wing, _CORTEX_MM - 0.8, Tissue.MARROW, inside)
        rim = np.maximum(ellipsoid(space, (side * 84, 2, -18), (37, 37, 37)), side * space.x - 97.0)
        paint_bone(tissue, rim, _CORTEX_MM, Tissue.MARROW, inside)
        pubis = capsule(space, (side * 10, 48, -46), (side * 64, 28, -26), 10.0)
        lower = capsule(space, (side * 12, 44, -50), (side * 52, -14, -66), 8.0)
        ischium = capsule(space, (side * 78, -22, -24), (side * 56, -24, -66), 14.0)
        for bone in (pubis, lower, ischium):
            paint_bone(tissue, bone, _CORTEX_MM - 0.5, Tissue.MARROW, inside)


def _iliac_wing(space: Space, side: float) -> Field:
    """A curved plate from the sacroiliac joint forward and outward, above the acetabulum."""
    flare = 0.30 * np.clip(space.z, 0, None)
    along = np.clip((space.y + 62.0) / 112.0, 0.0, 1.0)
    wall = 52.0 + flare + 46.0 * np.sin(0.5 * np.pi * along) ** 0.8
    thickness = 8.0 - 2.5 * np.sin(np.pi * along)
    plate = np.abs(side * space.x - wall) * 0.85 - thickness
    front = 44.0 - 0.15 * np.clip(space.z, 0, None)
    ends = np.maximum(np.maximum(space.y - front, -62.0 - space.y), -4.0 - space.z)
    return np.asarray(np.maximum(plate, ends), dtype=np.float32)


def _paint_femora(tissue: NDArray[np.uint8], space: Space, depth: Field, traits: PelvisTraits) -> None:
    """Paint heads, necks, trochanters and shafts; each femur is rotated about the axis of its shaft."""
    inside = np.asarray(depth > _SKIN_MM + 3.0)
    for side, rotation in zip((-1.0, 1.0), traits.femur_rotation, strict=True):
        turn = float(np.tan(np.radians(rotation)))
        radius = traits.head_radius * (1.0 + side * traits.asymmetry / 2)
        center = (side * 88.0, 4.0, -18.0)
        hip = (side * 128.0, -4.0 - 40.0 * turn, -38.0)
        head = ellipsoid(space, center, (radius, radius, radius))
        paint(tissue, (head < 3.5) & inside, Tissue.MUSCLE)
        neck = capsule(space, center, hip, 13.5)
        trochanter = ellipsoid(space, (hip[0] + side * 4, hip[1] - 4, hip[2] + 4), (17, 19, 22))
        shaft = capsule(space, hip, (side * 122.0, hip[1], -120.0), 15.0)
        outer = np.minimum.reduce([head, neck, trochanter, shaft])
        paint(tissue, (outer < 0) & inside, Tissue.CORTICAL_BONE)
        core = np.minimum.reduce([head + 3.0, neck + 4.0, trochanter + 3.0, shaft + 5.5])
        paint(tissue, (core < 0) & inside, Tissue.MARROW)
