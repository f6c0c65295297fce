"""A synthetic lesion cohort put to the test: fidelity, class agreement, memorization, use for a classifier."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.evaluate.cohorts import Study, StudyFiles, load_study
from pipeline.evaluate.extractor_files import load_extractor
from pipeline.evaluate.fidelity import fidelity_rows, ranking_disagreements
from pipeline.evaluate.fidelity_tables import distance_table, fidelity_table
from pipeline.evaluate.image_origins import STUDY, read_origins
from pipeline.evaluate.leakage import LeakageAudit, audit_leakage, leakage_table, leakage_verdict
from pipeline.evaluate.learning_curve import curve_table
from pipeline.evaluate.privacy import privacy_rows, privacy_table, privacy_warnings
from pipeline.evaluate.release_gate import Gate, check_release, write_gate
from pipeline.evaluate.utility import ARMS, class_agreement, run_arms
from pipeline.evaluate.utility_scores import Score, Utility, arm_interval
from pipeline.evaluate.utility_subgroups import subgroup_table
from pipeline.evaluate.utility_tables import arm_rows, arm_table, class_table
from pipeline.evaluate.utility_verdict import RULE, judge_use
from pipeline.features import ClassifierExtractor, Extractor, TextureExtractor
from pipeline.prepared_set import ImageSet
from pipeline.records import ProgressCallback
from pipeline.results import Cell, Column, Headline, Results, ResultTable, Verdict
from pipeline.settings import EvaluateLesionsSettings
from pipeline.spreading import Spread, here


def evaluate_cohort(
    prepared: ImageSet,
    cohort: Path,
    settings: EvaluateLesionsSettings,
    seed: int,
    folder: Path,
    progress: ProgressCallback,
    *,
    catalogs: Mapping[str, Path] | None = None,
    model: Path | None = None,
    device: str = "cpu",
    spread: Spread = here,
    prepared_folder: Path | None = None,
) -> Results:
    """Evaluate a cohort and write the release gate into ``folder``. Flagged copies take no part in the other scores.

    Args:
        prepared: real images.
        cohort: folder of the synthetic ones.
        settings: of the evaluation.
        seed: of every random draw.
        folder: takes ``gate.json`` and ``flagged.parquet``.
        progress: where to report progress.
        catalogs: as `read_origins`; None where studies and subgroups are unknown.
        model: model folder of the GAN; None where it is not at hand.
        device: where classifiers are trained.
        spread: where the arms' classifiers are trained, if that is on a CPU, and the folder of ``prepared`` is told.
        prepared_folder: of ``prepared``.
    """
    origins = read_origins(prepared, catalogs) if catalogs else None
    audit = audit_leakage(prepared, seed, None if origins is None else origins[STUDY])
    whole = load_study(prepared, cohort)
    gate = check_release(whole, seed)
    write_gate(folder, gate, whole, prepared.rows("train"))
    study = replace(whole, synthetic=whole.synthetic.part(~gate.flags))
    if len(study.class_names) == 1:
        return _of_one_class(study, gate, audit, settings, seed, progress)
    flagged = tuple(np.flatnonzero(gate.flags).tolist())
    files = None if prepared_folder is None else StudyFiles(prepared_folder, cohort, flagged)
    utility = run_arms(study, settings, seed, progress, model=model, device=device, spread=spread, files=files)
    extractors: list[Extractor] = [TextureExtractor(), ClassifierExtractor(utility.real_models[0])]
    extractors += [load_extractor(own) for own in settings.extractors]
    privacy = privacy_rows(study, extractors[0], settings, seed)
    fidelity = fidelity_rows(study, extractors, settings, seed, progress)
    arms, differences = arm_rows(utility, study, settings, seed)
    agreement = _agreement_rows(utility, study)
    tables = [_agreement_table(agreement, study), leakage_table(audit)]
    if audit.leaks:
        differences, verdict = {}, _unjudged(audit)
    else:
        tables += [arm_table(arms, study, settings, audit), class_table(utility, study, settings, audit)]
        if origins is not None:
            known = origins[prepared.rows("test")]
            by_subgroup = subgroup_table(utility, study, known, settings, seed, audit)
            tables += [by_subgroup] if by_subgroup else []
        if settings.learning_real_shares:
            tables.append(curve_table(study, settings, seed, audit, progress, device))
        verdict = judge_use(
            differences.get("real_synthetic"),
            _gain_over(utility, "real_duplicated", study, settings, seed),
            _gain_over(utility, "real_classical", study, settings, seed),
        )
    tables += [fidelity_table(fidelity, extractors, settings), distance_table(fidelity), privacy_table(privacy)]
    warnings = (*_warnings(study, utility.left_out, gate), *ranking_disagreements(fidelity), *privacy_warnings(privacy))
    return Results(
        track="lesions",
        headlines=_headlines(agreement, differences, gate, study),
        verdicts=(verdict, _gate_verdict(gate), leakage_verdict(audit)),
        tables=tuple(tables),
        warnings=warnings if not audit.leaks else (leakage_verdict(audit).sentence, *warnings),
    )


def _of_one_class(
    study: Study,
    gate: Gate,
    audit: LeakageAudit,
    settings: EvaluateLesionsSettings,
    seed: int,
    progress: ProgressCallback,
) -> Results:
    """What can be said without any class to tell apart: fidelity, privacy, copies and leakage."""
    extractors: list[Extractor] = [TextureExtractor(), *(load_extractor(own) for own in settings.extractors)]
    privacy = privacy_rows(study, extractors[0], settings, seed)
    fidelity = fidelity_rows(study, extractors, settings, seed, progress)
    tables = (fidelity_table(fidelity, extractors, settings), distance_table(fidelity), privacy_table(privacy))
    alone = "There is one class: no classifier can be trained, and use for one is not judged."
    leak = (leakage_verdict(audit).sentence,) if audit.leaks else ()
    warnings = (*leak, alone, *_warnings(study, {}, gate), *ranking_disagreements(fidelity), *privacy_warnings(privacy))
    return Results(
        track="lesions",
        headlines=(_copies(gate),),
        verdicts=(_gate_verdict(gate), leakage_verdict(audit)),
        tables=(leakage_table(audit), *tables),
        warnings=warnings,
    )


def _unjudged(audit: LeakageAudit) -> Verdict:
    """What is said of use for a classifier where splits share something."""
    sentence = f"The use for a classifier is not judged: splits share {'; '.join(audit.leaks)}."
    return Verdict(key="utility", outcome="bad", sentence=sentence, rule=RULE)


def _gain_over(utility: Utility, arm: str, study: Study, settings: EvaluateLesionsSettings, seed: int) -> Score | None:
    """What ``real_synthetic`` gains over another arm; None where one of them was not run."""
    if not {"real_synthetic", arm} <= utility.probabilities.keys():
        return None
    return arm_interval(utility, "real_synthetic", study, "macro_auc", settings, seed, against=arm)


def _agreement_rows(utility: Utility, study: Study) -> list[dict[str, Cell]]:
    classes = len(study.class_names)
    rows: list[dict[str, Cell]] = []
    sides = (("synthetic", study.synthetic), ("held-out real", study.test))
    scores = [(name, *class_agreement(utility, cohort, classes)) for name, cohort in sides]
    for name, overall, by_class in scores:
        row: dict[str, Cell] = {"images": name, "overall": overall, "chance": 1 / classes}
        rows.append(row | {f"class_{index}": value for index, value in enumerate(by_class)})
    return rows


def _headlines(
    agreement: list[dict[str, Cell]], differences: dict[str, Score], gate: Gate, study: Study
) -> tuple[Headline, ...]:
    recognized, chance = agreement[0]["overall"], agreement[0]["chance"]
    gain = differences.get("real_synthetic")
    return (
        Headline(
            key="class_agreement",
            text="Synthetic lesions recognized by classifiers trained on real ones (share)",
            value=float(recognized) if isinstance(recognized, float) else None,
            reference=float(chance) if isinstance(chance, float) else None,
            reference_text="chance",
        ),
        Headline(
            key="auc_difference",
            text="Macro AUC of real + synthetic minus real, on held-out subjects",
            value=gain.value if gain else None,
            reference=0.0,
            reference_text=f"no effect; interval {_span(gain)}" if gain and gain.low is not None else "no effect",
        ),
        _copies(gate),
    )


def _copies(gate: Gate) -> Headline:
    return Headline(
        key="memorized",
        text="Synthetic images that copy a training image",
        value=float(gate.flags.sum()),
        reference=float(gate.search.allowed_flags) if gate.search else None,
        reference_text="explained by chance",
    )


def _span(gain: Score) -> str:
    return f"[{gain.low:+.3f}, {gain.high:+.3f}]".replace("-", "−")


def _gate_verdict(gate: Gate) -> Verdict:
    rule = (
        "blocked: more flags than the 99th percentile of Binomial(n, rate on held-out real images), or no calibration"
    )
    word = "is blocked from export" if gate.blocked else "may be exported, flagged images left out"
    outcome = "bad" if gate.blocked else "good"
    return Verdict(key="release_gate", outcome=outcome, sentence=f"The cohort {word}: {gate.reason}.", rule=rule)


def _warnings(study: Study, left_out: Mapping[str, str], gate: Gate) -> tuple[str, ...]:
    found = []
    small = [name for index, name in enumerate(study.class_names) if int((study.test.classes == index).sum()) < 30]
    if small:
        found.append(f"Fewer than 30 test images of: {', '.join(small)}. Read their figures with care.")
    subjects = len(set(study.test.subjects))
    if subjects < 10:
        found.append(f"Only {subjects} test subjects: intervals over subjects are wide and optimistic.")
    if gate.search is not None and gate.search.held_out < 300:
        found.append(f"The memorization threshold rests on {gate.search.held_out} held-out images; 300 are advised.")
    found += [f"The arm “{ARMS[arm]}” was left out: {reason}." for arm, reason in left_out.items()]
    return tuple(found)


def _agreement_table(rows: list[dict[str, Cell]], study: Study) -> ResultTable:
    classes = tuple(
        Column(key=f"class_{index}", title=name, definition="share recognized as their own class")
        for index, name in enumerate(study.class_names)
    )
    return ResultTable(
        key="class_agreement",
        title="Class agreement",
        caption="Share of images that classifiers trained on real images assign to their own class, mean of seeds.",
        columns=(
            Column(key="images", title="images"),
            Column(key="overall", title="all classes", definition="share of images recognized as their own class"),
            *classes,
            Column(key="chance", title="chance", definition="1 / number of classes"),
        ),
        rows=tuple(rows),
    )
