"""Pictures of the MR-to-CT track: MR | pseudo-CT | CT | signed error at several heights, in stated windows.

Cases with a registered CT are shown in the order of their mean absolute difference inside the body outline. It ranks
cases only; the results tables hold the figures that count.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.prepared_set import VolumeSet
from pipeline.report.case_slices import BONE, GREY_WINDOW, MAPS, SOFT_TISSUE, OpenCase, SliceRow, body_box, slice_rows
from pipeline.report.pictures import Window
from pipeline.report.slice_viewer import Place, SliceViewer, slice_viewer
from pipeline.settings import ReportSettings

ERROR_LIMITS = {"HU": 500.0, "grey": 128.0}
"""Ends of the error colors, by unit."""

_TITLES = {"mr": "MR", "pseudo_ct": "Pseudo-CT", "ct": "CT"} | {key: title.capitalize() for key, title in MAPS.items()}


@dataclass(frozen=True)
class CasePictures:
    """One case.

    Attributes:
        series_id, subject_id: pseudonyms.
        split: the subject's split.
        rank: e.g. ``lowest error of 12``; empty where it is the only one.
        rows: slices from inferior to superior.
        viewer: every slice; None where the settings give it no room.
    """

    series_id: str
    subject_id: str
    split: str
    rank: str
    rows: tuple[SliceRow, ...]
    viewer: SliceViewer | None


@dataclass(frozen=True)
class CaseGallery:
    """Every case shown.

    Attributes:
        cases: the cases.
        unit: HU or grey.
        error_limit: end of the error colors.
        windows: CT windows in words.
        oriented: voxels have a position in the patient, so that sides are known.
        total: cases in the set.
        scored: cases that have a registered CT.
        with_mr: whether any case has an MR.
    """

    cases: tuple[CasePictures, ...]
    unit: str
    error_limit: float
    windows: tuple[Window, ...]
    oriented: bool
    total: int
    scored: int
    with_mr: bool


def case_gallery(prepared: VolumeSet, translated: Path, settings: ReportSettings) -> CaseGallery:
    """Pictures of the cases in ``translated``/cases.parquet.

    Columns ``uncertainty`` (in the unit of the CT) and ``cycle_residual`` (in thousandths of an MR unit) there name
    arrays (K, H, W) beside ``prepared_path``; either may be missing or null.

    Args:
        prepared: MR, CT and masks.
        translated: folder of translate_mr_to_ct.
        settings: how much is shown.
    """
    table = pl.read_parquet(translated / "cases.parquet").sort("series_id").to_dicts()
    oriented = bool(table) and all(prepared.row(row["volume"])["affine"] is not None for row in table)
    return gallery_of(
        table,
        lambda row: _open(row, prepared, translated),
        str(prepared.facts["unit"]),
        settings,
        oriented=oriented,
    )


def gallery_of(
    table: list[dict[str, Any]],
    opened: Callable[[dict[str, Any]], OpenCase],
    unit: str,
    settings: ReportSettings,
    *,
    oriented: bool,
) -> CaseGallery:
    """Pictures of cases, wherever they lie.

    Args:
        table: one row a case, with series_id, subject_id, split.
        opened: voxels of a row.
        unit: HU or grey.
        settings: how many cases and slices, and the room of the slice viewers.
        oriented: voxels have a position in the patient.
    """
    errors, with_mr = [], False
    for row in table:
        case = opened(row)
        errors.append(case.error())
        with_mr = with_mr or case.mr is not None
    windows = (SOFT_TISSUE, BONE) if unit == "HU" else (GREY_WINDOW,)
    limit = ERROR_LIMITS[unit]
    chosen = _choose(list(zip(table, errors, strict=True)), settings.cases)
    room = settings.viewer_megabytes * 1_000_000 // max(1, len(chosen))
    cases = []
    for row, rank in chosen:
        case = opened(row)
        rows = slice_rows(case, windows, limit, settings.slices_per_case)
        viewer = _viewer(case, unit, limit, room, oriented=oriented) if room else None
        cases.append(CasePictures(row["series_id"], row["subject_id"], row["split"], rank, rows, viewer))
    scored = sum(error is not None for error in errors)
    return CaseGallery(tuple(cases), unit, limit, windows, oriented, len(table), scored, with_mr)


def _open(row: dict[str, Any], prepared: VolumeSet, translated: Path) -> OpenCase:
    mr_row = prepared.row(row["volume"])
    pair = mr_row["pair_volume"]
    pseudo_ct = np.load(translated / row["prepared_path"], mmap_mode="r", allow_pickle=False)
    ct = None if pair < 0 else prepared.voxels(prepared.row(pair))
    stored = prepared.facts.get("spacing_mm")
    spacing = None if stored is None else (stored[2], stored[1], stored[0])
    place = Place.of_display(mr_row["affine"], pseudo_ct.shape, spacing)
    maps = {
        key: np.load(translated / row[key], mmap_mode="r", allow_pickle=False)
        for key in MAPS
        if row.get(key) is not None
    }
    return OpenCase(row, prepared.voxels(mr_row), prepared.mask(mr_row), pseudo_ct, ct, place, maps)


def _viewer(case: OpenCase, unit: str, limit: float, room: int, *, oriented: bool) -> SliceViewer:
    found = {"mr": case.mr, "pseudo_ct": case.pseudo_ct, "ct": case.ct, **case.maps}
    volumes = {key: (_TITLES[key], voxels) for key, voxels in found.items() if voxels is not None}
    box = body_box(case.mask)
    return slice_viewer(volumes, box, case.place, unit=unit, oriented=oriented, error_limit=limit, room=room)


def _choose(cases: list[tuple[dict[str, Any], float | None]], most: int) -> list[tuple[dict[str, Any], str]]:
    """Cases to show, each with its rank in words.

    Those with a reference come first, evenly spread from the lowest error to the highest, or the median where one is
    shown; others fill the room left.
    """
    scored = sorted((error, row["series_id"], place) for place, (row, error) in enumerate(cases) if error is not None)
    last = len(scored) - 1
    spread = np.linspace(0, last, min(most, len(scored))) if most > 1 else np.array([last / 2] * bool(scored))
    ranks = np.unique(np.floor(spread + 0.5).astype(int))
    chosen = [(cases[scored[rank][2]][0], _rank_text(int(rank), len(scored))) for rank in ranks]
    others = [(row, "not compared") for row, error in cases if error is None]
    return chosen + others[: most - len(chosen)]


def _rank_text(place: int, total: int) -> str:
    if total == 1:
        return ""
    named = {0: "lowest", total - 1: "highest"}
    if 2 * place == total - 1:
        named[place] = "median"
    return f"{named[place]} error of {total}" if place in named else f"error {place + 1} of {total}, lowest first"
