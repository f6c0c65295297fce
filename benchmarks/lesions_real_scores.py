"""How close are synthetic images to held-out real ones, and what does a classifier make of them?

The metrics of the evaluation stage: KID and coverage in two feature spaces, class agreement, and the macro AUC of
classifiers that were trained on synthetic images alone. As many images of each class are made as the training set has.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.lesions_real_data import open_set
from benchmarks.lesions_real_training import make_images, part_of
from pipeline.classifier import Classifier, SmallClassifier, predict, train_classifier
from pipeline.evaluate.cohorts import Cohort, Study
from pipeline.evaluate.fidelity import ALL_CLASSES, fidelity_rows
from pipeline.features import ClassifierExtractor, TextureExtractor
from pipeline.intensity import from_int16
from pipeline.metrics.classification import classification_scores
from pipeline.prepared_set import ImageSet
from pipeline.records import silent
from pipeline.settings import EvaluateLesionsSettings

SETTINGS = EvaluateLesionsSettings(seeds=2, bootstrap=200, kid_subsets=20)


def real_cohort(images: ImageSet, split: str) -> Cohort:
    """The real images of a split."""
    rows = images.rows(split)
    subjects = images.table["subject_id"].to_list()
    pixels = torch.from_numpy(from_int16(np.asarray(images.images[rows])))
    return Cohort(pixels, torch.from_numpy(images.class_indices()[rows]), tuple(subjects[row] for row in rows))


def judges(work: Path, set_name: str, train: Cohort, classes: int) -> list[Classifier]:
    """Classifiers trained on real images, one a seed, made once for a set."""
    found: list[Classifier] = []
    for seed in range(SETTINGS.seeds):
        path = work / "judges" / f"{set_name}-{seed}.pt"
        model = SmallClassifier(train.images.shape[1], classes)
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            torch.save(_taught(train, classes, seed).state_dict(), path)
        model.load_state_dict(torch.load(path, weights_only=True))
        found.append(model.eval())
    return found


def fidelity_scores(work: Path, set_name: str, run: str, part: int, split: str) -> dict[str, Any]:
    """All scores of one kept model against one held-out split, each beside that of real training images."""
    images = open_set(work, set_name)
    train, held_out = real_cohort(images, "train"), real_cohort(images, split)
    classes = len(images.classes)
    counts = torch.bincount(train.classes, minlength=classes).tolist()
    made, labels = make_images(part_of(work, run, part), counts, seed=0)
    synthetic = Cohort(made, labels, tuple(f"synthetic-{number}" for number in range(len(made))))
    study = Study(tuple(images.classes), train, held_out, held_out, synthetic)
    models = judges(work, set_name, train, classes)
    agreed = _agreed(models, synthetic)
    extractors = [TextureExtractor(), ClassifierExtractor(models[0])]
    rows = [
        {
            key: row.get(key)
            for key in ("extractor", "comparison", "kid", "kid_relative", "coverage", "precision", "recall")
        }
        for row in fidelity_rows(study, extractors, SETTINGS, 0, silent)
        if row["lesion_class"] == ALL_CLASSES
    ]
    taught = [_taught(synthetic, classes, seed) for seed in range(SETTINGS.seeds)]
    return {
        "synthetic": len(synthetic),
        "held_out": len(held_out),
        "agreement": float(agreed.mean()),
        "agreement_by_class": [float(agreed[synthetic.classes == index].mean()) for index in range(classes)],
        "agreement_real": float(_agreed(models, held_out).mean()),
        "auc_synthetic_only": _mean_auc(taught, held_out),
        "auc_real": _mean_auc(models, held_out),
        "fidelity": rows,
    }


def _taught(cohort: Cohort, classes: int, seed: int) -> Classifier:
    return train_classifier(cohort.images, cohort.classes, classes, steps=SETTINGS.classifier_steps, seed=seed)


def _agreed(models: list[Classifier], cohort: Cohort) -> Tensor:
    """(N,) share of the classifiers that recognize each image."""
    answers = [predict(model, cohort.images).argmax(1) == cohort.classes for model in models]
    return torch.stack(answers).double().mean(0)


def _mean_auc(models: list[Classifier], held_out: Cohort) -> float:
    truth = held_out.classes.numpy()
    scores = [classification_scores(truth, predict(model, held_out.images).double().numpy()) for model in models]
    return float(np.mean([score.macro_auc for score in scores]))
