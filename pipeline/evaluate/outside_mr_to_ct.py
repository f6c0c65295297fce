"""Pseudo-CT from elsewhere against CT: every pair on one grid, with the figures of scanloom's own evaluation.

Where an MR on the same grid was given, two trivial baselines stand beside the pseudo-CT. Nobody gave training pairs, so
the baselines of a case are fitted on the cases of all other subjects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import BaseModel, JsonValue

from pipeline.body_mask import dilate_in_plane
from pipeline.evaluate.mr_to_ct import headlines, summary_rows, verdicts
from pipeline.evaluate.mr_to_ct_cases import AIR, METHODS, Scoring, Volume, score, scoring_for
from pipeline.evaluate.mr_to_ct_geometry import geometry_table
from pipeline.evaluate.mr_to_ct_tables import case_table, structure_table, summary_table
from pipeline.evaluate.outside_refusals import with_refusals
from pipeline.evaluate.segmentations import segmentation_rows, segmentation_tables, segmentation_warnings
from pipeline.evaluate.stage import finish
from pipeline.metrics.baselines import ConstantCT, IntensityLookup
from pipeline.metrics.geometry_agreement import better_mirrored
from pipeline.pair_set import PairSet, read_pair_set
from pipeline.records import ProgressCallback, StageRecord, silent
from pipeline.results import Cell, Column, Headline, Results, ResultTable, Verdict
from pipeline.settings import EvaluateMRToCTSettings, RunSettings
from pipeline.stage_runner import Stage, StageContext, run_stage
from pipeline.workspace import Workspace

GEOMETRY_RULE = (
    "bad: a pseudo-CT differs from its CT in shape, voxel size (1e-3 mm), orientation, extent or place (0.05 mm) once "
    "both have one order of axes, and is not scored; or its error falls by a tenth or more when it is mirrored, and "
    "its score stays in the means"
)
_AXES = ("slices", "rows", "columns")
_MOST_FIT_VOXELS = 2_000_000
Row = dict[str, Any]


class OutsideKey(BaseModel, frozen=True):
    """What enters the key."""

    seed: int
    mr_to_ct: EvaluateMRToCTSettings


def evaluate_outside_mr_to_ct(
    workspace: Workspace,
    settings: RunSettings,
    pairs: StageRecord,
    catalogs: Mapping[str, StageRecord],
    *,
    progress: ProgressCallback = silent,
) -> StageRecord:
    """Score pseudo-CT from elsewhere; output is a `pipeline.results.Results`.

    Args:
        workspace: where the output goes.
        settings: ``evaluate.mr_to_ct`` and ``seed``.
        pairs: of `prepare_outside_pairs`.
        catalogs: the ingested roles by name, for what they refused.
        progress: counted in cases.
    """
    key = OutsideKey(seed=settings.seed, mr_to_ct=settings.evaluate.mr_to_ct)

    def body(context: StageContext) -> dict[str, JsonValue]:
        opened = read_pair_set(context.inputs["pairs"])
        found = evaluate_pairs(opened, key.mr_to_ct, key.seed, context.progress)
        folders = {name: context.inputs[f"catalog_{name}"] for name in catalogs}
        return finish(context, with_refusals(found, folders))

    records = {"pairs": pairs} | {f"catalog_{name}": record for name, record in catalogs.items()}
    stage = Stage("evaluate_outside_mr_to_ct", "pipeline.evaluate.outside_mr_to_ct", body)
    return run_stage(workspace, stage, key, records=records, progress=progress)


def evaluate_pairs(pairs: PairSet, settings: EvaluateMRToCTSettings, seed: int, progress: ProgressCallback) -> Results:
    """Score every pair on one grid.

    Args:
        pairs: matched CT and pseudo-CT.
        settings: dialect, mask dilation, resamples.
        seed: of the bootstrap.
        progress: told after every case.
    """
    places, rows = [], []
    samples = _samples(pairs)
    for number, pair in enumerate(pairs.pairs, 1):
        places.append(_place(pairs, pair))
        if pair["comparable"]:
            rows += _score(pairs, pair, settings, samples)
        progress("cases scored", number, len(pairs.pairs))
    return _results(pairs, places, rows, settings, seed)


def _scoring(pairs: PairSet, spacing_mm: Sequence[float], settings: EvaluateMRToCTSettings) -> Scoring:
    """Scoring on a CT's own grid; ``spacing_mm`` is (slices, rows, columns)."""
    region = (
        "inside the mask given, on the CT's own grid"
        if pairs.facts["mask_given"]
        else f"inside the CT's body outline dilated in plane by {settings.mask_dilation_px} px, on the CT's own grid"
    )
    facts = {"unit": "HU", "spacing_mm": tuple(reversed(spacing_mm))}
    return replace(scoring_for(facts, settings), region=region)


def _place(pairs: PairSet, pair: Row) -> dict[str, Cell]:
    """Row of the table of geometry; pairs on one grid are searched for a mirror too."""
    row: dict[str, Cell] = {
        name: pair[name]
        for name in ("subject_id", "series_id", "orientation", "spacing_difference", "extent_difference", "distance")
    }
    finding, agrees = str(pair["finding"]), bool(pair["comparable"])
    if agrees:
        axis = better_mirrored(*(np.asarray(pairs.volume(pair, name)) for name in ("ct", "pseudo_ct", "mask")))
        if axis is not None:
            finding, agrees = f"fits the CT better with its {_AXES[axis]} reversed", False
    return row | {"comparable": bool(pair["comparable"]), "agrees": agrees, "finding": finding}


def _samples(pairs: PairSet) -> dict[str, list[tuple[Volume, Volume]]]:
    """MR and CT of voxels inside the masks by subject, thinned alike, for the baselines."""
    usable = [pair for pair in pairs.pairs if pair["has_mr"]]
    voxels = sum(pairs.volume(pair, "mask").size for pair in usable)
    stride = max(1, voxels // _MOST_FIT_VOXELS)
    found: dict[str, list[tuple[Volume, Volume]]] = {}
    for pair in usable:
        inside = np.asarray(pairs.volume(pair, "mask")) > 0
        parts = [np.asarray(pairs.volume(pair, name))[inside][::stride] for name in ("mr", "ct")]
        found.setdefault(pair["subject_id"], []).append((parts[0], parts[1]))
    return found


def _score(
    pairs: PairSet, pair: Row, settings: EvaluateMRToCTSettings, samples: Mapping[str, list[tuple[Volume, Volume]]]
) -> list[Row]:
    scoring = _scoring(pairs, pair["spacing_mm"], settings)
    ct, pseudo_ct, body = (np.asarray(pairs.volume(pair, name)) for name in ("ct", "pseudo_ct", "mask"))
    mask = body > 0 if pairs.facts["mask_given"] else dilate_in_plane(body, scoring.dilation_px)
    made: dict[str, Volume] = {"pseudo_ct": pseudo_ct}
    others = [sample for subject, own in samples.items() if subject != pair["subject_id"] for sample in own]
    if pair["has_mr"] and others:
        made |= _baselines(np.asarray(pairs.volume(pair, "mr")), body > 0, others)
    place = {"subject_id": pair["subject_id"], "series_id": pair["series_id"], "split": "given"}
    return [{"method": name, **place, **score(ct, made[name], mask, scoring)} for name in METHODS if name in made]


def _baselines(mr: Volume, body: Volume, others: Sequence[tuple[Volume, Volume]]) -> dict[str, Volume]:
    """What intensity alone, and one value, make of an MR; fitted on other subjects, air outside the body."""
    known_mr, known_ct = (np.concatenate([sample[side] for sample in others]) for side in (0, 1))
    everywhere = np.ones(known_mr.shape, np.bool_)
    lookup = IntensityLookup.fit([known_mr], [known_ct], [everywhere])
    constant = ConstantCT.fit([known_ct], [everywhere])
    return {
        "intensity_lookup": np.where(body, lookup.predict(mr, body), AIR["HU"]),
        "mean_ct": np.where(body, constant.hu, AIR["HU"]),
    }


def _results(
    pairs: PairSet, places: list[dict[str, Cell]], rows: list[Row], settings: EvaluateMRToCTSettings, seed: int
) -> Results:
    where = [geometry_table(places).model_copy(update={"caption": _GEOMETRY_CAPTION})]
    unmatched = _unmatched_table(pairs)
    rest = [*where, *([unmatched] if unmatched else [])]
    lying = _geometry_verdict(places)
    warnings = _warnings(pairs, rows)
    if not rows:
        return Results(track="mr_to_ct", headlines=(), verdicts=(lying,), tables=tuple(rest), warnings=tuple(warnings))
    scored = [pair for pair in pairs.pairs if pair["comparable"]]
    scoring = _scoring(pairs, scored[0]["spacing_mm"], settings)
    summary = summary_rows(rows, scoring, settings, seed)
    known = {row["series_id"] for row in rows if row["method"] == "intensity_lookup"}
    paired = [row for row in rows if row["series_id"] in known] or rows  # methods are compared on the same cases
    by_method: dict[str, dict[str, Any]] = {
        str(row["method"]): row for row in summary_rows(paired, scoring, settings, seed)
    }
    judged = verdicts(by_method, scoring) if "intensity_lookup" in by_method else ()
    return Results(
        track="mr_to_ct",
        headlines=_headlines(by_method, scoring),
        verdicts=(*(verdict.model_copy(update={"rule": _LOOKUP_RULE}) for verdict in judged), lying),
        tables=(
            summary_table(summary, scoring),
            structure_table(summary, rows),
            *segmentation_tables(segmentation_rows(pairs, settings), settings, seed),
            *rest,
            case_table(rows, scoring),
        ),
        warnings=tuple(warnings),
    )


def _headlines(by_method: Mapping[str, Mapping[str, Any]], scoring: Scoring) -> tuple[Headline, ...]:
    """Beside both baselines, or alone where no MR was given."""
    if "intensity_lookup" in by_method:
        return headlines(by_method, scoring, "pairs on one grid with an MR")
    found = headlines(by_method, scoring, "all pairs on one grid")
    return (found[0].model_copy(update={"reference_text": ""}),)


_GEOMETRY_CAPTION = "Pseudo-CT as stored against the grid of its CT. Nothing was resampled; what differs has no score."
_LOOKUP_RULE = "good: MAE below the intensity lookup's; bad: not below; the lookup is fitted on all other subjects"


def _warnings(pairs: PairSet, rows: Sequence[Row]) -> list[str]:
    warnings = []
    apart = sum(not pair["comparable"] for pair in pairs.pairs)
    if apart:
        warnings.append(f"Not scored: {apart} of {len(pairs.pairs)} pairs; the table of geometry says why.")
    if pairs.unmatched:
        warnings.append(f"{len(pairs.unmatched)} volumes have no partner; the table of unmatched volumes lists them.")
    warnings += segmentation_warnings(pairs)
    without = sum(bool(pair["comparable"]) and not pair["has_mr"] for pair in pairs.pairs)
    if pairs.facts["mr_given"] and without:
        warnings.append(f"No baseline for {without} cases: no MR on the grid of the CT.")
    if len({row["subject_id"] for row in rows}) < 5:
        warnings.append("Fewer than five scored subjects: intervals over subjects are wide and optimistic.")
    return warnings


def _unmatched_table(pairs: PairSet) -> ResultTable | None:
    if not pairs.unmatched:
        return None
    return ResultTable(
        key="unmatched",
        title="Unmatched volumes",
        caption="Pseudonyms; the crosswalks in identity/ of the workspace say which case a pseudonym stands for.",
        columns=(
            Column(key="role", title="what"),
            Column(key="subject_id", title="subject"),
            Column(key="why", title="why"),
        ),
        rows=pairs.unmatched,
    )


def _geometry_verdict(places: Sequence[Mapping[str, Cell]]) -> Verdict:
    failed = sum(not place["agrees"] for place in places)
    sentence = (
        f"{failed} of {len(places)} pseudo-CT do not lie where their CT lies, or are mirrored."
        if failed
        else f"All {len(places)} pseudo-CT lie where their CT lies."
    )
    return Verdict(key="geometry", outcome="bad" if failed else "good", sentence=sentence, rule=GEOMETRY_RULE)
