"""Scores of a classifier: area under the ROC curve, balanced accuracy, accuracy, calibration.

- macro AUC: mean over classes of the one-versus-rest AUC, each the Mann-Whitney statistic
  P(score of a positive > score of a negative) + P(equal) / 2 (Hanley and McNeil, Radiology 143:29, 1982);
- balanced accuracy: mean over classes of the recall (sensitivity) of the most probable class;
- specificity of a class: share of cases of other classes that are not called that class; macro: mean over classes;
- ECE: Σ_bins n_b / N · |accuracy_b − confidence_b| over equal bins of the top probability (Guo et al., ICML 2017).

A class without any test case has no AUC and no recall: it is left out of the means and named.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError

Classes = npt.NDArray[Any]
Probabilities = npt.NDArray[np.floating]

ECE_BINS = 15


@dataclass(frozen=True)
class ClassificationScores:
    """Scores on one test set.

    Args:
        macro_auc: mean one-versus-rest AUC; NaN when only one class is present.
        balanced_accuracy: mean recall.
        accuracy: share of right answers.
        ece: expected calibration error.
        auc_by_class: AUC of every class that is present beside another one.
        recall_by_class: recall (sensitivity) of every class that is present.
        macro_specificity: mean specificity; NaN when only one class is present.
        specificity_by_class: of every class that is present beside another one.
        classes_left_out: classes without a test case.
    """

    macro_auc: float
    balanced_accuracy: float
    accuracy: float
    ece: float
    auc_by_class: dict[int, float]
    recall_by_class: dict[int, float]
    macro_specificity: float
    specificity_by_class: dict[int, float]
    classes_left_out: tuple[int, ...]


def classification_scores(classes: Classes, probabilities: Probabilities) -> ClassificationScores:
    """All scores of one test set.

    Args:
        classes: (N,) true classes, integers in 0 .. C - 1.
        probabilities: (N, C) class probabilities, rows sum to 1.

    Raises:
        InputError: shapes do not fit, the set is empty, a class is out of range, or rows are no probabilities.
    """
    _check(classes, probabilities)
    truth, scores = np.asarray(classes).astype(np.int64), np.asarray(probabilities, dtype=np.float64)
    answer = scores.argmax(axis=1)
    present = [int(index) for index in np.unique(truth)]
    recalls = {index: float((answer[truth == index] == index).mean()) for index in present}
    aucs = {index: binary_auc(truth == index, scores[:, index]) for index in present} if len(present) > 1 else {}
    specificities = {i: float((answer[truth != i] != i).mean()) for i in present} if len(present) > 1 else {}
    return ClassificationScores(
        macro_auc=float(np.mean(list(aucs.values()))) if aucs else math.nan,
        balanced_accuracy=float(np.mean(list(recalls.values()))),
        accuracy=float((answer == truth).mean()),
        ece=expected_calibration_error(answer == truth, scores.max(axis=1)),
        auc_by_class=aucs,
        recall_by_class=recalls,
        macro_specificity=float(np.mean(list(specificities.values()))) if specificities else math.nan,
        specificity_by_class=specificities,
        classes_left_out=tuple(index for index in range(scores.shape[1]) if index not in present),
    )


def binary_auc(positive: npt.NDArray[np.bool_], scores: Probabilities) -> float:
    """AUC of a score against a binary truth, ties counted half; NaN when one side is empty.

    Args:
        positive: (N,) bool.
        scores: (N,) score, higher for the positive.
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return math.nan
    below = np.sort(scores[~positive])
    own = scores[positive]
    twice_won = np.searchsorted(below, own, "left").sum() + np.searchsorted(below, own, "right").sum()
    return float(twice_won) / 2 / (positives * negatives)


def expected_calibration_error(right: npt.NDArray[np.bool_], confidence: Probabilities, bins: int = ECE_BINS) -> float:
    """ECE over equal-width bins (low, high] of [0, 1].

    Args:
        right: (N,) whether the answer was right.
        confidence: (N,) probability of the answer.
        bins: number of bins.
    """
    place = np.clip(np.ceil(np.asarray(confidence) * bins).astype(np.int64) - 1, 0, bins - 1)
    gap = np.bincount(place, weights=np.asarray(right, dtype=np.float64) - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(place))


def _check(classes: Classes, probabilities: Probabilities) -> None:
    truth, scores = np.asarray(classes), np.asarray(probabilities)
    shapes_fit = truth.ndim == 1 and scores.ndim == 2 and len(truth) == len(scores) > 0
    if shapes_fit and truth.min() >= 0 and truth.max() < scores.shape[1]:
        in_range = (scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=1e-3)
        if in_range:
            return
    raise InputError(
        "A classifier is scored on true classes and class probabilities.",
        found=f"classes {truth.shape}, probabilities {scores.shape}",
        allowed="classes (N,) in 0 .. C - 1, probabilities (N, C) whose rows sum to 1, N > 0",
        change="Check the order of the classes and that the logits went through a softmax.",
    )
