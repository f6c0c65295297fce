"""Downstream utility: what a classifier learns from each training set, tested on the same held-out real images.

All arms share classifier, optimizer steps, seeds and test set. ``real_duplicated`` adds as many copies of real images
as ``real_synthetic`` adds synthetic ones, so that a gain can be told from mere repetition.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from pipeline.classifier import Augment, ClassicalAugmentation, SmallClassifier, predict, train_classifier
from pipeline.errors import InputError
from pipeline.evaluate.cohorts import Cohort, Study
from pipeline.metrics.bootstrap import bootstrap_interval
from pipeline.metrics.classification import classification_scores
from pipeline.records import ProgressCallback
from pipeline.settings import EvaluateLesionsSettings

Probabilities = npt.NDArray[np.float64]

ARMS = {
    "real": "real",
    "real_classical": "real + classical augmentation",
    "real_duplicated": "real + duplicated real (control)",
    "real_synthetic": "real + synthetic",
    "synthetic_only": "synthetic only",
}
_REAL_ARMS = frozenset({"real", "real_classical"})


@dataclass(frozen=True)
class Utility:
    """Outcome of all arms.

    Attributes:
        probabilities: arm -> one (test images, classes) array a seed.
        real_models: classifiers of the arm ``real``, one a seed.
    """

    probabilities: Mapping[str, list[Probabilities]]
    real_models: list[SmallClassifier]
    _known: dict[tuple[str, bytes], dict[str, float]] = field(default_factory=dict, repr=False, compare=False)

    def mean_scores(self, arm: str, truth: npt.NDArray[np.int64], chosen: npt.NDArray[np.int64]) -> dict[str, float]:
        """Macro AUC, balanced accuracy and ECE of an arm on chosen test images, mean over seeds.

        All intervals rest on the same resamples, so that each is scored once and kept.

        Args:
            arm: arm to score.
            truth: classes of the test set, always the same.
            chosen: indices of test images.
        """
        key = (arm, hashlib.sha256(chosen.tobytes()).digest())
        if key not in self._known:
            found = [classification_scores(truth[chosen], p[chosen]) for p in self.probabilities[arm]]
            self._known[key] = {
                "macro_auc": float(np.mean([s.macro_auc for s in found])),
                "balanced_accuracy": float(np.mean([s.balanced_accuracy for s in found])),
                "ece": float(np.mean([s.ece for s in found])),
            }
        return self._known[key]


@dataclass(frozen=True)
class Score:
    """A score and its interval over subjects; None where there are too few subjects, or where it is not defined."""

    value: float | None
    low: float | None
    high: float | None


def run_arms(study: Study, settings: EvaluateLesionsSettings, seed: int, progress: ProgressCallback) -> Utility:
    """Train every arm with every seed. An arm whose training set lacks a class or its own images is left out."""
    names = [name for name in ARMS if len(study.synthetic) or name in _REAL_ARMS]
    arms = {name: _training_set(name, study, seed) for name in names}
    arms = {name: cohort for name, cohort in arms.items() if _complete(cohort, len(study.class_names))}
    augment: Augment = ClassicalAugmentation()
    probabilities: dict[str, list[Probabilities]] = {}
    real_models, done, total = [], 0, len(arms) * settings.seeds
    for name, cohort in arms.items():
        for number in range(settings.seeds):
            model = train_classifier(
                cohort.images,
                cohort.classes,
                len(study.class_names),
                steps=settings.classifier_steps,
                seed=seed + number,
                augment=augment if name == "real_classical" else None,
            )
            probabilities.setdefault(name, []).append(predict(model, study.test.images).double().numpy())
            if name == "real":
                real_models.append(model)
            done += 1
            progress("classifiers trained", done, total)
    return Utility(probabilities, real_models)


def _training_set(arm: str, study: Study, seed: int) -> Cohort:
    if arm in _REAL_ARMS:
        return study.train
    if arm == "real_synthetic":
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
    """Mean of a score over seeds, or of its difference from another arm, with an interval over test subjects.

    Args:
        utility: all arms.
        arm: arm to score.
        study: holds the test set.
        score: attribute of `ClassificationScores`, one of ``macro_auc``, ``balanced_accuracy``, ``ece``.
        settings: number of resamples.
        seed: of the resamples; equal for all arms, so that differences are paired.
        against: arm whose score is subtracted on every resample.
    """
    truth = study.test.classes.numpy()

    def statistic(chosen: npt.NDArray[np.int64]) -> float:
        own = utility.mean_scores(arm, truth, chosen)[score]
        return own - (utility.mean_scores(against, truth, chosen)[score] if against else 0.0)

    value = statistic(np.arange(len(truth)))
    if not math.isfinite(value):
        return Score(None, None, None)
    rng = np.random.default_rng(seed)
    try:
        found = bootstrap_interval(statistic, study.test.subjects, rng, resamples=settings.bootstrap)
    except InputError:  # one subject, or a class that most resamples miss
        return Score(value, None, None)
    return Score(found.value, found.low, found.high)


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
