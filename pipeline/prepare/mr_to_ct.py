"""The set of MR and CT volumes that translation is trained and tested on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import JsonValue

from pipeline.catalog import Catalog
from pipeline.errors import InputError
from pipeline.intensity import CT_MAP, GREY_MAP
from pipeline.prepare.mr_normalization import knots_of
from pipeline.prepare.mr_sequences import mr_inputs
from pipeline.prepare.mr_volumes import MRVolumes
from pipeline.prepare.pairing import Pairing, Registrations
from pipeline.prepare.volumes import PreparedVolume, prepare_ct_volume, prepare_grey_case
from pipeline.prepared_set import VolumeSetWriter
from pipeline.records import ProgressCallback
from pipeline.settings import PrepareMRToCTSettings
from pipeline.spreading import Spread, here

_SIDES = ("MR", "CT")
_Sides = tuple[list[dict[str, Any]], list[dict[str, Any]]]


@dataclass(frozen=True)
class _MRTask:
    """Rows of an MR, of its further sequences, and of every CT of its subject."""

    row: dict[str, Any]
    others: Sequence[Mapping[str, Any]]
    cts: Sequence[dict[str, Any]]


@dataclass(frozen=True)
class _MRCase:
    """What became of one MR.

    Attributes:
        mr: None where it is left out.
        left_out: why.
        partner: its CT on its grid, with the CT's row.
        tried: rows of the registrations that were tried.
    """

    mr: PreparedVolume | None
    left_out: str
    partner: tuple[dict[str, Any], PreparedVolume] | None = None
    tried: list[dict[str, Any]] = field(default_factory=list)


def prepare_volume_set(
    catalog: Catalog,
    splits: Mapping[str, str],
    settings: PrepareMRToCTSettings,
    folder: Path,
    progress: ProgressCallback,
    spread: Spread = here,
) -> dict[str, JsonValue]:
    """Write the volume set into ``folder``; returns its facts.

    Raises:
        InputError: no MR, no CT, or HU beside grey levels.
    """
    series = _with_lesions(catalog)
    volumes = _wanted(series.filter(pl.col("kind") == "volume"), settings)
    cases = series.filter(pl.col("source") == "slice_pairs")
    _check_modalities(volumes, cases, settings)
    knots = CT_MAP if volumes.height else GREY_MAP
    facts: dict[str, Any] = {
        "unit": "HU" if volumes.height else "grey",
        "ct_map": {"knots_hu": list(knots.knots_hu), "knots_unit": list(knots.knots_unit)},
        "spacing_mm": list(settings.spacing_mm) if volumes.height else None,
    }
    if settings.sequences:
        _require_volumes(volumes, settings.sequences)
        facts["sequences"] = list(settings.sequences)
    with VolumeSetWriter(folder) as writer:
        if volumes.height:
            facts |= _add_volumes(catalog, volumes, splits, settings, writer, folder, progress, spread)
        else:
            facts |= {"left_out": {}, "refused_pairs": {}, "mr_normalization": {"method": "percentiles"}}
            _add_cases(catalog, cases, splits, settings, writer, progress, spread)
        table = writer.close(facts)
    return facts | _counts(table)


def _counts(table: pl.DataFrame) -> dict[str, Any]:
    per_split = table.group_by("split").agg(pl.col("subject_id").n_unique())
    mr = table.filter(pl.col("modality") == "MR")
    return {
        "subjects": dict(zip(per_split["split"], per_split["subject_id"], strict=True)),
        "mr_volumes": mr.height,
        "ct_volumes": table.filter((pl.col("modality") == "CT") & pl.col("own_grid")).height,
        "pairs": mr.filter(pl.col("pair_volume") >= 0).height,
    }


def _with_lesions(catalog: Catalog) -> pl.DataFrame:
    """Series with the lesion classes of their subject: none for others than those with lesions, null without any."""
    named = catalog.lesions.group_by("subject_id").agg(pl.col("lesion_class").unique().sort().alias("lesion_classes"))
    joined = catalog.series.join(named, on="subject_id", how="left", maintain_order="left")
    return joined if not named.height else joined.with_columns(pl.col("lesion_classes").fill_null([]))


def _wanted(volumes: pl.DataFrame, settings: PrepareMRToCTSettings) -> pl.DataFrame:
    known = volumes.filter(pl.col("modality").is_in(["MR", "CT"]))
    if settings.body_parts is None:
        return known
    return known.filter(pl.col("body_part").is_in([part.upper() for part in settings.body_parts]))


def _check_modalities(volumes: pl.DataFrame, cases: pl.DataFrame, settings: PrepareMRToCTSettings) -> None:
    if volumes.height and cases.height:
        raise InputError(
            "One set is either in HU or in grey levels.",
            found=f"{volumes.height} volumes with geometry and {cases.height} pictures without",
            allowed="one of the two",
            change="Ingest them into two workspaces.",
        )
    present = set(volumes["modality"]) | set(cases["modality"])
    missing = sorted({"MR", "CT"} - present)
    if missing:
        where = f" of body parts {', '.join(settings.body_parts)}" if settings.body_parts else ""
        raise InputError(
            "MR-to-CT translation needs MR and CT.",
            found=f"no {' and no '.join(missing)}{where} in the catalog",
            allowed="at least one MR and one CT volume, or MR/ and CT/ slice pairs",
            change="Add the missing scans (see `scanloom quarantine list` for refused ones), or set tracks: [lesions].",
        )


def _add_volumes(
    catalog: Catalog,
    volumes: pl.DataFrame,
    splits: Mapping[str, str],
    settings: PrepareMRToCTSettings,
    writer: VolumeSetWriter,
    folder: Path,
    progress: ProgressCallback,
    spread: Spread,
) -> dict[str, Any]:
    """Write every volume; returns what was left out, which pairs were refused, and the normalization, each as a fact.

    An MR that cannot be scaled or resampled is left out; one whose CT cannot be registered stays, without a pair.
    """
    rows = volumes.sort("subject_id", "modality", "series_id").to_dicts()
    all_mr = [row for row in rows if row["modality"] == "MR"]
    anywhere = settings.pair_by == "subject" or settings.registration != "none"
    inputs, left_out = mr_inputs(all_mr, settings.sequences, by_subject=anywhere)
    mr_rows = [row for row, _ in inputs]
    ct_rows = [row for row in rows if row["modality"] == "CT"]
    registrations = Registrations()
    total = len(mr_rows) + len(ct_rows)
    with MRVolumes(catalog, settings, folder) as mr_volumes:
        used = [row for first, others in inputs for row in (first, *others)]
        mr_volumes.fit([row for row in used if splits[row["subject_id"]] == "train"], spread)
        tasks = [
            _MRTask(row, others, [ct for ct in ct_rows if ct["subject_id"] == row["subject_id"]])
            for row, others in inputs
        ]
        work = partial(_mr_case, mr_volumes, Pairing(catalog.without_rows(), settings))
        for number, ((row, others), case) in enumerate(zip(inputs, spread(work, tasks), strict=True), 1):
            progress("volumes", number, total)
            registrations.rows += case.tried
            if case.mr is None:
                left_out[row["series_id"]] = case.left_out
                continue
            mr_number = _write(writer, row, splits, case.mr, own_grid=True, others=others)
            if case.partner is not None:
                ct_row, ct = case.partner
                writer.link(mr_number, _write(writer, ct_row, splits, ct, own_grid=False))
    volumes_of_ct = spread(partial(_ct_volume, catalog.without_rows(), settings), ct_rows)
    for number, (row, ct) in enumerate(zip(ct_rows, volumes_of_ct, strict=True), len(mr_rows) + 1):
        _write(writer, row, splits, ct, own_grid=True)
        progress("volumes", number, total)
    if all(row["series_id"] in left_out for row in mr_rows):
        raise InputError(
            "At least one MR must be usable.",
            found="; ".join(sorted(set(left_out.values()))),
            allowed=_usable(settings),
            change="Check the scans, or leave them out.",
        )
    if settings.registration != "none":
        registrations.write(folder)
    facts: dict[str, Any] = {"left_out": left_out, "refused_pairs": registrations.refusals}
    if settings.registration == "deformable":
        facts["kept_rigid"] = registrations.kept_rigid
    return facts | {"mr_normalization": mr_volumes.facts()}


def _usable(settings: PrepareMRToCTSettings) -> str:
    contrast = "MR with contrast inside the body"
    return f"{contrast}, {' and '.join(settings.sequences)} of a subject registered" if settings.sequences else contrast


def _require_volumes(volumes: pl.DataFrame, names: Sequence[str]) -> None:
    if not volumes.height:
        raise InputError(
            "Several MR sequences can be one input where scans have geometry.",
            found=f"sequences: [{', '.join(names)}] and slice pairs, which have no sequence",
            allowed="DICOM or NIfTI volumes",
            change="Set prepare.mr_to_ct.sequences=[].",
        )


def _mr_case(mr_volumes: MRVolumes, pairing: Pairing, task: _MRTask) -> _MRCase:
    """One MR with its further sequences, and its CT."""
    row, own = task.row, task.cts
    try:
        mr = mr_volumes.prepare(row, task.others)
    except InputError as error:
        return _MRCase(None, f"{error.rule} Found: {error.found}")
    tried: list[dict[str, Any]] = []
    return _MRCase(mr, "", pairing.partner(row, mr, own, tried), tried)


def _ct_volume(catalog: Catalog, settings: PrepareMRToCTSettings, row: Mapping[str, Any]) -> PreparedVolume:
    return prepare_ct_volume(catalog, row, settings)


def _add_cases(
    catalog: Catalog,
    cases: pl.DataFrame,
    splits: Mapping[str, str],
    settings: PrepareMRToCTSettings,
    writer: VolumeSetWriter,
    progress: ProgressCallback,
    spread: Spread,
) -> None:
    """Slice pairs: each case is one volume; slices with a partner come together, the others apart."""
    groups = list(_case_groups(cases))
    prepared = spread(partial(_grey_case, catalog.without_rows(), settings), groups)
    for number, (sides, volumes) in enumerate(zip(groups, prepared, strict=True), 1):
        written = {
            modality: _write(writer, rows[0], splits, volumes[modality], own_grid=True)
            for modality, rows in zip(_SIDES, sides, strict=True)
            if rows
        }
        if len(written) == 2:
            writer.link(written["MR"], written["CT"])
        progress("cases", number, len(groups))


def _grey_case(catalog: Catalog, settings: PrepareMRToCTSettings, sides: _Sides) -> dict[str, PreparedVolume]:
    """The volumes of one case by modality."""
    return {
        modality: prepare_grey_case(
            np.stack([_grey(catalog.image(row)) for row in rows]), modality, settings.mr_percentiles
        )
        for modality, rows in zip(_SIDES, sides, strict=True)
        if rows
    }


def _case_groups(cases: pl.DataFrame) -> Iterator[_Sides]:
    """MR rows and CT rows of each case, once for its paired slices and once for each side's unpaired ones."""
    for _, table in sorted(cases.group_by("subject_id"), key=lambda item: str(item[0])):
        rows = table.sort("slice_index").to_dicts()
        by_shape = sorted({tuple(row["shape"]) for row in rows})
        for shape in by_shape:
            sides = {
                modality: [row for row in rows if row["modality"] == modality and tuple(row["shape"]) == shape]
                for modality in _SIDES
            }
            keys = {side: {row["pair_key"] for row in sides[side]} for side in sides}
            paired = (keys["MR"] & keys["CT"]) - {None}
            both = {side: [row for row in sides[side] if row["pair_key"] in paired] for side in sides}
            alone = {side: [row for row in sides[side] if row["pair_key"] not in paired] for side in sides}
            for mr_rows, ct_rows in ((both["MR"], both["CT"]), (alone["MR"], []), ([], alone["CT"])):
                if mr_rows or ct_rows:
                    yield mr_rows, ct_rows


def _grey(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """8-bit grey of a slice; color channels of a grey picture are equal, so the first one speaks for all.

    Raises:
        InputError: pixels of another type, which 8 bits cannot hold.
    """
    if pixels.dtype != np.uint8:
        raise InputError(
            "Slice pairs must have 8 bits: the grey levels of MR and CT are compared as they are.",
            found=f"pixels of type {pixels.dtype}",
            allowed="8-bit pictures, range 0 to 255",
            change="Convert the pictures to 8 bits, or bring the scans as DICOM or NIfTI.",
        )
    return np.asarray(pixels if pixels.ndim == 2 else pixels[..., 0])


def _write(
    writer: VolumeSetWriter,
    row: Mapping[str, Any],
    splits: Mapping[str, str],
    volume: PreparedVolume,
    *,
    own_grid: bool,
    others: Sequence[Mapping[str, Any]] = (),
) -> int:
    affine = None if volume.grid is None else [float(value) for value in np.asarray(volume.grid.affine).ravel()]
    return writer.add(
        {
            "modality": row["modality"],
            "subject_id": row["subject_id"],
            "series_id": row["series_id"],
            "split": splits[row["subject_id"]],
            "pair_volume": -1,
            "own_grid": own_grid,
            "affine": affine,
            "sequence": row["sequence"],
            "body_part": row["body_part"],
            "scan_affine": row["affine"],
            "lesion_classes": row["lesion_classes"],
        }
        | (knots_of(volume.scale) if volume.scale else {})
        | (_channels_of(volume, others) if others else {}),
        volume.slices,
        volume.mask,
        [part.slices for part in volume.more],
    )


def _channels_of(volume: PreparedVolume, others: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Columns of the further sequences."""
    knots = [knots_of(part.scale) for part in volume.more if part.scale]
    return {
        "channel_series": [other["series_id"] for other in others],
        "channel_low": [own["mr_low"] for own in knots],
        "channel_high": [own["mr_high"] for own in knots],
        "channel_moved": [np.asarray(part.moved).ravel().tolist() for part in volume.more],
    }
