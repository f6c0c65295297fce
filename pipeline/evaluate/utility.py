"""Downstream utility: what a classifier learns from each training set, tested on the same held-out real images.

All arms share classifier, optimizer steps, seeds and test set. Intervals and p-values rest on one set of resamples of
test subjects and of seeds, the same for all arms, so that differences are paired; p-values of the differences from real
images alone are corrected over the arms (Holm, Scand. J. Statist. 6:65, 1979). ``real_duplicated`` adds as many copies
of real images as ``real_synthetic`` adds synthetic ones, so that a gain can be told from mere repetition.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from pipeline.classifier import Augment, ClassicalAugmentation, Classifier, predict, train_classifier
from pipeline.evaluate.cohorts import Cohort, Study
from pipeline.metrics.classification import classification_scores
from pipeline.records import ProgressCallback
from pipeline.settings import EvaluateLesionsSettings

Probabilities = npt.NDArray[np.float64]

ARMS = {
    "real": "real",
    "real_classical": "real + classical augmentation",
    "real_duplicated": "real + duplicated real (control)",
    "real_synthetic": "real + synthetic",
    "real_synthetic_classical": "real + synthetic + classical augmentation",
    "synthetic_only": "synthetic only",
}
_REAL_ARMS = frozenset({"real", "real_classical"})
_CLASSICAL_ARMS = frozenset({"real_classical", "real_synthetic_classical"})
SCORES = ("macro_auc", "balanced_accuracy", "macro_specificity", "ece")
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Utility:
    """Outcome of all arms.

    Attributes:
        probabilities: arm -> one (test images, classes) array a seed.
        real_models: classifiers of the arm ``real``, one a seed.
    """

    probabilities: Mapping[str, list[Probabilities]]
    real_models: list[Classifier]
    _known: dict[tuple[str, int, int], npt.NDArray[np.float64]] = field(default_factory=dict, repr=False, compare=False)

    def resampled(self, arm: str, study: Study, resamples: int, seed: int) -> npt.NDArray[np.float64]:
        """Scores (1 + resamples, seeds, scores in the order of `SCORES`); the first is of all test images.

        Whole subjects are drawn with replacement; a draw that lacks a class has no macro AUC over all classes, and is
        NaN there.
        """
        key = (arm, resamples, seed)
        if key not in self._known:
            truth = study.test.classes.numpy()
            draws = [np.arange(len(truth)), *subject_draws(study.test.subjects, resamples, seed)]
            self._known[key] = np.array(
                [[_scores(truth[draw], p[draw]) for p in self.probabilities[arm]] for draw in draws]
            )
        return self._known[key]


def subject_draws(subjects: Sequence[str], resamples: int, seed: int) -> list[npt.NDArray[np.int64]]:
    """Indices of the images of subjects drawn with replacement; none for a single subject."""
    _, owner = np.unique(np.asarray(subjects), return_inverse=True)
    members = [np.flatnonzero(owner == subject) for subject in range(int(owner.max()) + 1)]
    if len(members) < 2:
        return []
    drawn = np.random.default_rng(seed).integers(len(members), size=(resamples, len(members)))
    return [np.concatenate([members[subject] for subject in row]) for row in drawn]


def _scores(truth: npt.NDArray[np.int64], probabilities: Probabilities) -> list[float]:
    found = classification_scores(truth, probabilities)
    return [found.macro_auc, found.balanced_accuracy, found.macro_specificity, found.ece]


@dataclass(frozen=True)
class Score:
    """A score, its interval over subjects and seeds, and the p-value of a difference.

    None where there are too few subjects, or where it is not defined.
    """

    value: float | None
    low: float | None
    high: float | None
    p: float | None = None


def run_arms(study: Study, settings: EvaluateLesionsSettings, seed: int, progress: ProgressCallback) -> Utility:
    """Train every arm with every seed. An arm whose training set lacks a class or its own images is left out."""
    names = [name for name in ARMS if len(study.synthetic) or name in _REAL_ARMS]
    arms = {name: _training_set(name, study, seed) for name in names}
    arms = {name: cohort for name, cohort in arms.items() if _complete(cohort, len(study.class_names))}
    probabilities: dict[str, list[Probabilities]] = {}
    real_models, done, total = [], 0, len(arms) * settings.seeds
    for name, cohort in arms.items():
        for number in range(settings.seeds):
            model = trained(cohort, len(study.class_names), settings, seed + number, classical=name in _CLASSICAL_ARMS)
            probabilities.setdefault(name, []).append(predict(model, study.test.images).double().numpy())
            if name == "real":
                real_models.append(model)
            done += 1
            progress("classifiers trained", done, total)
    return Utility(probabilities, real_models)


def trained(
    cohort: Cohort, classes: int, settings: EvaluateLesionsSettings, seed: int, *, classical: bool
) -> Classifier:
    """One classifier with the budget of the settings."""
    augment: Augment | None = ClassicalAugmentation() if classical else None
    return train_classifier(
        cohort.images,
        cohort.classes,
        classes,
        steps=settings.classifier_steps,
        seed=seed,
        augment=augment,
        network=settings.classifier,
    )


def _training_set(arm: str, study: Study, seed: int) -> Cohort:
    if arm in _REAL_ARMS:
        return study.train
    if arm in ("real_synthetic", "real_synthetic_classical"):
        return study.train.together_with(study.synthetic)
    if arm == "synthetic_only":
        return study.synthetic
    return study.train.together_with(_duplicates(study, seed))


def _duplicates(study: Study, seed: int) -> Cohort:
    """Copies of real training images, as many of each class as the cohort has."""
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    for index in range(len(study.class_names)):
        members = np.flatnonzero((study.train.classes == index).numpy())
        wanted = int((study.synthetic.classes == index).sum())
        chosen += [int(member) for member in rng.choice(members, wanted)] if wanted else []
    picked = torch.tensor(chosen, dtype=torch.long)
    subjects = tuple(study.train.subjects[member] for member in chosen)
    return Cohort(study.train.images[picked], study.train.classes[picked], subjects)


def _complete(cohort: Cohort, classes: int) -> bool:
    return len(torch.unique(cohort.classes)) == classes


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
        settings: number of resamples.
        seed: of the resamples; equal for all arms, so that differences are paired.
        against: arm whose score is subtracted on every resample, seed by seed.
    """
    column = SCORES.index(score)
    values = utility.resampled(arm, study, settings.bootstrap, seed)[:, :, column]
    if against is not None:
        values = values - utility.resampled(against, study, settings.bootstrap, seed)[:, :, column]
    value = float(values[0].mean())
    if not math.isfinite(value):
        return Score(None, None, None)
    return _interval(value, values[1:], seed)


def _interval(value: float, values: npt.NDArray[np.float64], seed: int) -> Score:
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


def class_agreement(utility: Utility, cohort: Cohort, classes: int) -> tuple[float | None, list[float | None]]:
    """Share of a cohort that classifiers trained on real images recognize: overall and by class, mean of seeds.

    None for a cohort or class without images.
    """
    if not len(cohort):
        return None, [None] * classes
    answers = torch.stack([predict(model, cohort.images).argmax(1) == cohort.classes for model in utility.real_models])
    right = answers.double().mean(0)
    by_class = [
        float(right[cohort.classes == index].mean()) if bool((cohort.classes == index).any()) else None
        for index in range(classes)
    ]
    return float(right.mean()), by_class
