"""Pseudo-CT against CT: every case, two trivial baselines, intervals over subjects."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.evaluate.mr_to_ct_cases import (
    METHODS,
    Baselines,
    Scoring,
    evaluation_mask,
    fit_baselines,
    predictions,
    score,
    scoring_for,
)
from pipeline.evaluate.mr_to_ct_geometry import geometry_row, geometry_table, geometry_verdict
from pipeline.evaluate.mr_to_ct_tables import TITLES, case_table, score_names, structure_table, summary_table
from pipeline.metrics.bootstrap import mean_interval
from pipeline.prepared_set import VolumeSet
from pipeline.records import ProgressCallback
from pipeline.results import Cell, Headline, Results, Verdict
from pipeline.settings import EvaluateMRToCTSettings
from pipeline.spreading import Spread, here


@dataclass(frozen=True)
class _Case:
    """What is scored.

    Attributes:
        case: row of the translation.
        volumes: MR and CT; None without a CT.
        mr_row, ct_row: their rows.
    """

    case: Mapping[str, Any]
    volumes: VolumeSet | None = None
    mr_row: Mapping[str, Any] = field(default_factory=dict)
    ct_row: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Scored:
    """What became of a case.

    Attributes:
        unscored: why it has no scores; None where it has.
        places: its geometry, where there was something to compare.
        rows: scores by method.
    """

    unscored: str | None
    places: list[dict[str, Cell]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)


def evaluate_translation(
    volumes: VolumeSet,
    translated: Path,
    settings: EvaluateMRToCTSettings,
    seed: int,
    progress: ProgressCallback,
    spread: Spread = here,
) -> Results:
    """Score every translated case that has a CT on its grid.

    Args:
        volumes: prepared set.
        translated: output of `translate_mr_to_ct`.
        settings: dialect, mask, resamples.
        seed: of the bootstrap.
        progress: told after every case.
        spread: where cases are scored.
    """
    cases = pl.read_parquet(translated / "cases.parquet").to_dicts()
    scoring = scoring_for(volumes.facts, settings)
    work = partial(_scored, translated, fit_baselines(volumes), scoring)
    rows: list[dict[str, Any]] = []
    places: list[dict[str, Cell]] = []
    unscored: Counter[str] = Counter()
    for number, scored in enumerate(spread(work, (_case_with_volumes(volumes, case) for case in cases)), 1):
        rows += scored.rows
        places += scored.places
        if scored.unscored is not None:
            unscored[scored.unscored] += 1
        progress("cases scored", number, len(cases))
    return _results(rows, places, scoring, settings, seed, unscored, prepared_warnings(volumes.facts), translated)


def _case_with_volumes(volumes: VolumeSet, case: Mapping[str, Any]) -> _Case:
    mr = volumes.row(case["volume"])
    if mr["pair_volume"] < 0:
        return _Case(case)
    own, (mr_row, ct_row) = volumes.holding([mr, volumes.row(mr["pair_volume"])])
    return _Case(case, own, mr_row, ct_row)


def _scored(translated: Path, baselines: Baselines, scoring: Scoring, task: _Case) -> _Scored:
    case, volumes = task.case, task.volumes
    if volumes is None:
        return _Scored("no registered CT")
    ct = np.asarray(volumes.voxels(task.ct_row))
    mask = evaluation_mask(volumes, task.ct_row, scoring.dilation_px)
    if not mask.any():
        return _Scored("no body in the CT within the MR's field of view")
    made = predictions(volumes, task.mr_row, translated / case["prepared_path"], baselines, scoring.unit)
    place = geometry_row(case, translated, ct, made["pseudo_ct"], mask)
    if not place["comparable"]:
        return _Scored(f"another geometry than its MR ({place['finding']})", [place])
    whose = {name: case[name] for name in ("subject_id", "series_id", "split")}
    rows = [
        {"method": method, **whose, **score(ct, made[method], mask, scoring)} for method in METHODS if method in made
    ]
    return _Scored(None, [place], rows)


def prepared_warnings(facts: Mapping[str, Any]) -> list[str]:
    """What prepare left out, and which pairs it did not believe, each reason once."""
    told = (
        ("left_out", "Left out by prepare"),
        ("refused_pairs", "An MR without a pair, for its registration failed"),
        ("kept_rigid", "A pair without the bend asked for, which failed"),
    )
    return [f"{words}: {reason}" for name, words in told for reason in sorted(set(facts.get(name, {}).values()))]


def _results(
    rows: list[dict[str, Any]],
    places: list[dict[str, Cell]],
    scoring: Scoring,
    settings: EvaluateMRToCTSettings,
    seed: int,
    unscored: Mapping[str, int],
    prepared: Sequence[str],
    translated: Path,
) -> Results:
    warnings = [*prepared]
    warnings += [f"Not scored: {count} translated MR with {reason}." for reason, count in sorted(unscored.items())]
    refusals = pl.read_parquet(translated / "cases.parquet")["dicom_refusal"].drop_nulls().unique().sort().to_list()
    warnings += [f"No DICOM CT series: {reason}." for reason in refusals]
    where = (geometry_table(places),) if places else ()
    if not rows:
        lying = (geometry_verdict(places),) if places else ()
        warnings.append("No case can be scored: image metrics need a registered CT.")
        return Results(track="mr_to_ct", headlines=(), verdicts=lying, tables=where, warnings=tuple(warnings))
    if len({row["subject_id"] for row in rows}) < 5:
        warnings.append("Fewer than five scored subjects: intervals over subjects are wide and optimistic.")
    held_out = [row for row in rows if row["split"] != "train"]
    if not held_out:
        warnings.append("Only training subjects were translated: the figures show fit, not what to expect.")
    elif len(held_out) < len(rows):
        warnings.append("Training subjects were translated too: they are listed by case, and in no mean or verdict.")
    summary = summary_rows(held_out or rows, scoring, settings, seed)
    by_method: dict[str, dict[str, Any]] = {str(row["method"]): row for row in summary}
    whose = "held-out subjects" if held_out else "training subjects"
    return Results(
        track="mr_to_ct",
        headlines=headlines(by_method, scoring, whose),
        verdicts=(*verdicts(by_method, scoring), geometry_verdict(places)),
        tables=(
            summary_table(summary, scoring),
            structure_table(summary, held_out or rows),
            *where,
            case_table(rows, scoring),
        ),
        warnings=tuple(warnings),
    )


def summary_rows(
    rows: Sequence[Mapping[str, Any]], scoring: Scoring, settings: EvaluateMRToCTSettings, seed: int
) -> list[dict[str, Cell]]:
    """Mean over cases with an interval over subjects, for every method and score."""
    summary: list[dict[str, Cell]] = []
    for method in METHODS:
        own = [row for row in rows if row["method"] == method]
        if not own:
            continue
        line: dict[str, Cell] = {"method": method, "title": TITLES[method], "cases": len(own)}
        for name in score_names(scoring):
            usable = [row for row in own if row.get(name) is not None]
            line |= mean_cells(name, usable, settings, seed)
        summary.append(line)
    return summary


def mean_cells(
    name: str, rows: Sequence[Mapping[str, Any]], settings: EvaluateMRToCTSettings, seed: int
) -> dict[str, Cell]:
    """Mean of a score over cases that have it, with its interval from two subjects on; None without cases."""
    if not rows:
        return {name: None}
    values = np.asarray([row[name] for row in rows], dtype=np.float64)
    subjects = [row["subject_id"] for row in rows]
    if len(set(subjects)) < 2:
        return {name: float(values.mean())}
    interval = mean_interval(values, subjects, np.random.default_rng(seed), resamples=settings.bootstrap)
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def headlines(by_method: Mapping[str, Mapping[str, Any]], scoring: Scoring, whose: str) -> tuple[Headline, ...]:
    """Mean absolute error beside both baselines."""
    lookup = by_method.get("intensity_lookup", {}).get("mae")
    constant = by_method.get("mean_ct", {}).get("mae")
    own = by_method["pseudo_ct"]["mae"]
    return (
        Headline(
            key="mae",
            text=f"Pseudo-CT mean absolute error ({scoring.unit}), {whose}",
            value=own,
            reference=lookup,
            reference_text="best intensity lookup",
        ),
        Headline(
            key="mae_against_mean",
            text=f"Pseudo-CT mean absolute error ({scoring.unit}), {whose}",
            value=own,
            reference=constant,
            reference_text="one value (median CT)",
        ),
    )


def verdicts(by_method: Mapping[str, Mapping[str, Any]], scoring: Scoring) -> tuple[Verdict, ...]:
    """Whether the pseudo-CT beats the lookup."""
    rule = "good: MAE below the intensity lookup's; bad: not below; the lookup is fitted on registered training pairs"
    own = by_method["pseudo_ct"]["mae"]
    if "intensity_lookup" not in by_method:
        sentence = f"The pseudo-CT errs by {own:.1f} {scoring.unit} on average; no training pairs to fit a baseline on."
        return (Verdict(key="against_lookup", outcome="neutral", sentence=sentence, rule=rule),)
    lookup = by_method["intensity_lookup"]["mae"]
    word = "beats" if own < lookup else "does not beat"
    errors = f"{own:.1f} against {lookup:.1f} {scoring.unit}"
    sentence = f"The pseudo-CT {word} what MR intensity alone can tell (mean absolute error {errors})."
    return (Verdict(key="against_lookup", outcome="good" if own < lookup else "bad", sentence=sentence, rule=rule),)
