"""Quality of each pseudo-CT on a page of its own: traffic lights, the least certain slice, histogram of HU.

The checks were made when the pseudo-CT was; scores against a CT are those of the evaluation, where there is one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.domain_card import EDGES, CTReference, measure_ct, read_domain_card
from pipeline.files import read_json
from pipeline.intensity import from_int16
from pipeline.prepared_set import VolumeSet
from pipeline.report.case_slices import BONE, GREY_WINDOW, MR_WINDOW, Tile, body_box
from pipeline.report.pictures import Bytes, Window, display_size, picture, resized
from pipeline.report.tables import number_text
from pipeline.results import Results

CHECKS_FILE, REFUSED_FILE = "checks.parquet", "refused.parquet"
LIGHTS = {
    "green": ("●", "as usual"),
    "amber": ("▲", "look at it"),
    "red": ("■", "do not trust it"),
    "none": ("–", "unknown"),
}
"""Mark and words of each light: shapes differ too, for readers who cannot tell the colors apart."""

UNCERTAINTY_END = {"HU": 300.0, "grey": 64.0}
RESIDUAL_END = 500.0
"""White end of the maps: HU or grey levels, and thousandths of an MR unit."""

WIDTH, HEIGHT = 320, 90
"""Plot area of the histogram, SVG units."""


@dataclass(frozen=True)
class CheckView:
    """One row of the table."""

    name: str
    light: str
    mark: str
    words: str
    value: str
    rule: str
    meaning: str


@dataclass(frozen=True)
class HistogramView:
    """Outlines in SVG units: the body of the pseudo-CT, and of training CTs where the model knows them."""

    own: str
    training: str
    low: str
    high: str


@dataclass(frozen=True)
class QualityPage:
    """One case.

    Attributes:
        series_id, subject_id, split: pseudonyms and split.
        light: the gravest of the checks.
        checks: the table.
        scores: (name, value) against the CT; empty where it has none.
        tiles: maps of the slice that is least certain.
        place: which slice that is, in words.
        histogram: None where the case has no body.
    """

    series_id: str
    subject_id: str
    split: str
    light: str
    checks: tuple[CheckView, ...]
    scores: tuple[tuple[str, str], ...]
    tiles: tuple[Tile, ...]
    place: str
    histogram: HistogramView | None


@dataclass(frozen=True)
class QualityPages:
    """Every case, gravest light first, and those that were refused.

    Attributes:
        pages: cases.
        refused: (series, reasons).
        lights: marks and words by light.
    """

    pages: tuple[QualityPage, ...]
    refused: tuple[tuple[str, str], ...]
    lights: Mapping[str, tuple[str, str]]


def quality_pages(
    prepared: VolumeSet, translated: Path, model: Path | None, results: Results | None, most: int
) -> QualityPages | None:
    """Pages of the cases in ``translated``; None for a translation without checks.

    Args:
        prepared: MR, CT and masks.
        translated: folder of translate_mr_to_ct.
        model: folder of the trained model; None where it is not known.
        results: of the evaluation.
        most: pages at the most, gravest first.
    """
    if not (translated / CHECKS_FILE).is_file():
        return None
    checks = pl.read_parquet(translated / CHECKS_FILE)
    cases = pl.read_parquet(translated / "cases.parquet").to_dicts()
    card = None if model is None else read_domain_card(read_json(model / "card.json"))
    tables = {case["volume"]: checks.filter(pl.col("volume") == case["volume"]).to_dicts() for case in cases}
    lights = {volume: _gravest([row["light"] for row in rows]) for volume, rows in tables.items()}
    ranked = sorted(cases, key=lambda case: (_rank(lights[case["volume"]]), case["series_id"]))
    reference = card.ct if card else None
    pages = tuple(
        _page(case, tables[case["volume"]], lights[case["volume"]], prepared, translated, reference, results)
        for case in ranked[:most]
    )
    refused = pl.read_parquet(translated / REFUSED_FILE).to_dicts()
    reasons = tuple((row["series_id"], "; ".join(row["scope_findings"])) for row in refused)
    return QualityPages(pages, reasons, LIGHTS)


def _gravest(lights: Sequence[str]) -> str:
    return min(lights, key=_rank, default="none")


def _rank(light: str) -> int:
    return ("red", "amber", "none", "green").index(light)


def _page(
    case: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    light: str,
    prepared: VolumeSet,
    translated: Path,
    reference: CTReference | None,
    results: Results | None,
) -> QualityPage:
    mr_row = prepared.row(case["volume"])
    mask, unit = prepared.mask(mr_row), str(prepared.facts["unit"])
    pseudo_ct = _load(translated, case["prepared_path"])
    maps = {name: _load(translated, case[name]) for name in ("uncertainty", "cycle_residual") if case.get(name)}
    index = _least_certain(mask, maps.get("uncertainty", next(iter(maps.values()), None)))
    shown = {"MR": (MR_WINDOW, from_int16(prepared.voxels(mr_row)[index]))}
    shown["pseudo-CT"] = (BONE if unit == "HU" else GREY_WINDOW, pseudo_ct[index])
    if mr_row["pair_volume"] >= 0:
        shown["CT"] = (shown["pseudo-CT"][0], prepared.voxels(prepared.row(mr_row["pair_volume"]))[index])
    for name, end, words in (
        ("uncertainty", UNCERTAINTY_END[unit], f"Uncertainty, white from {UNCERTAINTY_END[unit]:g} {unit}"),
        ("cycle_residual", RESIDUAL_END, f"Cycle residual, white from {RESIDUAL_END / 1000:g} MR units"),
    ):
        if name in maps:
            shown[words] = (Window(name, end, end / 2), maps[name][index])
    tiles = _tiles(shown, mask, prepared, str(case["series_id"]), index)
    place = f"slice {index + 1} of {len(mask)}" + (", the least certain one" if maps else "")
    checks = tuple(_check(row) for row in rows)
    histogram = _histogram(pseudo_ct, mask, unit, reference)
    scores = _scores(results, case["series_id"])
    return QualityPage(
        case["series_id"], case["subject_id"], case["split"], light, checks, scores, tiles, place, histogram
    )


def _load(folder: Path, path: str) -> npt.NDArray[np.int16]:
    found: npt.NDArray[np.int16] = np.load(folder / path, mmap_mode="r", allow_pickle=False)
    return found


def _least_certain(mask: npt.NDArray[np.uint8], values: npt.NDArray[np.int16] | None) -> int:
    """Slice with the largest mean of a map inside the body, of those that hold half of the largest area or more."""
    areas = mask.reshape(len(mask), -1).sum(axis=1, dtype=np.int64)
    if values is None or not areas.any():
        return len(mask) // 2
    large = np.flatnonzero(2 * areas >= areas.max())
    means = [float(values[k][mask[k] > 0].mean()) for k in large]
    return int(large[int(np.argmax(means))])


def _tiles(
    shown: Mapping[str, tuple[Window, npt.NDArray[Any]]],
    mask: npt.NDArray[np.uint8],
    prepared: VolumeSet,
    series: str,
    index: int,
) -> tuple[Tile, ...]:
    top, bottom, left, right = body_box(mask)
    spacing = prepared.facts.get("spacing_mm") or (1.0, 1.0, 1.0)
    size = display_size(bottom - top, right - left, spacing[1], spacing[0])

    def tile(words: str, pixels: Bytes) -> Tile:
        return Tile(words, picture(resized(pixels, *size), f"{words}, {series}, slice {index + 1}"))

    return tuple(tile(words, window.apply(values[top:bottom, left:right])) for words, (window, values) in shown.items())


def _check(row: Mapping[str, Any]) -> CheckView:
    mark, words = LIGHTS[row["light"]]
    value = "–" if row["value"] is None else f"{number_text(row['value'], 3)} {row['unit']}".strip()
    return CheckView(row["check"], row["light"], mark, words, value, row["rule"], row["meaning"])


def _histogram(
    pseudo_ct: npt.NDArray[np.int16], mask: npt.NDArray[np.uint8], unit: str, reference: CTReference | None
) -> HistogramView | None:
    measured = measure_ct(pseudo_ct, mask, unit)
    if measured is None:
        return None
    edges = EDGES[unit]
    own, training = np.sqrt(measured.shares), np.sqrt(reference.shares) if reference else np.zeros(0)
    tallest = float(max(own.max(), training.max(initial=0.0)))
    line = _outline(training / tallest) if reference else ""
    return HistogramView(_outline(own / tallest), line, f"{edges[0]:g}", f"{edges[-1]:g} {unit}")


def _outline(heights: npt.NDArray[np.float64]) -> str:
    step = WIDTH / len(heights)
    bars = " ".join(f"V{HEIGHT * (1 - height):.1f}H{(n + 1) * step:.1f}" for n, height in enumerate(heights))
    return f"M0,{HEIGHT}{bars}V{HEIGHT}"


def _scores(results: Results | None, series: str) -> tuple[tuple[str, str], ...]:
    """Every score of the case, by the columns of the evaluation's table of cases."""
    table = next((table for table in results.tables if table.key == "mr_to_ct_cases"), None) if results else None
    if table is None:
        return ()
    row = next((row for row in table.rows if row.get("series_id") == series and row.get("method") == "pseudo_ct"), None)
    if row is None:
        return ()
    found = []
    for column in table.columns:
        value = row.get(column.key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            name = f"{column.title} [{column.unit}]" if column.unit else column.title
            found.append((name, number_text(float(value), column.digits)))
    return tuple(found)
