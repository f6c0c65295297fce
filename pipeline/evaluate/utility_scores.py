"""Scores of the arms with intervals over test subjects and seeds.

Intervals and p-values rest on one set of resamples of test subjects and of seeds, the same for all arms, so that
differences are paired; p-values of the differences from real images alone are corrected over the arms (Holm, Scand. J.
Statist. 6:65, 1979).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipeline.classifier import Classifier
from pipeline.evaluate.cohorts import Study
from pipeline.metrics.resampled_classification import SCORES, resampled_scores
from pipeline.settings import EvaluateLesionsSettings

Array = npt.NDArray[np.float64]
SIGNIFICANCE = 0.05

_VALUES_AT_ONCE = 2_000_000
"""Resamples × test images scored in one go, so that memory does not grow with their product."""


@dataclass(frozen=True)
class Score:
    """A score, its interval over subjects and seeds, and the p-value of a difference.

    None where there are too few subjects, or where it is not defined.
    """

    value: float | None
    low: float | None
    high: float | None
    p: float | None = None


@dataclass(frozen=True)
class Utility:
    """Outcome of all arms.

    Attributes:
        probabilities: arm -> one (test images, classes) array a seed.
        real_models: classifiers of the arm ``real``, one a seed.
        left_out: arm -> why it was not run.
    """

    probabilities: Mapping[str, list[Array]]
    real_models: list[Classifier]
    left_out: Mapping[str, str] = field(default_factory=dict)
    _known: dict[tuple[str, int, int], Array] = field(default_factory=dict, repr=False, compare=False)

    def resampled(self, arm: str, study: Study, resamples: int, seed: int) -> Array:
        """Scores (1 + resamples, seeds, scores in the order of `SCORES`); the first is of all test images.

        Whole subjects are drawn with replacement; a draw that lacks a class has no mean over all classes, and is NaN
        there.
        """
        key = (arm, resamples, seed)
        if key not in self._known:
            truth = study.test.classes.numpy()
            weights = np.concatenate([np.ones((1, len(truth))), subject_draws(study.test.subjects, resamples, seed)])
            rows = max(1, _VALUES_AT_ONCE // len(truth))
            parts = [weights[start : start + rows] for start in range(0, len(weights), rows)]
            scores = [np.concatenate([resampled_scores(truth, p, w) for w in parts]) for p in self.probabilities[arm]]
            self._known[key] = np.stack(scores, axis=1)
        return self._known[key]

    def on(self, chosen: npt.NDArray[np.bool_]) -> "Utility":
        """The same arms on the test images where ``chosen`` (test images,) is true."""
        return Utility({arm: [p[chosen] for p in seeds] for arm, seeds in self.probabilities.items()}, self.real_models)


def subject_draws(subjects: Sequence[str], resamples: int, seed: int) -> Array:
    """How often each image was drawn, (resamples, images), drawing subjects with replacement; none for one subject."""
    names, owner = np.unique(np.asarray(subjects), return_inverse=True)
    if len(names) < 2:
        return np.zeros((0, len(owner)))
    drawn = np.random.default_rng(seed).integers(len(names), size=(resamples, len(names)))
    counts = np.stack([np.bincount(row, minlength=len(names)) for row in drawn])
    return np.asarray(counts[:, owner], dtype=np.float64)


def arm_interval(
    utility: Utility,
    arm: str,
    study: Study,
    score: str,
    settings: EvaluateLesionsSettings,
    seed: int,
    against: str | None = None,
) -> Score:
    """Mean of a score over seeds, or of its difference from another arm, with an interval over subjects and seeds.

    Args:
        utility: all arms.
        arm: arm to score.
        study: holds the test set.
        score: one of `SCORES`.
        settings: number of resamples (`arm_resamples`).
        seed: of the resamples; equal for all arms, so that differences are paired.
        against: arm whose score is subtracted on every resample, seed by seed.
    """
    column = SCORES.index(score)
    values = utility.resampled(arm, study, settings.arm_resamples, seed)[:, :, column]
    if against is not None:
        values = values - utility.resampled(against, study, settings.arm_resamples, seed)[:, :, column]
    value = float(values[0].mean())
    if not math.isfinite(value):
        return Score(None, None, None)
    return _interval(value, values[1:], seed)


def _interval(value: float, values: Array, seed: int) -> Score:
    """Percentile interval and two-sided bootstrap p-value; seeds are drawn with replacement on every resample."""
    resamples, seeds = values.shape
    chosen = np.random.default_rng([seed, 1]).integers(seeds, size=(resamples, seeds))
    means = np.take_along_axis(values, chosen, axis=1).mean(axis=1)
    usable = means[np.isfinite(means)]
    if not resamples or len(usable) < resamples / 2:  # one subject, or a class that most resamples miss
        return Score(value, None, None)
    low, high = np.quantile(usable, [0.025, 0.975])
    tail = min((usable <= 0).sum(), (usable >= 0).sum()) + 1
    return Score(value, float(low), float(high), min(1.0, 2 * float(tail) / (len(usable) + 1)))


def holm(p_values: Mapping[str, float | None]) -> dict[str, float]:
    """Holm-adjusted p-values of one family; entries without a p-value are left out."""
    known = sorted((p, name) for name, p in p_values.items() if p is not None)
    adjusted, highest = {}, 0.0
    for rank, (p, name) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[name] = highest
    return adjusted
