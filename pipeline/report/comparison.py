"""Runs side by side: what was decided, the main measures with intervals, and what differs in settings and data.

Everything comes from the runs' ``report.json``. Figures on different test subjects are not comparable, and the first
thing that the comparison says is whether they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from string import ascii_uppercase
from typing import Any

from pipeline.report.page import TRACK_TITLES
from pipeline.report.tables import TableView, table_view
from pipeline.results import Cell, Column, Results, ResultTable

NEEDED = ("settings", "stages", "results", "decisions", "test_sets")
"""Parts of ``report.json`` that a comparison reads."""

MOST_RUNS = len(ascii_uppercase)

_MAIN_ROWS: Mapping[str, tuple[str, frozenset[str]]] = {
    "utility": ("arm", frozenset({"real", "real_synthetic"})),
    "fidelity": ("comparison", frozenset({"synthetic"})),
    "mr_to_ct_summary": ("method", frozenset({"pseudo_ct", "intensity_lookup"})),
}
"""Rows of result tables that are compared: the column that names them, and the names."""

_PREPARED = ("ingest", "prepare_lesions", "prepare_mr_to_ct", "synthesize_lesions", "translate_mr_to_ct")
_NOT_STATED = "–"
_ALL_CLASSES = "all classes"


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        letter: A, B, C …
        name: its name in the settings.
        numbers: its ``report.json``.
    """

    letter: str
    name: str
    numbers: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Heading of its column."""
        return f"{self.letter}: {self.name}"


@dataclass(frozen=True)
class Footing:
    """Whether the runs of one track can be compared.

    Attributes:
        track: title of the track.
        outcome: good, neutral or bad.
        sentence: why.
    """

    track: str
    outcome: str
    sentence: str


@dataclass(frozen=True)
class Comparison:
    """What the page shows."""

    runs: tuple[Run, ...]
    footings: tuple[Footing, ...]
    decisions: tuple[tuple[str, tuple[tuple[Run, Mapping[str, str] | None], ...]], ...]
    tables: tuple[TableView, ...]


def compare(numbers: Sequence[Mapping[str, Any]]) -> Comparison:
    """Compare two or more runs by their ``report.json``."""
    letters = ascii_uppercase
    runs = tuple(Run(letters[place], str(found["settings"]["name"]), found) for place, found in enumerate(numbers))
    tracks = [track for track in TRACK_TITLES if sum(track in run.numbers["results"] for run in runs) > 1]
    tables = [table for track in tracks if (table := _measures(track, runs)) is not None]
    tables += [_trainings(runs), _settings(runs), _data(runs)]
    decisions = tuple(
        (TRACK_TITLES[track], tuple((run, run.numbers["decisions"].get(track)) for run in runs))
        for track in TRACK_TITLES
        if any(track in run.numbers["decisions"] for run in runs)
    )
    footings = tuple(_footing(track, runs) for track in tracks)
    return Comparison(runs, footings, decisions, tuple(table_view(table) for table in tables if table.rows))


def relation(intervals: Mapping[str, tuple[float, float] | None]) -> str:
    """How intervals lie, in words: which pairs are apart, or that all overlap.

    Args:
        intervals: lower and upper end by run; None where there is none.
    """
    known = {letter: ends for letter, ends in intervals.items() if ends is not None}
    if len(known) < 2:
        return "no intervals to compare"
    apart = [
        f"{one} and {two}"
        for one, two in combinations(known, 2)
        if known[one][1] < known[two][0] or known[two][1] < known[one][0]
    ]
    return f"apart: {', '.join(apart)}" if apart else "overlap"


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings as text by dotted key; lists are one value."""
    found: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= flattened(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = str(value)
    return found


def _footing(track: str, runs: Sequence[Run]) -> Footing:
    sets = [run.numbers["test_sets"].get(track) for run in runs if track in run.numbers["results"]]
    title = TRACK_TITLES[track]
    if any(found is None or not found["images"] for found in sets):
        return Footing(title, "bad", "A run does not say what it was tested on: its figures cannot be compared.")
    first, *others = sets
    count = f"{len(first['subjects'])} test subjects, {len(first['images'])} images or volumes"
    if all(found["images"] == first["images"] for found in others):
        return Footing(title, "good", f"Tested on the same voxels ({count}).")
    if all(found["subjects"] == first["subjects"] for found in others):
        words = f"The same test subjects ({count}), but other voxels: they were ingested or prepared in another way."
        return Footing(title, "neutral", f"{words} Differences of figures may come from there.")
    shared = [len(set(first["images"]) & set(found["images"])) for found in others]
    of_all = ", ".join(f"{number} of {len(first['images'])}" for number in shared)
    words = f"NOT COMPARABLE: test subjects differ. Of the first run's test images {of_all} are in the others too."
    return Footing(title, "bad", words)


def _columns(runs: Sequence[Run], *, digits: int = 3, intervals: bool = False) -> list[Column]:
    return [
        Column(
            key=run.letter,
            title=run.label,
            definition=f"Run {run.letter}.",
            digits=digits,
            low_key=f"{run.letter}_low" if intervals else None,
            high_key=f"{run.letter}_high" if intervals else None,
        )
        for run in runs
    ]


def _measures(track: str, runs: Sequence[Run]) -> ResultTable | None:
    found: dict[str, dict[str, Cell]] = {}
    for run in runs:
        if track in run.numbers["results"]:
            for name, column, row in _main_cells(Results.model_validate(run.numbers["results"][track])):
                line = found.setdefault(name, {"measure": name})
                line[run.letter] = row.get(column.key)
                for end, key in (("low", column.low_key), ("high", column.high_key)):
                    line[f"{run.letter}_{end}"] = row.get(key) if key else None
    for line in found.values():
        line["relation"] = relation({run.letter: _ends(line, run.letter) for run in runs})
    columns = (
        Column(key="measure", title="Measure", definition="Row and column of the runs' result tables."),
        *_columns(runs, intervals=True),
        Column(key="relation", title="95 % intervals", definition="Whether the intervals of the runs overlap."),
    )
    caption = (
        "Intervals that lie apart speak for a difference. Overlapping ones show none, and do not show that there is "
        "none; a paired test on the same subjects would see more."
    )
    title = f"{TRACK_TITLES[track]}: main measures"
    rows = tuple(found.values())
    return (
        ResultTable(key=f"measures_{track}", title=title, caption=caption, columns=columns, rows=rows) if rows else None
    )


def _main_cells(results: Results) -> list[tuple[str, Column, Mapping[str, Cell]]]:
    """(name, column, row) of every number that is compared."""
    found: list[tuple[str, Column, Mapping[str, Cell]]] = []
    for table in results.tables:
        naming, wanted = _MAIN_ROWS.get(table.key, ("", frozenset()))
        for row in table.rows:
            if row.get(naming) in wanted and row.get("lesion_class", _ALL_CLASSES) == _ALL_CLASSES:
                words = [str(row[column.key]) for column in table.columns if isinstance(row.get(column.key), str)]
                for column in table.columns:
                    if isinstance(row.get(column.key), float):
                        unit = f" [{column.unit}]" if column.unit else ""
                        found.append((f"{', '.join(words)}: {column.title}{unit}", column, row))
    return found


def _ends(line: Mapping[str, Cell], letter: str) -> tuple[float, float] | None:
    low, high = line.get(f"{letter}_low"), line.get(f"{letter}_high")
    return (low, high) if isinstance(low, float) and isinstance(high, float) else None


def _trainings(runs: Sequence[Run]) -> ResultTable:
    rows: list[dict[str, Cell]] = []
    for stage, title in (("train_lesions", "Lesion GAN"), ("train_mr_to_ct", "CycleGAN")):
        facts = {run.letter: run.numbers["stages"].get(stage, {}).get("facts", {}) for run in runs}
        if any(facts.values()):
            rows.append({"what": f"{title}, training images"} | {key: own.get("images") for key, own in facts.items()})
            alarms: dict[str, Cell] = {
                key: len(own["alarms"]) if "alarms" in own else None for key, own in facts.items()
            }
            rows.append({"what": f"{title}, alarms", **alarms})
            rows.append({"what": f"{title}, device"} | {key: own.get("device") for key, own in facts.items()})
    columns = (Column(key="what", title="Training", definition="What is counted."), *_columns(runs))
    caption = "Lengths are counted in training images."
    return ResultTable(key="trainings", title="Trainings", caption=caption, columns=columns, rows=tuple(rows))


def _settings(runs: Sequence[Run]) -> ResultTable:
    flat = {run.letter: flattened(run.numbers["settings"]) for run in runs}
    keys = sorted({key for own in flat.values() for key in own})
    rows: list[dict[str, Cell]] = []
    for key in keys:
        values = {letter: own.get(key, _NOT_STATED) for letter, own in flat.items()}
        if len(set(values.values())) > 1:
            rows.append({"setting": key, **values})
    columns = (Column(key="setting", title="Setting", definition="Key in the settings."), *_columns(runs))
    caption = f"{len(rows)} of {len(keys)} settings differ; the others are equal."
    title = "Settings that differ"
    return ResultTable(key="settings", title=title, caption=caption, columns=columns, rows=tuple(rows))


def _data(runs: Sequence[Run]) -> ResultTable:
    rows: list[dict[str, Cell]] = []
    for stage in _PREPARED:
        hashes = {run.letter: run.numbers["stages"].get(stage, {}).get("content_sha256") for run in runs}
        if any(hashes.values()):
            same = "equal" if len(set(hashes.values())) == 1 else "differ"
            shown = {letter: str(found)[:12] if found else _NOT_STATED for letter, found in hashes.items()}
            rows.append({"what": stage, **shown, "same": same})
    columns = (
        Column(key="what", title="Made by", definition="Stage that made the data."),
        *_columns(runs),
        Column(key="same", title="Content", definition="Whether the content hashes are equal."),
    )
    caption = "Hashes of content. Workspaces with keys of their own give other pseudonyms, and so other hashes."
    return ResultTable(key="data", title="Data", caption=caption, columns=columns, rows=tuple(rows))
