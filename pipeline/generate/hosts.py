"""Hosts for synthetic lesions: scans of a catalog as display slices in network units, and back without a loss.

Intensities are mapped as they were for the crops that the generator learned from: CT by `CT_MAP`, MR by percentiles
inside the body.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.body_mask import ct_body_mask, mr_body_mask
from pipeline.catalog import Catalog
from pipeline.errors import InputError
from pipeline.geometry import AxisReordering, Geometry, to_canonical
from pipeline.intensity import CT_MAP, MRScale, PiecewiseLinearMap, robust_mr_scale
from pipeline.metrics.geometry_agreement import compare_geometry
from pipeline.prepared_set import from_slices, to_slices

Row = Mapping[str, Any]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Host:
    """One scan.

    Attributes:
        voxels: as stored in the catalog, (i, j, k).
        affine: voxel index → RAS+ mm.
        units: (K, H, W) network units of the display slices.
        body: (K, H, W).
        spacing_mm: between slices, rows and columns.
        scale: between intensities and units.
        reordering: from stored axes to canonical ones.
    """

    voxels: npt.NDArray[Any]
    affine: npt.NDArray[np.float64]
    units: npt.NDArray[np.float32]
    body: Mask
    spacing_mm: tuple[float, float, float]
    scale: MRScale | PiecewiseLinearMap
    reordering: AxisReordering

    @classmethod
    def of(cls, catalog: Catalog, row: Row, percentiles: tuple[float, float]) -> "Host":
        """Open a scan.

        Raises:
            InputError: nothing in it is a body, or the body is constant.
        """
        voxels, affine = catalog.volume(row)
        canonical, canonical_affine, reordering = to_canonical(voxels, affine)
        grid = Geometry(canonical.shape, canonical_affine).spacing_mm
        values = canonical.astype(np.float32)
        scale: MRScale | PiecewiseLinearMap = CT_MAP
        if row["modality"] == "CT":
            body = ct_body_mask(values, grid)
        else:
            body = mr_body_mask(values, grid)
            scale = robust_mr_scale(values, body, percentiles)
        spacing = (grid[2], grid[1], grid[0])
        return cls(voxels, affine, to_slices(scale.encode(values)), to_slices(body), spacing, scale, reordering)

    def in_slices(self, mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A volume on the host's grid, (i, j, k), as display slices."""
        return to_slices(self.reordering.apply(mask))

    def stored(self, slices: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Inverse of `in_slices`."""
        return self.reordering.restore(from_slices(slices))

    def written(self, units: npt.NDArray[np.float64], footprint: Mask) -> npt.NDArray[Any]:
        """The stored voxels with new units in the footprint (K, H, W); all others are bit for bit what they were.

        Intensities change by the difference of decoded units, so that what was clipped to units keeps its excess.
        """
        change = self.stored(self.scale.decode(units).astype(np.float64) - self.scale.decode(self.units))
        inside = self.stored(footprint)
        values = self.voxels[inside].astype(np.float64) + change[inside]
        if np.issubdtype(self.voxels.dtype, np.integer):
            bounds = np.iinfo(self.voxels.dtype)
            values = np.clip(np.rint(values), bounds.min, bounds.max)
        result = self.voxels.copy()
        result[inside] = values.astype(self.voxels.dtype)
        return result


def host_rows(catalog: Catalog, modality: str) -> list[dict[str, Any]]:
    """Volumes of the modality without any lesion, in the order of their names.

    Raises:
        InputError: there is none.
    """
    with_lesions = set(catalog.lesions["series_id"])
    rows = [
        row
        for row in catalog.series.sort("series_id").to_dicts()
        if row["kind"] == "volume" and row["modality"] == modality and row["series_id"] not in with_lesions
    ]
    if rows:
        return rows
    raise InputError(
        "Lesions are set into scans without lesions, of the modality that the generator learned from.",
        found=f"{catalog.series.height} series, none of them a {modality} volume without lesions",
        allowed=f"{modality} volumes that no lesion is listed for",
        change="Give a folder of healthy scans with --hosts.",
    )


def allowed_region(host: Host, masks: Catalog | None, row: Row, labels: Sequence[int]) -> Mask:
    """Where lesions may go, (K, H, W): the body, or the mask of the same case on the same grid.

    Raises:
        InputError: no such mask, on another grid, or without the labels.
    """
    if masks is None:
        return host.body
    own = [mask for mask in masks.series.to_dicts() if mask["subject_id"] == row["subject_id"]]
    if len(own) != 1:
        raise _bad_mask(
            f"{len(own)} masks for one host", "Name mask and host alike, e.g. case1.nii.gz in both folders."
        )
    voxels, affine = masks.volume(own[0])
    grids = Geometry(host.voxels.shape, host.affine), Geometry(voxels.shape, affine)
    agreement = compare_geometry(*grids)
    if not agreement.agrees or voxels.shape != host.voxels.shape or not np.allclose(affine, host.affine, atol=1e-3):
        raise _bad_mask("; ".join(agreement.problems) or "other axes", "Resample the mask to the grid of the host.")
    inside = np.isin(voxels, labels) if labels else voxels > 0
    if not inside.any():
        raise _bad_mask("no voxel with an allowed label", "Correct generate.placement.labels.")
    return np.asarray(host.in_slices(inside)).astype(bool)


def _bad_mask(found: str, change: str) -> InputError:
    return InputError(
        "Every host needs one mask of its own on its grid, where masks are given.",
        found=found,
        allowed="one mask for each host, of equal shape and place",
        change=change,
    )
