"""Curves and image grids of a training, from ``log.parquet`` and ``grids/`` of a train stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from pipeline.report.charts import LineChart, line_chart
from pipeline.report.pictures import Picture, picture
from pipeline.report.tables import TableView, table_view
from pipeline.training_alarms import ALARMS_FILE, TrainingAlarm, alarm_table, read_alarms

_VOLATILE_COLUMNS = frozenset({"images", "images_per_s", "seconds", "alarm"})
"""The axis, what differs between two equal runs, and words."""

_GRID_WIDTH_PX = 640


@dataclass(frozen=True)
class Term:
    """How a logged term is shown.

    Attributes:
        title: heading of its chart.
        note: how to read it.
        limits: ends of the value axis, or None.
        reference: value of a reference line, or None.
    """

    title: str
    note: str
    limits: tuple[float, float] | None = None
    reference: float | None = None


_RANK_NOTE = "1: told apart always; 0.5 (line): by chance only."
TERMS: Mapping[str, Term] = {
    "d_loss": Term("Discriminator loss", "A loss near zero means that it wins; balance matters, not the level."),
    "g_loss": Term("Generator loss", "Falls only while the discriminator stands still; the level is no quality score."),
    "p_real_over_fake": Term("P(real scored above synthetic)", _RANK_NOTE, (0.0, 1.0), 0.5),
    "diversity": Term("Diversity, synthetic / real", "Mean pairwise distance; 1 (line): as varied as real.", None, 1.0),
    "feature_diversity": Term("Diversity of features", "Synthetic / real; 1 (line): as varied as real.", None, 1.0),
    "class_diversity": Term("Least diversity of a class", "Of features, synthetic / real; 1 (line).", None, 1.0),
    "fidelity_gap": Term("Distance from real images", "Energy distance of features; 0 (line): alike.", None, 0.0),
    "held_out_recall": Term("Recall of held-out images", "Share that lies among the synthetic ones.", (0.0, 1.0)),
    "cycle_ct": Term("Cycle loss, CT → MR → CT", "Mean absolute difference in units; lower is better."),
    "cycle_mr": Term("Cycle loss, MR → CT → MR", "Mean absolute difference in units; lower is better."),
    "identity_ct": Term("Identity loss, CT", "Change of a CT shown to MR → CT, in units; lower is better."),
    "identity_mr": Term("Identity loss, MR", "Change of an MR shown to CT → MR, in units; lower is better."),
    "paired_ct": Term("Paired loss, CT", "Mean absolute difference from the registered CT, in units."),
    "paired_mr": Term("Paired loss, MR", "Mean absolute difference from the registered MR, in units."),
    "adversarial_ct": Term("Adversarial loss, pseudo-CT", "Of the generator; the level is no quality score."),
    "adversarial_mr": Term("Adversarial loss, pseudo-MR", "Of the generator; the level is no quality score."),
    "p_real_over_fake_ct": Term("P(CT scored above pseudo-CT)", _RANK_NOTE, (0.0, 1.0), 0.5),
    "p_real_over_fake_mr": Term("P(MR scored above pseudo-MR)", _RANK_NOTE, (0.0, 1.0), 0.5),
    "feature_diversity_ct": Term("Diversity of pseudo-CT features", "Against real CT; 1 (line).", None, 1.0),
    "fidelity_gap_ct": Term("Distance of pseudo-CT from CT", "Energy distance of features; 0 (line).", None, 0.0),
    "held_out_recall_ct": Term("Recall of held-out CT", "Share that lies among the pseudo-CT.", (0.0, 1.0)),
}
"""Terms that are shown first, in this order; other logged terms follow under their own names."""


@dataclass(frozen=True)
class Grid:
    """An image grid saved during training; that of an alarm is titled by it."""

    images: int
    picture: Picture
    title: str = ""


@dataclass(frozen=True)
class TrainingView:
    """What the page shows of a training.

    Attributes:
        watched: a flight recorder was there.
        alarms: what it raised; None for nothing.
        alarm_pictures: what the networks made then.
        entries: rows of the log.
        charts, further_charts: its terms.
        grids: the first, middle and last pictures.
    """

    watched: bool
    alarms: TableView | None
    alarm_pictures: tuple[Grid, ...]
    entries: int
    charts: tuple[LineChart, ...]
    further_charts: tuple[LineChart, ...]
    grids: tuple[Grid, ...]


def training_view(folder: Path, what: str) -> TrainingView:
    """Charts of ``folder``/log.parquet and the first, middle and last picture of ``folder``/grids.

    Args:
        folder: output of a train stage.
        what: what the grids show, e.g. ``synthetic lesions``; goes into their alternative text.
    """
    log = pl.read_parquet(folder / "log.parquet")
    known = [name for name in TERMS if name in log.columns]
    further = [name for name in log.columns if name not in TERMS and name not in _VOLATILE_COLUMNS]
    alarms = read_alarms(folder)
    at = [alarm.images for alarm in alarms]
    return TrainingView(
        (folder / ALARMS_FILE).is_file(),
        _alarm_view(folder, alarms),
        tuple(_alarm_grid(folder, alarm, what) for alarm in alarms if alarm.picture),
        log.height,
        _charts(log, {name: TERMS[name] for name in known}, at),
        _charts(log, {name: Term(name.replace("_", " "), "") for name in further}, at),
        _grids(folder / "grids", what),
    )


def _alarm_view(folder: Path, alarms: Sequence[TrainingAlarm]) -> TableView | None:
    table = alarm_table(alarms)
    key = f"{folder.parent.name}_{table.key}"
    return table_view(table.model_copy(update={"key": key})) if alarms else None


def _alarm_grid(folder: Path, alarm: TrainingAlarm, what: str) -> Grid:
    return _grid(folder / str(alarm.picture), alarm.images, what, alarm.alarm.replace("_", " "))


def _charts(log: pl.DataFrame, terms: Mapping[str, Term], alarms: Sequence[int]) -> tuple[LineChart, ...]:
    images = log["images"].to_list()
    charts = []
    for name, term in terms.items():
        values = [np.nan if value is None else float(value) for value in log[name]]
        chart = line_chart(
            term.title, term.note, images, values, limits=term.limits, reference=term.reference, alarms=alarms
        )
        charts += [] if chart is None else [chart]
    return tuple(charts)


def _grids(folder: Path, what: str) -> tuple[Grid, ...]:
    found = sorted(path for path in folder.glob("*.png") if path.stem.isdigit())
    chosen = sorted({0, len(found) // 2, len(found) - 1} & set(range(len(found))))
    return tuple(_grid(found[place], int(found[place].stem), what) for place in chosen)


def _grid(path: Path, images: int, what: str, title: str = "") -> Grid:
    with Image.open(path) as opened:
        grid = opened.convert("L" if opened.mode in {"1", "L", "I;16", "LA"} else "RGB")
        if grid.width > _GRID_WIDTH_PX:
            height = round(grid.height * _GRID_WIDTH_PX / grid.width)
            grid = grid.resize((_GRID_WIDTH_PX, height), Image.Resampling.LANCZOS)
        return Grid(images, picture(np.asarray(grid), f"Grid of {what} after {images} training images"), title)
