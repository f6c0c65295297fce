"""MR and CT volumes on a common spacing, in network units and HU, with body masks; registered pairs share a grid."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.body_mask import ct_body_mask, dilate_in_plane, mr_body_mask
from pipeline.catalog import Catalog
from pipeline.geometry import Affine, Geometry, geometry_with_spacing, to_canonical
from pipeline.intensity import HU_HIGH, HU_LOW, robust_mr_scale, to_int16
from pipeline.prepare.bias_field import correct_bias
from pipeline.prepare.mr_normalization import (
    MRMap,
    StandardHistogram,
    landmarks_of,
    sequence_of,
    z_score_scale,
)
from pipeline.prepare.registration import Transform
from pipeline.prepared_set import to_slices
from pipeline.resampling import resample
from pipeline.scan_io import AIR_HU
from pipeline.settings import PrepareMRToCTSettings

SKIN_MARGIN_PX = 1
"""Pixels beyond the CT's body mask that are kept, for skin that fills them in part."""


@dataclass(frozen=True)
class PreparedVolume:
    """One volume as the set stores it.

    Attributes:
        slices: (K, H, W) int16: MR in unit × 16384, CT in HU or grey levels.
        mask: (K, H, W) uint8 body mask.
        grid: canonical prepared grid (i, j, k), None without geometry.
        scale: how MR intensities became units, None for CT.
        more: the second and further sequences of an MR, where several are one input; on the same grid.
        moved: what moved a further sequence there, RAS+ mm.
    """

    slices: npt.NDArray[np.int16]
    mask: npt.NDArray[np.uint8]
    grid: Geometry | None
    scale: MRMap | None
    more: tuple["PreparedVolume", ...] = ()
    moved: Affine | None = None


@dataclass(frozen=True)
class CorrectedMR:
    """An MR on its prepared grid before it has units.

    Attributes:
        values: (i, j, k) intensities, bias field taken out.
        mask: body, same shape.
        grid: canonical prepared grid.
    """

    values: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    grid: Geometry


def corrected_mr(
    catalog: Catalog,
    row: Mapping[str, Any],
    settings: PrepareMRToCTSettings,
    target: Geometry | None = None,
    moved: Affine | None = None,
) -> CorrectedMR:
    """Canonical orientation, N4, resampling and body mask of one MR volume.

    Args:
        catalog: where it lies.
        row: its catalog row.
        settings: spacing and N4.
        target: the grid to resample to; None takes the MR's own field of view.
        moved: the matrix that moves the MR first, RAS+ mm.
    """
    voxels, affine = catalog.volume(row)
    canonical, canonical_affine, _ = to_canonical(voxels, affine)
    native = Geometry(canonical.shape, canonical_affine)
    values = np.maximum(canonical.astype(np.float32), 0)
    corrected = correct_bias(values, mr_body_mask(values, native.spacing_mm).astype(bool), settings.n4)
    grid = target or geometry_with_spacing(native, settings.spacing_mm)
    placed = canonical_affine if moved is None else moved @ canonical_affine
    resampled = resample(corrected, placed, grid, antialias=True).astype(np.float32)
    return CorrectedMR(resampled, mr_body_mask(resampled, grid.spacing_mm).astype(bool), grid)


def in_units(
    mr: CorrectedMR, row: Mapping[str, Any], settings: PrepareMRToCTSettings, standard: StandardHistogram | None
) -> PreparedVolume:
    """Intensities to units, as ``mr_normalization`` says.

    Args:
        mr: corrected volume.
        row: its catalog row, for the sequence.
        settings: which normalization.
        standard: landmarks of the training subjects, for ``landmarks``.

    Raises:
        InputError: no contrast in the body, or no training subject of its sequence.
    """
    scale: MRMap
    if settings.mr_normalization == "landmarks" and standard is not None:
        scale = standard.map(landmarks_of(mr.values, mr.mask, settings.mr_percentiles), sequence_of(row))
    elif settings.mr_normalization == "z_score":
        scale = z_score_scale(mr.values, mr.mask)
    else:
        scale = robust_mr_scale(mr.values, mr.mask, settings.mr_percentiles)
    return PreparedVolume(to_slices(to_int16(scale.encode(mr.values))), _stored(mr.mask), mr.grid, scale)


def prepare_ct_volume(
    catalog: Catalog,
    row: Mapping[str, Any],
    settings: PrepareMRToCTSettings,
    grid: Geometry | None = None,
    transform: Transform | None = None,
) -> PreparedVolume:
    """Canonical orientation, resampling and body mask of one CT volume, in HU clipped to [-1024, 3071].

    Args:
        catalog: where it lies.
        row: its catalog row.
        settings: spacing of its own grid, and whether what lies outside the body is kept.
        grid: the grid of its MR to resample to; None takes the CT's own field of view.
        transform: from the MR to the CT where they were registered.
    """
    voxels, affine = catalog.volume(row)
    canonical, canonical_affine, _ = to_canonical(voxels, affine)
    target = grid or geometry_with_spacing(Geometry(canonical.shape, canonical_affine), settings.spacing_mm)
    if transform is None:
        hu = resample(canonical.astype(np.float32), canonical_affine, target, fill=HU_LOW, antialias=True)
    else:
        hu = transform.warp(canonical, canonical_affine, target, HU_LOW)
    hu = np.clip(np.rint(hu), HU_LOW, HU_HIGH).astype(np.int16)
    mask = ct_body_mask(hu, target.spacing_mm).astype(bool)
    slices, stored = to_slices(hu), _stored(mask)
    if settings.ct_outside_body == "air":
        slices = np.where(dilate_in_plane(stored, SKIN_MARGIN_PX), slices, np.int16(AIR_HU))
    return PreparedVolume(slices, stored, target, None)


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
