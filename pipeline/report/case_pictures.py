"""Pictures of the MR-to-CT track: MR | pseudo-CT | CT | signed error at several heights, in stated windows.

Cases with a registered CT are shown in the order of their mean absolute difference inside the body outline. It ranks
cases only; the results tables hold the figures that count.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.intensity import from_int16
from pipeline.prepared_set import VolumeSet
from pipeline.report.pictures import Bytes, Picture, Window, display_size, diverging, picture, resized

MR_WINDOW = Window("whole range", 2.0, 0.0)
SOFT_TISSUE, BONE = Window("soft tissue", 400, 40), Window("bone", 2000, 300)
GREY_WINDOW = Window("grey levels", 255, 127.5)
ERROR_LIMITS = {"HU": 500.0, "grey": 128.0}
"""Ends of the error colors, by unit."""

_MAX_CASES = 5
_BODY_MARGIN_PX = 4


@dataclass(frozen=True)
class Tile:
    """One picture of a row with its heading."""

    heading: str
    picture: Picture


@dataclass(frozen=True)
class SliceRow:
    """The tiles of one height."""

    height: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class CasePictures:
    """One case.

    Attributes:
        series_id, subject_id: pseudonyms.
        split: the subject's split.
        rank: e.g. ``lowest error of 12``; empty where it is the only one.
        rows: slices from inferior to superior.
    """

    series_id: str
    subject_id: str
    split: str
    rank: str
    rows: tuple[SliceRow, ...]


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


@dataclass(frozen=True)
class OpenCase:
    """Voxels of one case, (K, H, W).

    Attributes:
        row: series_id, subject_id, split.
        mr: unit × 16384; None where there is none.
        mask: body outline.
        pseudo_ct, ct: HU or grey levels; no CT where there is no reference.
        pixel_mm: row and column distance.
    """

    row: dict[str, Any]
    mr: npt.NDArray[Any] | None
    mask: npt.NDArray[Any]
    pseudo_ct: npt.NDArray[Any]
    ct: npt.NDArray[Any] | None
    pixel_mm: tuple[float, float]

    def error(self) -> float | None:
        """Mean absolute difference inside the body outline; None without a reference."""
        inside = self.mask.astype(bool)
        if self.ct is None or not inside.any():
            return None
        return float(np.abs(self.pseudo_ct[inside].astype(np.float64) - self.ct[inside]).mean())


def case_gallery(prepared: VolumeSet, translated: Path, slices_per_case: int) -> CaseGallery:
    """Pictures of the cases in ``translated``/cases.parquet.

    Args:
        prepared: MR, CT and masks.
        translated: folder of translate_mr_to_ct.
        slices_per_case: heights shown of each case, at the most.
    """
    table = pl.read_parquet(translated / "cases.parquet").sort("series_id").to_dicts()
    oriented = bool(table) and all(prepared.row(row["volume"])["affine"] is not None for row in table)
    return gallery_of(
        table,
        lambda row: _open(row, prepared, translated),
        str(prepared.facts["unit"]),
        slices_per_case,
        oriented=oriented,
    )


def gallery_of(
    table: list[dict[str, Any]],
    opened: Callable[[dict[str, Any]], OpenCase],
    unit: str,
    slices_per_case: int,
    *,
    oriented: bool,
) -> CaseGallery:
    """Pictures of cases, wherever they lie.

    Args:
        table: one row a case, with series_id, subject_id, split.
        opened: voxels of a row.
        unit: HU or grey.
        slices_per_case: heights shown of each case, at the most.
        oriented: voxels have a position in the patient.
    """
    errors, with_mr = [], False
    for row in table:
        case = opened(row)
        errors.append(case.error())
        with_mr = with_mr or case.mr is not None
    windows = (SOFT_TISSUE, BONE) if unit == "HU" else (GREY_WINDOW,)
    limit = ERROR_LIMITS[unit]
    cases = tuple(
        CasePictures(
            row["series_id"],
            row["subject_id"],
            row["split"],
            rank,
            _rows(opened(row), windows, limit, slices_per_case),
        )
        for row, rank in _choose(list(zip(table, errors, strict=True)))
    )
    scored = sum(error is not None for error in errors)
    return CaseGallery(cases, unit, limit, windows, oriented, len(table), scored, with_mr)


def _open(row: dict[str, Any], prepared: VolumeSet, translated: Path) -> OpenCase:
    mr_row = prepared.row(row["volume"])
    pair = mr_row["pair_volume"]
    pseudo_ct = np.load(translated / row["prepared_path"], mmap_mode="r", allow_pickle=False)
    ct = None if pair < 0 else prepared.voxels(prepared.row(pair))
    spacing = prepared.facts.get("spacing_mm") or (1.0, 1.0, 1.0)
    pixel_mm = (spacing[1], spacing[0])
    return OpenCase(row, prepared.voxels(mr_row), prepared.mask(mr_row), pseudo_ct, ct, pixel_mm)


def _choose(cases: list[tuple[dict[str, Any], float | None]]) -> list[tuple[dict[str, Any], str]]:
    """Cases to show, each with its rank in words.

    Those with a reference come first, evenly spread from the lowest error to the highest; others fill the room left.
    """
    scored = sorted((error, row["series_id"], place) for place, (row, error) in enumerate(cases) if error is not None)
    ranks = np.unique(np.linspace(0, len(scored) - 1, min(_MAX_CASES, len(scored))).round().astype(int))
    chosen = [(cases[scored[rank][2]][0], _rank_text(int(rank), len(scored))) for rank in ranks]
    others = [(row, "not compared") for row, error in cases if error is None]
    return chosen + others[: _MAX_CASES - len(chosen)]


def _rank_text(place: int, total: int) -> str:
    if total == 1:
        return ""
    ends = {0: "lowest", total - 1: "highest"}
    return f"{ends[place]} error of {total}" if place in ends else f"error {place + 1} of {total}, lowest first"


def _rows(case: OpenCase, windows: tuple[Window, ...], limit: float, most: int) -> tuple[SliceRow, ...]:
    """Tiles at heights that spread over the body."""
    top, bottom, left, right = _body_box(case.mask)
    size = display_size(bottom - top, right - left, *case.pixel_mm)
    total = len(case.pseudo_ct)
    rows = []
    for place in _heights(case.mask, most):
        cut = (place, slice(top, bottom), slice(left, right))
        height = f"slice {place + 1} of {total}"
        tiles = _tiles(case, cut, windows, limit)
        shown = tuple(
            Tile(heading, picture(resized(pixels, *size), f"{heading}, {case.row['series_id']}, {height}"))
            for heading, pixels in tiles
        )
        rows.append(SliceRow(height, shown))
    return tuple(rows)


def _tiles(case: OpenCase, cut: Any, windows: tuple[Window, ...], limit: float) -> list[tuple[str, Bytes]]:
    pseudo_ct = case.pseudo_ct[cut]
    tiles = [] if case.mr is None else [("MR", MR_WINDOW.apply(from_int16(case.mr[cut])))]
    for window in windows:
        suffix = "" if len(windows) == 1 else f", {window.name}"
        tiles.append((f"Pseudo-CT{suffix}", window.apply(pseudo_ct)))
        if case.ct is not None:
            tiles.append((f"CT{suffix}", window.apply(case.ct[cut])))
    if case.ct is not None:
        error = pseudo_ct.astype(np.float64) - case.ct[cut]
        tiles.append(("Error", diverging(error, limit)))
    return tiles


def _body_box(mask: npt.NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Rows and columns (first, end, first, end) that the body spans, with a small margin; everything without a body."""
    flat = mask.max(axis=0)
    box = []
    for touches in (flat.max(axis=1), flat.max(axis=0)):
        touched, length = np.flatnonzero(touches), len(touches)
        first, last = (int(touched[0]), int(touched[-1]) + 1) if len(touched) else (0, length)
        box += [max(0, first - _BODY_MARGIN_PX), min(length, last + _BODY_MARGIN_PX)]
    return box[0], box[1], box[2], box[3]


def _heights(mask: npt.NDArray[np.uint8], most: int) -> list[int]:
    """Slices at the centers of ``most`` equal parts of the body's height."""
    inside = np.flatnonzero(mask.reshape(len(mask), -1).any(axis=1))
    inside = inside if len(inside) else np.arange(len(mask))
    parts = min(most, len(inside))
    return sorted({int(inside[int((part + 0.5) * len(inside) / parts)]) for part in range(parts)})
