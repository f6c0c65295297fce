"""Tables of use for a classifier. They are made from an audit of leakage that found nothing, and from nothing else."""

from dataclasses import replace

import numpy as np

from pipeline.evaluate.cohorts import Study
from pipeline.evaluate.leakage import LeakageAudit, clean_audit
from pipeline.evaluate.utility import ARMS
from pipeline.evaluate.utility_scores import Score, Utility, arm_interval, holm
from pipeline.metrics.classification import binary_auc
from pipeline.results import Cell, Column, ResultTable
from pipeline.settings import EvaluateLesionsSettings

Row = dict[str, Cell]


def arm_rows(
    utility: Utility, study: Study, settings: EvaluateLesionsSettings, seed: int
) -> tuple[list[Row], dict[str, Score]]:
    """One row an arm, and the AUC differences from ``real`` with p-values corrected over the arms."""
    raw = {
        arm: arm_interval(utility, arm, study, "macro_auc", settings, seed, against="real")
        for arm in utility.probabilities
        if arm != "real"
    }
    adjusted = holm({arm: score.p for arm, score in raw.items()})
    differences = {arm: replace(score, p=adjusted.get(arm)) for arm, score in raw.items()}
    rows = []
    for arm in utility.probabilities:
        row: Row = {"arm": arm, "title": ARMS[arm], "seeds": settings.seeds}
        for score in ("macro_auc", "balanced_accuracy", "macro_specificity", "ece"):
            row |= cells(score, arm_interval(utility, arm, study, score, settings, seed))
        if arm != "real":
            row |= cells("auc_difference", differences[arm]) | {"p_holm": differences[arm].p}
        rows.append(row)
    return rows, differences


def cells(name: str, score: Score) -> Row:
    """A score and its interval as cells."""
    return {name: score.value, f"{name}_low": score.low, f"{name}_high": score.high}


def scored(key: str, title: str, definition: str = "") -> Column:
    """Column of a score with its interval, as `cells` names them."""
    return Column(key=key, title=title, definition=definition, low_key=f"{key}_low", high_key=f"{key}_high")


def arm_table(
    rows: list[Row], study: Study, settings: EvaluateLesionsSettings, audit: LeakageAudit | None
) -> ResultTable:
    """Every arm.

    Raises:
        InputError: there is no audit of leakage, or it found leaks.
    """
    clean_audit(audit)
    caption = (
        f"The same network ({settings.classifier}), {settings.classifier_steps} steps, {settings.seeds} seeds, "
        f"balanced batches; scored on {len(study.test)} real test images of {len(set(study.test.subjects))} subjects. "
        "95 % intervals by bootstrap over subjects and seeds, of the mean over seeds. Splits audited: nothing shared."
    )
    return ResultTable(
        key="utility",
        title="Use for a classifier",
        caption=caption,
        columns=(
            Column(key="title", title="training set"),
            scored("macro_auc", "macro AUC", "mean one-versus-rest area under the ROC curve"),
            scored("auc_difference", "AUC − real", "paired difference from the arm “real” on the same resamples"),
            Column(key="p_holm", title="p", definition="two-sided bootstrap p-value, Holm's correction over the arms"),
            scored("balanced_accuracy", "balanced accuracy", "mean sensitivity over classes; most probable class"),
            scored("macro_specificity", "specificity", "mean specificity over classes; most probable class"),
            scored("ece", "ECE", "expected calibration error, 15 equal-width bins"),
        ),
        rows=tuple(rows),
    )


def class_table(
    utility: Utility, study: Study, settings: EvaluateLesionsSettings, audit: LeakageAudit | None
) -> ResultTable:
    """AUC, sensitivity and specificity of every class, arm and threshold, means over seeds.

    Raises:
        InputError: as `arm_table`.
    """
    clean_audit(audit)
    truth = study.test.classes.numpy()
    rows: list[Row] = []
    for arm, probabilities in utility.probabilities.items():
        for index, name in enumerate(study.class_names):
            mine = truth == index
            if not mine.any() or mine.all():
                continue
            first: Row = {
                "arm": arm,
                "title": ARMS[arm],
                "lesion_class": name,
                "images": int(mine.sum()),
                "auc": float(np.mean([binary_auc(mine, p[:, index]) for p in probabilities])),
            }
            calls = {"most probable": [p.argmax(axis=1) == index for p in probabilities]}
            calls |= {f"P ≥ {t:g}": [p[:, index] >= t for p in probabilities] for t in settings.decision_thresholds}
            for threshold, called in calls.items():
                rows.append(
                    first
                    | {
                        "threshold": threshold,
                        "sensitivity": float(np.mean([call[mine].mean() for call in called])),
                        "specificity": float(np.mean([1 - call[~mine].mean() for call in called])),
                    }
                )
    return ResultTable(
        key="utility_by_class",
        title="Use for a classifier, by class",
        caption="One class against the others on real test images, means over seeds.",
        columns=(
            Column(key="title", title="training set"),
            Column(key="lesion_class", title="class"),
            Column(key="images", title="test images", digits=0),
            Column(key="auc", title="AUC"),
            Column(key="threshold", title="called where"),
            Column(key="sensitivity", title="sensitivity"),
            Column(key="specificity", title="specificity"),
        ),
        rows=tuple(rows),
    )
