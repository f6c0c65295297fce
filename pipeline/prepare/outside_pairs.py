"""Match CT and pseudo-CT that were given, compare their grids as stored, and lay what agrees side by side.

Nothing is resampled. Two files that store the same grid with other axes are brought to one order of axes, which is
exact; a pseudo-CT that lies elsewhere than its CT, or has other voxels, is listed with what differs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, JsonValue

from pipeline.body_mask import ct_body_mask, mr_body_mask
from pipeline.catalog import Catalog, read_catalog
from pipeline.errors import InputError
from pipeline.geometry import Geometry, to_canonical
from pipeline.intensity import robust_mr_scale, to_int16
from pipeline.metrics.geometry_agreement import GeometryAgreement, compare_geometry
from pipeline.pair_set import write_pair_tables
from pipeline.prepare.outside_matching import LABEL_ROLES, Row, match
from pipeline.prepared_set import to_slices
from pipeline.records import ProgressCallback, StageRecord, silent
from pipeline.settings import RunSettings
from pipeline.stage_runner import Stage, StageContext, run_stage
from pipeline.workspace import Workspace


class PairsKey(BaseModel, frozen=True):
    """What enters the key."""

    mr_percentiles: tuple[float, float]


def prepare_outside_pairs(
    workspace: Workspace,
    settings: RunSettings,
    catalogs: Mapping[str, StageRecord],
    *,
    progress: ProgressCallback = silent,
) -> StageRecord:
    """Write a `pipeline.pair_set.PairSet`.

    Args:
        workspace: where the output goes.
        settings: ``prepare.mr_to_ct.mr_percentiles``.
        catalogs: of `ingest_outside_volumes` by role; ``ct`` and ``pseudo_ct``, maybe others.
        progress: counted in pairs.

    Returns:
        Record with the facts cases, comparable, unmatched, mask_rule, unit.

    Raises:
        InputError: nothing matches.
    """
    key = PairsKey(mr_percentiles=settings.prepare.mr_to_ct.mr_percentiles)

    def body(context: StageContext) -> dict[str, JsonValue]:
        opened = {role: read_catalog(context.inputs[role]) for role in catalogs}
        return _write(context, opened, key)

    stage = Stage("prepare_outside_pairs", "pipeline.prepare.outside_pairs", body)
    return run_stage(workspace, stage, key, records=dict(catalogs), progress=progress)


@dataclass(frozen=True)
class _Image:
    """A volume in canonical order of axes, and its axes as stored."""

    voxels: npt.NDArray[Any]
    grid: Geometry
    axes: str

    @classmethod
    def of(cls, catalog: Catalog, row: Row) -> "_Image":
        voxels, affine = catalog.volume(row)
        canonical, canonical_affine, _ = to_canonical(voxels, affine)
        return cls(canonical, Geometry(canonical.shape, canonical_affine), "".join(nib.aff2axcodes(affine)))


def _write(context: StageContext, catalogs: Mapping[str, Catalog], key: PairsKey) -> dict[str, JsonValue]:
    found = match({role: catalog.series.sort("series_id").to_dicts() for role, catalog in catalogs.items()})
    if not found.pairs:
        raise InputError(
            "CT and pseudo-CT are matched by case.",
            found=f"{len(found.unmatched)} volumes, none of which has a partner",
            allowed="files of equal names but for words such as ct or pseudo; DICOM of one PatientID or one frame of "
            "reference; one volume of each kind a case",
            change="Name the files of a case alike, e.g. case1_ct.nii.gz and case1_sct.nii.gz.",
        )
    rows = []
    for number, pair in enumerate(found.pairs):
        images = {role: _Image.of(catalogs[role], row) for role, row in pair.items()}
        rows.append(_pair_row(number, pair, images, "mask" in catalogs, key, context.folder))
        context.progress("pairs", number + 1, len(found.pairs))
    mask_given = "mask" in catalogs
    labels_given = any(role in catalogs for role in LABEL_ROLES)
    facts: dict[str, Any] = {"mask_given": mask_given, "mr_given": "mr" in catalogs, "labels_given": labels_given}
    write_pair_tables(context.folder, rows, list(found.unmatched), facts)
    return {
        "cases": len(rows),
        "comparable": sum(bool(row["comparable"]) for row in rows),
        "unmatched": len(found.unmatched),
        "unit": "HU",
        "mask_rule": "the one given" if mask_given else "the CT's body outline dilated in plane",
    }


def _pair_row(
    number: int,
    pair: Mapping[str, Row],
    images: Mapping[str, _Image],
    needs_mask: bool,
    key: PairsKey,
    folder: Path,
) -> Row:
    """Compare the grids of one pair, and store its arrays where they agree."""
    ct, pseudo_ct = images["ct"], images["pseudo_ct"]
    agreement = compare_geometry(ct.grid, pseudo_ct.grid)
    spacing = ct.grid.spacing_mm
    mask = _mask(images, needs_mask)
    problems = _problems(agreement, mask)
    labels, labels_finding = _label_maps(images)
    same_mr = "mr" in images and compare_geometry(ct.grid, images["mr"].grid).agrees
    if not problems:
        arrays = {"ct": ct.voxels, "pseudo_ct": pseudo_ct.voxels, "mask": mask}
        if same_mr:
            arrays["mr"] = _mr_units(images["mr"], key)
        arrays |= labels
        for name, voxels in arrays.items():
            np.save(folder / f"{number}-{name}.npy", to_slices(np.asarray(voxels)))
    return {
        "pair": number,
        "subject_id": pair["ct"]["subject_id"],
        "series_id": pair["pseudo_ct"]["series_id"],
        "comparable": not problems,
        "orientation": pseudo_ct.axes,
        "spacing_difference": agreement.spacing_difference_mm,
        "extent_difference": agreement.extent_difference_mm,
        "distance": agreement.distance_mm,
        "finding": "; ".join(problems) or _agreement_words(ct, pseudo_ct),
        "spacing_mm": [spacing[2], spacing[1], spacing[0]],
        "has_mr": same_mr and not problems,
        "labels_finding": labels_finding,
    }


def _problems(agreement: GeometryAgreement, mask: npt.NDArray[np.uint8] | None) -> list[str]:
    problems = list(agreement.problems)
    if mask is None:
        problems.append("no mask on the grid of the CT")
    elif not mask.any():
        problems.append("an empty mask, or no body in the CT")
    return problems


def _agreement_words(ct: _Image, pseudo_ct: _Image) -> str:
    if ct.axes == pseudo_ct.axes:
        return "agrees"
    return f"agrees; stored with axes {pseudo_ct.axes}, the CT with {ct.axes}"


def _mask(images: Mapping[str, _Image], needed: bool) -> npt.NDArray[np.uint8] | None:
    """The mask given, where it lies on the CT's grid; the CT's body outline where none was given to any pair."""
    ct = images["ct"]
    if not needed:
        return np.asarray(ct_body_mask(ct.voxels, ct.grid.spacing_mm), dtype=np.uint8)
    if "mask" not in images or not compare_geometry(ct.grid, images["mask"].grid).agrees:
        return None
    return (images["mask"].voxels > 0).astype(np.uint8)


def _label_maps(images: Mapping[str, _Image]) -> tuple[dict[str, npt.NDArray[np.int32]], str]:
    """A segmenter's label maps of CT and pseudo-CT, or none and why."""
    found: dict[str, npt.NDArray[np.int32]] = {}
    for role, name in LABEL_ROLES.items():
        if role not in images:
            return {}, f"no {name}"
        agreement = compare_geometry(images["ct"].grid, images[role].grid)
        if not agreement.agrees:
            return {}, f"{name}: {'; '.join(agreement.problems)}"
        values = np.asarray(images[role].voxels)
        if not np.isfinite(values).all() or (values != np.rint(values)).any() or values.min() < 0:
            return {}, f"{name}: values that are not whole numbers of 0 or more"
        found[role] = values.astype(np.int32)
    return found, ""


def _mr_units(mr: _Image, key: PairsKey) -> npt.NDArray[np.int16]:
    """MR intensities on one scale for all cases, so that a lookup can be fitted on some and tried on others."""
    values = np.maximum(mr.voxels.astype(np.float32), 0)
    inside = np.asarray(mr_body_mask(values, mr.grid.spacing_mm)).astype(bool)
    return to_int16(robust_mr_scale(values, inside, key.mr_percentiles).encode(values))
