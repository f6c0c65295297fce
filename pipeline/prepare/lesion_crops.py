"""Lesion crops: square axial sections around a lesion, at one pixel size, in network units.

A crop is centered on the lesion's section, sampled with linear interpolation from the (slightly blurred, where it is
coarsened) slice, and filled with air beyond the slice. Crops are shown as a radiologist sees them: anterior up, the
patient's right on the left.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.color import rgb2gray
from skimage.transform import resize

from pipeline.body_mask import mr_body_mask
from pipeline.errors import InputError
from pipeline.geometry import to_canonical
from pipeline.intensity import CT_MAP, robust_mr_scale
from pipeline.prepared_set import to_slices
from pipeline.settings import PrepareLesionsSettings

AIR_UNIT = -1.0
_GREY_LEVELS = 255.0


@dataclass(frozen=True)
class DisplayVolume:
    """A volume in network units, as axial display slices.

    Attributes:
        slices: (K, H, W) float32 in [-1, 1].
        row_mm, column_mm: distance between rows and between columns.
    """

    slices: npt.NDArray[np.float32]
    row_mm: float
    column_mm: float


def display_volume(
    voxels: npt.NDArray[Any], affine: npt.NDArray[np.float64], modality: str, percentiles: tuple[float, float]
) -> DisplayVolume:
    """Map a scan to network units and turn it into axial display slices.

    Args:
        voxels: (i, j, k); HU for CT.
        affine: voxel index -> RAS+ mm.
        modality: "MR" (scaled by percentiles inside the body) or "CT" (`CT_MAP`).
        percentiles: of the MR scale.
    """
    canonical, canonical_affine, _ = to_canonical(voxels, affine)
    spacing = np.linalg.norm(canonical_affine[:3, :3], axis=0)
    values = canonical.astype(np.float32)
    if modality == "CT":
        units = CT_MAP.encode(values)
    else:
        mask = mr_body_mask(values, (spacing[0], spacing[1], spacing[2]))
        units = robust_mr_scale(values, mask, percentiles).encode(values)
    return DisplayVolume(to_slices(units), float(spacing[1]), float(spacing[0]))


def lesion_slices(mask: npt.NDArray[np.bool_], settings: PrepareLesionsSettings) -> list[int]:
    """Slices to cut: the middles of equal parts of those with at least ``min_section_px`` pixels.

    Args:
        mask: (K, H, W), one lesion.
        settings: how many, and how large a section must be.
    """
    areas = mask.sum(axis=(1, 2))
    candidates = np.flatnonzero(areas >= settings.min_section_px)
    count = min(len(candidates), settings.slices_per_lesion)
    return [int(candidates[int((part + 0.5) * len(candidates) / count)]) for part in range(count)]


def cut(
    volume: DisplayVolume, section: npt.NDArray[np.bool_], index: int, size_px: int, pixel_mm: float
) -> npt.NDArray[np.float32]:
    """One crop (size_px, size_px) in [-1, 1] around the center of mass of ``section`` (H, W) on slice ``index``."""
    center = ndimage.center_of_mass(section)
    steps = (pixel_mm / volume.row_mm, pixel_mm / volume.column_mm)
    image = volume.slices[index]
    blur = [np.sqrt(max(0.0, step**2 - 1)) / 2.355 for step in steps]
    if max(blur) > 0:
        image = ndimage.gaussian_filter(image, blur)
    offsets = np.arange(size_px) - (size_px - 1) / 2
    rows, columns = np.meshgrid(center[0] + offsets * steps[0], center[1] + offsets * steps[1], indexing="ij")
    crop = ndimage.map_coordinates(image, [rows, columns], order=1, mode="constant", cval=AIR_UNIT)
    return np.clip(crop, -1, 1).astype(np.float32)


def crops_of_lesion(
    volumes: Sequence[DisplayVolume], mask: npt.NDArray[np.bool_], settings: PrepareLesionsSettings
) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Slice index and crop (C, size_px, size_px) of each chosen section of one lesion.

    Args:
        volumes: C channels on one grid.
        mask: (K, H, W), the lesion.
        settings: which sections, and how large.
    """
    for index in lesion_slices(mask, settings):
        yield index, np.stack([cut(one, mask[index], index, settings.size_px, settings.pixel_mm) for one in volumes])


def image_to_square(pixels: npt.NDArray[Any], size_px: int) -> npt.NDArray[np.float32]:
    """An 8-bit picture as a square network image: grey, padded with its darkest level to a square, resized.

    Args:
        pixels: uint8 (rows, columns) or (rows, columns, 3 or 4).
        size_px: side of the result.

    Raises:
        InputError: pixels of another type, whose intensity range is not declared.
    """
    if pixels.dtype != np.uint8:
        raise InputError(
            "Pictures need a declared intensity range.",
            found=f"pixels of type {pixels.dtype}",
            allowed="8-bit pictures, range 0 to 255",
            change="Convert the pictures to 8 bits, or bring the scans as DICOM or NIfTI with lesion masks.",
        )
    grey = pixels.astype(np.float32) / _GREY_LEVELS if pixels.ndim == 2 else rgb2gray(pixels[..., :3])
    side = max(grey.shape)
    before = [(side - length) // 2 for length in grey.shape]
    padding = [(start, side - length - start) for start, length in zip(before, grey.shape, strict=True)]
    square = np.pad(grey, padding, constant_values=float(grey.min()))
    if side != size_px:
        square = resize(square, (size_px, size_px), order=1, anti_aliasing=side > size_px)
    return (square * 2 - 1).astype(np.float32)
