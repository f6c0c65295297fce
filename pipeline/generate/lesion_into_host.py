"""A synthetic lesion set into a host volume: where it goes, its shape in three dimensions, its voxels.

The generator makes one section. In a volume it becomes the widest section of a body as high as the section is wide
(its circle of equal area): the section at height z is the same one, scaled by √(1 − (z / r)²) as in a ball. This is a
guess, and the only one: in a host of one slice nothing is guessed.

All is done in display slices (K, H, W), in which the crops were cut. What is not in the footprint of a lesion, its mask
and a rim around it, is never written.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.generate.blending import feather_weight, feathered_blend, poisson_blend
from pipeline.generate.lesion_mask import lesion_mask

Mask = npt.NDArray[np.bool_]
Units = npt.NDArray[np.float32]
Millimeters = tuple[float, float, float]
"""Distances between slices, rows and columns."""

TRIES = 400
"""Places that are looked at for one lesion."""


@dataclass(frozen=True)
class Stamp:
    """A lesion on the grid of a host.

    Attributes:
        patch: (k, h, w) network units, the lesion and the tissue around it.
        mask: (k, h, w), the lesion.
        weight: (k, h, w), 1 in the lesion, falling to 0 over the rim.
    """

    patch: npt.NDArray[np.float64]
    mask: Mask
    weight: npt.NDArray[np.float64]

    @property
    def footprint(self) -> Mask:
        """Voxels that are written, (k, h, w)."""
        return np.asarray(self.weight > 0)


def stamp_of(crop: Units, pixel_mm: float, spacing_mm: Millimeters, rim_mm: float, slices: int) -> Stamp | None:
    """Bring a synthetic crop to the grid of a host; None where no lesion can be told in it.

    Args:
        crop: (S, S) in [-1, 1].
        pixel_mm: of the crop.
        spacing_mm: of the host.
        rim_mm: width of the rim over which it is blended; one pixel at least.
        slices: of the host; a single one takes one section.
    """
    section = lesion_mask(crop)
    if section is None:
        return None
    radius_mm = math.sqrt(float(section.sum()) / math.pi) * pixel_mm
    reach = min(int(radius_mm / spacing_mm[0] * (1 - 1e-9)), slices // 2) if slices > 1 else 0
    center = ndimage.center_of_mass(section)
    rim_mm = max(rim_mm, *spacing_mm[1:])
    sides = [math.ceil((len(crop) * pixel_mm / 2 + rim_mm) / step) for step in spacing_mm[1:]]
    axes = [np.arange(-side, side + 1) * step / pixel_mm for side, step in zip(sides, spacing_mm[1:], strict=True)]
    patches, masks = [], []
    for k in range(-reach, reach + 1):
        scale = math.sqrt(1 - (k * spacing_mm[0] / radius_mm) ** 2) if reach else 1.0
        places = np.meshgrid(center[0] + axes[0] / scale, center[1] + axes[1] / scale, indexing="ij")
        patches.append(ndimage.map_coordinates(crop.astype(np.float64), places, order=1, mode="nearest"))
        masks.append(ndimage.map_coordinates(section.astype(np.float64), places, order=1) > 0.5)
    weight = np.stack([feather_weight(mask, rim_mm + 1e-6, (spacing_mm[1], spacing_mm[2])) for mask in masks])
    weight[:, [0, -1], :] = weight[:, :, [0, -1]] = 0
    mask = np.stack(masks)
    return Stamp(np.stack(patches), mask, weight) if mask.any() else None


def room(allowed: Mask, spacing_mm: Millimeters, margin_mm: float) -> Mask:
    """Voxels farther than ``margin_mm`` from everything that is not allowed, the edge of the volume included.

    Args:
        allowed: (K, H, W).
        spacing_mm: between slices, rows and columns.
        margin_mm: 0 or more. In a single slice it is kept in the plane.
    """
    single = len(allowed) == 1
    border = ((0, 0) if single else (1, 1), (1, 1), (1, 1))
    distance = ndimage.distance_transform_edt(np.pad(allowed, border), sampling=spacing_mm)
    inner = distance[
        tuple(slice(before, len_ - after) for len_, (before, after) in zip(distance.shape, border, strict=True))
    ]
    kept: Mask = (inner > margin_mm) & allowed
    kept[:, [0, -1], :] = kept[:, :, [0, -1]] = False  # blending looks at the neighbors of every voxel
    return kept


def find_place(free: Mask, stamp: Stamp, rng: np.random.Generator) -> tuple[int, int, int] | None:
    """A voxel (k, row, column) around which the whole footprint lies in ``free``; None where none was found.

    Args:
        free: (K, H, W).
        stamp: what is to be placed; its middle voxel is put there.
        rng: draws the places that are looked at.
    """
    offsets = np.argwhere(stamp.footprint) - np.asarray(stamp.mask.shape) // 2
    low, high = -offsets.min(axis=0), np.asarray(free.shape) - offsets.max(axis=0)
    if (high <= low).any():
        return None
    inner = tuple(slice(int(first), int(last)) for first, last in zip(low, high, strict=True))
    candidates = np.argwhere(free[inner]) + low
    if not len(candidates):
        return None
    for row in rng.choice(len(candidates), size=min(TRIES, len(candidates)), replace=False):
        k, i, j = (candidates[row] + offsets).T
        if free[k, i, j].all():
            place = candidates[row]
            return int(place[0]), int(place[1]), int(place[2])
    return None


@dataclass(frozen=True)
class Placed:
    """A lesion in its host.

    Attributes:
        window: the part of the host that holds the stamp.
        units: (k, h, w) new network units there; equal to the host's outside of the footprint.
        mask: (k, h, w), the lesion.
        footprint: (k, h, w), voxels that are written.
    """

    window: tuple[slice, slice, slice]
    units: npt.NDArray[np.float64]
    mask: Mask
    footprint: Mask


def blend(
    host: npt.NDArray[np.floating], stamp: Stamp, place: tuple[int, int, int], how: Literal["poisson", "feathered"]
) -> Placed:
    """Blend a stamp into the host, which is not changed.

    Args:
        host: (K, H, W) network units.
        stamp: what is placed.
        place: from `find_place`.
        how: the way of blending.
    """
    # The stamp may reach beyond the host where it writes nothing.
    starts = [at - side // 2 for at, side in zip(place, stamp.mask.shape, strict=True)]
    cuts = [
        (max(0, -start), min(side, size - start))
        for start, side, size in zip(starts, stamp.mask.shape, host.shape, strict=True)
    ]
    part = tuple(slice(first, last) for first, last in cuts)
    first, second, third = (slice(start + a, start + b) for start, (a, b) in zip(starts, cuts, strict=True))
    window = (first, second, third)
    before = host[window].astype(np.float64)
    patch, weight = stamp.patch[part], stamp.weight[part]
    after = np.stack(
        [
            poisson_blend(*planes[:2], planes[2] > 0) if how == "poisson" else feathered_blend(*planes)
            for planes in zip(before, patch, weight, strict=True)
        ]
    )
    return Placed(window, np.clip(after, -1, 1), stamp.mask[part], weight > 0)
