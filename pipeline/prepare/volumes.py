"""MR and CT volumes on a common spacing, in network units and HU, with body masks; registered pairs share a grid."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.body_mask import ct_body_mask, mr_body_mask
from pipeline.catalog import Catalog
from pipeline.geometry import Geometry, geometry_with_spacing, resample, to_canonical
from pipeline.intensity import HU_HIGH, HU_LOW, MRScale, robust_mr_scale, to_int16
from pipeline.prepare.bias_field import correct_bias
from pipeline.prepared_set import to_slices
from pipeline.settings import PrepareMRToCTSettings


@dataclass(frozen=True)
class PreparedVolume:
    """One volume as the set stores it.

    Attributes:
        slices: (K, H, W) int16: MR in unit × 16384, CT in HU or grey levels.
        mask: (K, H, W) uint8 body mask.
        grid: canonical prepared grid (i, j, k), None without geometry.
        scale: MR intensity scale, None for CT.
    """

    slices: npt.NDArray[np.int16]
    mask: npt.NDArray[np.uint8]
    grid: Geometry | None
    scale: MRScale | None


def prepare_mr_volume(catalog: Catalog, row: Mapping[str, Any], settings: PrepareMRToCTSettings) -> PreparedVolume:
    """Canonical orientation, N4, resampling, body mask and intensity scale of one MR volume."""
    voxels, affine = catalog.volume(row)
    canonical, canonical_affine, _ = to_canonical(voxels, affine)
    native = Geometry(canonical.shape, canonical_affine)
    values = np.maximum(canonical.astype(np.float32), 0)
    corrected = correct_bias(values, mr_body_mask(values, native.spacing_mm).astype(bool), settings.n4)
    grid = geometry_with_spacing(native, settings.spacing_mm)
    resampled = resample(corrected, canonical_affine, grid, antialias=True).astype(np.float32)
    mask = mr_body_mask(resampled, grid.spacing_mm).astype(bool)
    scale = robust_mr_scale(resampled, mask, settings.mr_percentiles)
    return PreparedVolume(to_slices(to_int16(scale.encode(resampled))), _stored(mask), grid, scale)


def prepare_ct_volume(
    catalog: Catalog, row: Mapping[str, Any], settings: PrepareMRToCTSettings, grid: Geometry | None = None
) -> PreparedVolume:
    """Canonical orientation, resampling and body mask of one CT volume, in HU clipped to [-1024, 3071].

    Args:
        catalog: where it lies.
        row: its catalog row.
        settings: spacing of its own grid.
        grid: the grid of a registered MR to resample to; None takes the CT's own field of view.
    """
    voxels, affine = catalog.volume(row)
    canonical, canonical_affine, _ = to_canonical(voxels, affine)
    target = grid or geometry_with_spacing(Geometry(canonical.shape, canonical_affine), settings.spacing_mm)
    hu = resample(canonical.astype(np.float32), canonical_affine, target, fill=HU_LOW, antialias=True)
    hu = np.clip(np.rint(hu), HU_LOW, HU_HIGH).astype(np.int16)
    mask = ct_body_mask(hu, target.spacing_mm).astype(bool)
    return PreparedVolume(to_slices(hu), _stored(mask), target, None)


def prepare_grey_case(slices: npt.NDArray[np.uint8], modality: str, percentiles: tuple[float, float]) -> PreparedVolume:
    """A stack of 8-bit slices (K, H, W) without geometry; CT stays in grey levels."""
    volume = slices.transpose(2, 1, 0).astype(np.float32)
    mask = mr_body_mask(volume, (1.0, 1.0, 1.0)).astype(bool)
    inside = np.ascontiguousarray(mask.transpose(2, 1, 0)).astype(np.uint8)
    if modality == "CT":
        return PreparedVolume(slices.astype(np.int16), inside, None, None)
    scale = robust_mr_scale(volume, mask, percentiles)
    return PreparedVolume(to_int16(scale.encode(slices)), inside, None, scale)


def _stored(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    return to_slices(mask.astype(np.uint8))
