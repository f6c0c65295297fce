"""Scores of a classifier on many resamples of one test set at once, as `pipeline.metrics.classification` defines them.

A resample is given by how often each case was drawn. Sorting the cases once and summing those numbers gives what
scoring every resample by itself would, in a fraction of the time.
"""

import numpy as np
import numpy.typing as npt

from pipeline.metrics.classification import ECE_BINS

SCORES = ("macro_auc", "balanced_accuracy", "macro_specificity", "ece")
"""Order of the scores."""

Matrix = npt.NDArray[np.float64]


def resampled_scores(truth: npt.NDArray[np.int64], probabilities: Matrix, weights: Matrix) -> Matrix:
    """Scores (R, 4) in the order of `SCORES`; NaN where a resample lacks a class that the test set has.

    Args:
        truth: (N,) true classes, integers in 0 .. C - 1.
        probabilities: (N, C) class probabilities.
        weights: (R, N) how often each case was drawn.
    """
    answer = probabilities.argmax(axis=1)
    by_class = np.array([_one_class(truth, answer, probabilities, weights, index) for index in np.unique(truth)])
    confidence = probabilities[np.arange(len(truth)), answer]
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
    gap = np.zeros((len(truth), ECE_BINS))
    gap[np.arange(len(truth)), bins] = (answer == truth) - confidence
    ece = np.abs(weights @ gap).sum(axis=1) / weights.sum(axis=1)
    return np.column_stack([*by_class.mean(axis=0), ece])


def _one_class(
    truth: npt.NDArray[np.int64], answer: npt.NDArray[np.int64], probabilities: Matrix, weights: Matrix, index: int
) -> Matrix:
    """AUC, sensitivity and specificity (3, R) of one class against the others."""
    mine, called = truth == index, answer == index
    own, other = weights[:, mine].sum(axis=1), weights[:, ~mine].sum(axis=1)
    won = _won(mine, probabilities[:, index], weights)
    with np.errstate(invalid="ignore"):
        auc = won / (own * other)
        sensitivity = weights[:, mine & called].sum(axis=1) / own
        specificity = weights[:, ~mine & ~called].sum(axis=1) / other
    return np.stack([auc, sensitivity, specificity])


def _won(mine: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64], weights: Matrix) -> npt.NDArray[np.float64]:
    """Pairs (R,) of a case of the class and another one in which the former scores higher, ties counted half."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    positive, negative = (np.add.reduceat(weights[:, order] * side[order], starts, axis=1) for side in (mine, ~mine))
    below = negative.cumsum(axis=1) - negative
    return np.asarray((positive * (below + negative / 2)).sum(axis=1))
