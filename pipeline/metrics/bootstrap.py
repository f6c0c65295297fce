"""Percentile bootstrap intervals over subjects.

Images of one subject are alike, so that intervals over images are too narrow. Whole subjects are drawn with
replacement, all their cases with them, and the statistic is computed anew (cluster bootstrap; Efron and Tibshirani, "An
Introduction to the Bootstrap", 1993, chapters 8 and 13).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """A statistic and its interval.

    Args:
        value: statistic of all cases.
        low: lower end.
        high: upper end.
        confidence: e.g. 0.95.
        subjects: number of subjects.
    """

    value: float
    low: float
    high: float
    confidence: float
    subjects: int


def bootstrap_interval(
    statistic: Callable[[Indices], float],
    subjects: Sequence[str] | npt.NDArray[np.generic],
    rng: np.random.Generator,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Interval:
    """Interval of any statistic of cases, resampled by subject.

    Args:
        statistic: takes indices of cases (repeats included), returns the statistic of those cases. A value that is not
            finite marks a resample that cannot be scored, for example one without a class; those are left out.
        subjects: subject of every case, (N,); at least two different ones.
        rng: source of the resamples.
        resamples: number of resamples, at least 100.
        confidence: share of resamples inside the interval, in (0, 1).

    Raises:
        InputError: fewer than two subjects, settings out of range, or more than half of the resamples unusable.
    """
    _, owner = np.unique(np.asarray(subjects), return_inverse=True)
    count = int(owner.max()) + 1 if owner.size else 0
    _check(count, resamples, confidence)
    order = np.argsort(owner, kind="stable").astype(np.int64)
    cases = np.split(order, np.cumsum(np.bincount(owner, minlength=count))[:-1])
    drawn = rng.integers(count, size=(resamples, count))
    values = np.array([statistic(np.concatenate([cases[subject] for subject in row])) for row in drawn])
    usable = values[np.isfinite(values)]
    if len(usable) < resamples / 2:
        raise InputError(
            "An interval needs resamples that can be scored.",
            found=f"{len(usable)} usable resamples of {resamples}",
            allowed="at least half",
            change="Add subjects of the rare class, or report the value without an interval.",
        )
    low, high = np.quantile(usable, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(statistic(np.arange(len(owner))), float(low), float(high), confidence, count)


def mean_interval(
    values: npt.NDArray[np.floating],
    subjects: Sequence[str] | npt.NDArray[np.generic],
    rng: np.random.Generator,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Interval:
    """Interval of the mean of one value per case, resampled by subject.

    Args:
        values: (N,) finite values.
        subjects: see `bootstrap_interval`.
        rng: source of the resamples.
        resamples: see `bootstrap_interval`.
        confidence: see `bootstrap_interval`.

    Raises:
        InputError: as `bootstrap_interval`.
    """
    cases = np.asarray(values, dtype=np.float64)
    return bootstrap_interval(
        lambda chosen: float(cases[chosen].mean()), subjects, rng, resamples=resamples, confidence=confidence
    )


def _check(subjects: int, resamples: int, confidence: float) -> None:
    if subjects >= 2 and resamples >= 100 and 0 < confidence < 1:
        return
    raise InputError(
        "A bootstrap draws subjects with replacement.",
        found=f"{subjects} subjects, {resamples} resamples, confidence {confidence}",
        allowed="at least 2 subjects and 100 resamples, 0 < confidence < 1",
        change="Evaluate on more subjects, or correct the settings.",
    )
