"""Downstream utility: what a classifier learns from each training set, tested on the same held-out real images.

All arms share optimizer steps, seeds and test set, and all but one the classifier. ``real_duplicated`` adds as many
copies of real images as ``real_synthetic`` adds synthetic ones, so that a gain can be told from mere repetition.
``real_backbone`` learns from real images alone, on the features of the GAN's discriminator: what the GAN has learned
may serve a classifier without one synthetic image (Radford et al., ICLR 2016, section 5).
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from models.lesion_gan.backbone import BackboneClassifier
from pipeline.classifier import Augment, Classifier, Judge, fit_classifier, predict, train_classifier
from pipeline.classifier_augmentation import ClassicalAugmentation
from pipeline.evaluate.cohorts import Cohort, Study, StudyFiles
from pipeline.evaluate.utility_scores import Array, Utility
from pipeline.records import ProgressCallback
from pipeline.settings import EvaluateLesionsSettings
from pipeline.spreading import Spread, here
from pipeline.trained_models import load_backbone

BACKBONE_ARM = "real_backbone"
ARMS = {
    "real": "real",
    "real_classical": "real + classical augmentation",
    "real_duplicated": "real + duplicated real (control)",
    "real_synthetic": "real + synthetic",
    "real_synthetic_classical": "real + synthetic + classical augmentation",
    "synthetic_only": "synthetic only",
    BACKBONE_ARM: "real, on the GAN's discriminator",
}
_REAL_ARMS = frozenset({"real", "real_classical"})
_CLASSICAL_ARMS = frozenset({"real_classical", "real_synthetic_classical"})
_BACKBONE_LEARNING_RATE = {"frozen": 3e-3, "fine_tuned": 5e-4}
"""A head may learn as fast as any network; steps that large would wipe out what the discriminator knows."""

Learn = Callable[[int], Judge]
"""Trains the classifier of an arm with a seed."""


def run_arms(
    study: Study,
    settings: EvaluateLesionsSettings,
    seed: int,
    progress: ProgressCallback,
    *,
    model: Path | None = None,
    device: str = "cpu",
    spread: Spread = here,
    files: StudyFiles | None = None,
) -> Utility:
    """Train every arm with every seed. An arm whose training set lacks a class or its own images is left out.

    Args:
        study: training, synthetic and test images.
        settings: budget, seeds, network.
        seed: of the first classifier of every arm.
        progress: told after every classifier.
        model: model folder of the GAN, for the arm ``real_backbone``; None leaves that arm out without a word.
        device: where classifiers are trained; they come back to the CPU.
        spread: where they are trained, if that is on a CPU, and ``files`` say where other processes find the study.
        files: of the study.
    """
    arms, left_out = _arms(study, settings, seed, model, device)
    order = [(name, number) for name in arms for number in range(settings.seeds)]
    if files is None or device != "cpu":
        answers: Iterator[tuple[Array, Classifier | None]] = (_one(arms, study, seed, *each) for each in order)
    else:
        answers = spread(partial(_one_of_files, files, settings, seed, model, torch.get_num_threads()), order)
    probabilities: dict[str, list[Array]] = {}
    real_models: list[Classifier] = []
    for done, ((name, _), (answer, judge)) in enumerate(zip(order, answers, strict=True), 1):
        probabilities.setdefault(name, []).append(answer)
        if judge is not None:
            real_models.append(judge)
        progress("classifiers trained", done, len(order))
    return Utility(probabilities, real_models, left_out)


def _one(arms: dict[str, Learn], study: Study, seed: int, name: str, number: int) -> tuple[Array, Classifier | None]:
    """What one classifier answers on the test images; the classifier itself for the arm ``real``."""
    judge = arms[name](seed + number)
    answers = np.asarray(predict(judge, study.test.images).double().numpy())
    return answers, judge.cpu() if name == "real" and not isinstance(judge, BackboneClassifier) else None


def _one_of_files(
    files: StudyFiles,
    settings: EvaluateLesionsSettings,
    seed: int,
    model: Path | None,
    threads: int,
    which: tuple[str, int],
) -> tuple[Array, Classifier | None]:
    """The same in a process that has only the files; another number of threads would add in another order."""
    torch.set_num_threads(threads)
    study = files.load()
    arms, _ = _arms(study, settings, seed, model, "cpu")
    return _one(arms, study, seed, *which)


def _arms(
    study: Study, settings: EvaluateLesionsSettings, seed: int, model: Path | None, device: str
) -> tuple[dict[str, Learn], dict[str, str]]:
    """How each arm learns, and why others cannot."""
    arms: dict[str, Learn] = {}
    left_out: dict[str, str] = {}
    for name in ARMS:
        if name == BACKBONE_ARM:
            continue
        cohort = _training_set(name, study, seed)
        if cohort is None or len(torch.unique(cohort.classes)) < len(study.class_names):
            left_out[name] = "a class or every synthetic image is missing"
        else:
            arms[name] = partial(_learn, name, cohort, len(study.class_names), settings, device)
    if model is not None and settings.discriminator_arm != "off":
        try:
            load_backbone(model)
            arms[BACKBONE_ARM] = partial(_learn_on_backbone, model, study, settings, device)
        except ValueError:  # a family whose features hang on the class and on the batch
            left_out[BACKBONE_ARM] = "the discriminator's features do not belong to one image alone"
    return arms, left_out


def _learn(
    name: str, cohort: Cohort, classes: int, settings: EvaluateLesionsSettings, device: str, seed: int
) -> Classifier:
    return trained(cohort, classes, settings, seed, classical=name in _CLASSICAL_ARMS, device=device)


def _learn_on_backbone(
    model: Path, study: Study, settings: EvaluateLesionsSettings, device: str, seed: int
) -> BackboneClassifier:
    """A linear classifier on the discriminator, which is frozen or fine-tuned, trained on real images."""
    frozen = settings.discriminator_arm == "frozen"
    rng = torch.Generator().manual_seed(seed)
    judge = BackboneClassifier(load_backbone(model), len(study.class_names), rng, frozen=frozen).to(device)
    fit_classifier(
        judge,
        study.train.images.to(device),
        study.train.classes.to(device),
        len(study.class_names),
        steps=settings.classifier_steps,
        rng=rng,
        learning_rate=_BACKBONE_LEARNING_RATE[settings.discriminator_arm],
    )
    return judge


def trained(
    cohort: Cohort,
    classes: int,
    settings: EvaluateLesionsSettings,
    seed: int,
    *,
    classical: bool,
    device: str = "cpu",
) -> Classifier:
    """One classifier with the budget of the settings."""
    augment: Augment | None = ClassicalAugmentation() if classical else None
    return train_classifier(
        cohort.images.to(device),
        cohort.classes.to(device),
        classes,
        steps=settings.classifier_steps,
        seed=seed,
        augment=augment,
        network=settings.classifier,
    )


def _training_set(arm: str, study: Study, seed: int) -> Cohort | None:
    """None for an arm that needs synthetic images where there are none."""
    if arm in _REAL_ARMS:
        return study.train
    if not len(study.synthetic):
        return None
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
