"""The stage that sets synthetic lesions into healthy scans: images, masks, and what lies where.

images/<subject>_<series>.nii.gz         the host with its lesions, on its own grid and of its own type
masks/<subject>_<series>_lesions.nii.gz  0 outside, 1, 2, ... in the lesions
lesions.csv                              mask_path, image_path, mask_value, lesion_class: `scanloom ingest` reads it
placed.parquet                           one row a lesion, columns `PLACED_SCHEMA`
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, JsonValue

from pipeline.catalog import Catalog, read_catalog
from pipeline.errors import InputError
from pipeline.files import read_json, write_json, write_text
from pipeline.generate.hosts import Host, Row, allowed_region, host_rows
from pipeline.generate.lesion_into_host import Stamp, blend, find_place, room, stamp_of
from pipeline.generate_settings import PlacementSettings
from pipeline.intensity import from_int16
from pipeline.prepared_set import IMAGES_ARRAY
from pipeline.records import ProgressCallback, StageRecord, silent
from pipeline.scan_io import write_nifti
from pipeline.settings import RunSettings
from pipeline.stage_runner import Stage, StageContext, run_stage
from pipeline.workspace import Workspace

PLACED_SCHEMA: dict[str, Any] = {
    "image_path": pl.String,
    "mask_path": pl.String,
    "mask_value": pl.Int64,
    "lesion_class": pl.String,
    "subject_id": pl.String,  # of the host
    "series_id": pl.String,
    "cohort_image": pl.Int64,  # row of the cohort that the section was made in
    "seed": pl.Int64,  # of that image
    "model_sha256": pl.String,
    "center_mm": pl.List(pl.Float64),  # center of mass of the mask, RAS+
    "volume_mm3": pl.Float64,
    "sections": pl.Int64,  # slices that the mask reaches
    "blending": pl.String,
}
_ATTEMPTS = 20
"""Lesions of the cohort that are tried for one place in a host."""


class PlacementKey(BaseModel, frozen=True):
    """What enters the key."""

    seed: int
    mr_percentiles: tuple[float, float]
    placement: PlacementSettings


@dataclass(frozen=True)
class _Sections:
    """Synthetic crops that may be placed.

    Attributes:
        images: (N, S, S) network units.
        rows: of the cohort's table, one an image.
        pixel_mm: of the crops.
        modality: that they were learned from.
    """

    images: npt.NDArray[np.float32]
    rows: Sequence[Mapping[str, Any]]
    pixel_mm: float
    modality: str


def place_lesions(
    workspace: Workspace,
    settings: RunSettings,
    records: Mapping[str, StageRecord],
    *,
    progress: ProgressCallback = silent,
) -> StageRecord:
    """Set lesions of a cohort into every host.

    Args:
        workspace: where the output goes.
        settings: ``generate.placement`` and ``prepare.mr_to_ct.mr_percentiles``.
        records: ``hosts``, a catalog; ``prepared``, ``cohort`` and ``evaluation`` of the lesions; maybe ``masks``, a
            catalog of masks of the same cases as the hosts.
        progress: counted in hosts.

    Returns:
        Record with the facts hosts, lesions, per_class, without_room, unusable_sections.

    Raises:
        InputError: the cohort is held back by its release gate, was learned from pictures without geometry, or shows
            no lesion that can be told from its background; no host; a mask that does not fit.
    """
    own = settings.generate.placement
    key = PlacementKey(
        seed=settings.seed if own.seed is None else own.seed,
        mr_percentiles=settings.prepare.mr_to_ct.mr_percentiles,
        placement=own,
    )

    def body(context: StageContext) -> dict[str, JsonValue]:
        return _place(context, key)

    stage = Stage("place_lesions", "pipeline.generate.placement", body)
    return run_stage(workspace, stage, key, records=dict(records), progress=progress)


def _place(context: StageContext, key: PlacementKey) -> dict[str, JsonValue]:
    sections = _released_sections(context)
    hosts = read_catalog(context.inputs["hosts"])
    masks = read_catalog(context.inputs["masks"]) if "masks" in context.inputs else None
    rows = host_rows(hosts, sections.modality)
    for name in ("images", "masks"):
        (context.folder / name).mkdir()
    placed: list[dict[str, Any]] = []
    unusable: set[int] = set()
    for number, row in enumerate(rows):
        rng = np.random.default_rng([key.seed, number])
        placed += _fill(context.folder, _Site.of(hosts, masks, row, key), row, sections, key, rng, unusable)
        context.progress("hosts", number + 1, len(rows))
    if not placed:
        raise InputError(
            "At least one lesion must find its place.",
            found=f"none in {len(rows)} hosts; {len(unusable)} crops in which no lesion can be told",
            allowed="crops with a lesion in their middle, and hosts with room for it",
            change="Lower generate.placement.margin_mm, give larger masks, or train longer.",
        )
    table = pl.DataFrame(placed, schema=PLACED_SCHEMA)
    table.write_parquet(context.folder / "placed.parquet")
    listed = io.StringIO()
    table.select("mask_path", "image_path", "mask_value", "lesion_class").write_csv(listed)
    write_text(context.folder / "lesions.csv", listed.getvalue())
    counts = dict(sorted(table.group_by("lesion_class").len().iter_rows()))
    write_json(context.folder / "placed.json", {"synthetic": True, "use": "research; not for clinical use", **counts})
    return {
        "hosts": table["series_id"].n_unique(),
        "lesions": table.height,
        "per_class": counts,
        "without_room": len(rows) * key.placement.per_host - table.height,
        "unusable_sections": len(unusable),
    }


@dataclass
class _Site:
    """A host while it is being filled."""

    host: Host
    free: npt.NDArray[np.bool_]
    units: npt.NDArray[np.float64]
    labels: npt.NDArray[np.uint8]
    footprint: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, hosts: Catalog, masks: Catalog | None, row: Row, key: PlacementKey) -> "_Site":
        host = Host.of(hosts, row, key.mr_percentiles)
        allowed = allowed_region(host, masks, row, key.placement.labels)
        free = room(allowed, host.spacing_mm, key.placement.margin_mm)
        empty = np.zeros(free.shape, np.uint8)
        return cls(host, free, host.units.astype(np.float64), empty, empty.astype(bool))

    def set_in(self, stamp: Stamp, value: int, rng: np.random.Generator, key: PlacementKey) -> bool:
        """Blend a stamp in where there is room; later ones keep off its footprint."""
        place = find_place(self.free, stamp, rng)
        if place is None:
            return False
        placed = blend(self.units, stamp, place, key.placement.blending)
        self.units[placed.window] = np.where(placed.footprint, placed.units, self.units[placed.window])
        self.labels[placed.window][placed.mask] = value
        self.footprint[placed.window] |= placed.footprint
        self.free[placed.window] &= ~placed.footprint
        return True


def _fill(
    folder: Path,
    site: _Site,
    row: Row,
    sections: _Sections,
    key: PlacementKey,
    rng: np.random.Generator,
    unusable: set[int],
) -> list[dict[str, Any]]:
    """Set lesions into one host and write it; returns their rows, none where there was no room for any."""
    chosen: list[int] = []
    stamps = _stamps(site.host, sections, key, rng, unusable)
    for value in range(1, key.placement.per_host + 1):
        for _, (index, stamp) in zip(range(_ATTEMPTS), stamps, strict=False):
            if site.set_in(stamp, value, rng, key):
                chosen.append(index)
                break
        else:
            break
    if not chosen:
        return []
    name = f"{row['subject_id']}_{row['series_id']}"
    paths = {"image_path": f"images/{name}.nii.gz", "mask_path": f"masks/{name}_lesions.nii.gz"}
    labels = np.asarray(site.host.stored(site.labels))
    voxels = site.host.written(site.units, site.footprint)
    write_nifti(folder / paths["image_path"], voxels, site.host.affine, voxels.dtype)
    write_nifti(folder / paths["mask_path"], labels, site.host.affine, np.uint8)
    facts = {"Modality": row["modality"], "PatientID": row["subject_id"], "Manufacturer": "scanloom", "Synthetic": True}
    write_json(folder / f"images/{name}.json", facts)
    return [
        paths
        | {"mask_value": value, "subject_id": row["subject_id"], "series_id": row["series_id"]}
        | _origin(sections.rows[index])
        | _extent(labels == value, site.host.affine)
        | {"sections": int((site.labels == value).any(axis=(1, 2)).sum()), "blending": key.placement.blending}
        for value, index in enumerate(chosen, 1)
    ]


def _stamps(
    host: Host, sections: _Sections, key: PlacementKey, rng: np.random.Generator, unusable: set[int]
) -> Iterator[tuple[int, Stamp]]:
    """Usable lesions of the cohort in a drawn order, each once."""
    for index in rng.permutation(len(sections.images)).tolist():
        if index in unusable:
            continue
        slices = len(host.units)
        stamp = stamp_of(sections.images[index], sections.pixel_mm, host.spacing_mm, key.placement.rim_mm, slices)
        if stamp is None:
            unusable.add(index)
        else:
            yield index, stamp


def _origin(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: row.get(name) for name in ("lesion_class", "seed", "model_sha256")}
    return kept | {"cohort_image": row["image"]}


def _extent(mask: npt.NDArray[np.bool_], affine: npt.NDArray[np.float64]) -> dict[str, Any]:
    center = affine @ np.append(np.argwhere(mask).mean(axis=0), 1.0)
    volume = float(mask.sum()) * abs(float(np.linalg.det(affine[:3, :3])))
    return {"center_mm": [float(value) for value in center[:3]], "volume_mm3": volume}


def _released_sections(context: StageContext) -> _Sections:
    """Crops of the cohort that its release gate lets pass."""
    facts = read_json(context.inputs["prepared"] / "set.json")
    if facts["pixel_mm"] is None:
        raise InputError(
            "Lesions are set into scans at their true size.",
            found="a generator of pictures without geometry",
            allowed="a generator of crops that were cut from scans with lesion masks",
            change="Train on scans with lesions.csv.",
        )
    gate = read_json(context.inputs["evaluation"] / "gate.json")
    if gate["blocked"]:
        raise InputError(
            "Lesions leave a cohort only if its release gate is open.",
            found=str(gate["reason"]),
            allowed="a cohort that copies no more training images than chance explains",
            change="Read the report on memorization; hold out more subjects, or train on more images.",
        )
    flagged = set(pl.read_parquet(context.inputs["evaluation"] / "flagged.parquet")["image"])
    rows = pl.read_parquet(context.inputs["cohort"] / "cohort.parquet").to_dicts()
    kept = [index for index, row in enumerate(rows) if row["image"] not in flagged]
    images = np.load(context.inputs["cohort"] / IMAGES_ARRAY, allow_pickle=False)
    return _Sections(
        from_int16(images[kept, 0]), [rows[index] for index in kept], float(facts["pixel_mm"]), str(facts["modality"])
    )
