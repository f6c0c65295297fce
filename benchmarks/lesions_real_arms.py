"""Ways to give a classifier synthetic images beside few real ones, all with one budget of optimizer steps.

Every arm augments its batches classically (but ``real``). Filters and soft labels come from a teacher, the mean of
three classifiers that were trained on the same few real images with classical augmentation; generator, teacher and
classifier see those images and no others. ``self_soft`` is the control of the soft labels: the teacher's labels of the
real images, no synthetic one.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.lesions_real_data import open_set
from benchmarks.lesions_real_scores import real_cohort
from benchmarks.lesions_real_training import make_images, part_of
from pipeline.classifier import SmallClassifier, _initialized, balanced_batch, predict
from pipeline.classifier_augmentation import ClassicalAugmentation
from pipeline.evaluate.cohorts import Cohort
from pipeline.metrics.classification import classification_scores

STEPS, BATCH, LEARNING_RATE, WIDTH = 300, 64, 3e-3, 16
TEACHERS, FIRST_TEACHER = 3, 100


@dataclass(frozen=True)
class Arm:
    """What a classifier is taught with.

    Attributes:
        share: of synthetic images in a batch; of steps on synthetic images alone where ``first``.
        keep: leaves out what the teacher takes for another class, or for its own below this probability.
        labels: ``made`` (the class asked for) or ``soft`` (the teacher's probabilities).
        first: synthetic images come before the real ones, not beside them.
        truncation: of the latents.
        parts: of the run, whose images are pooled; 0 is the last.
        classical: augment the batches.
        self_taught: the share of the batch holds real images under the teacher's soft labels.
    """

    share: float = 0.0
    keep: float | None = None
    labels: str = "made"
    first: bool = False
    truncation: float = 1.0
    parts: tuple[int, ...] = (0,)
    classical: bool = True
    self_taught: bool = False


ARMS = {
    "real": Arm(classical=False),
    "real_classical": Arm(),
    "mix": Arm(share=0.5),
    "mix_25": Arm(share=0.25),
    "mix_10": Arm(share=0.1),
    "filter": Arm(share=0.5, keep=0.0),
    "soft": Arm(share=0.5, labels="soft"),
    "soft_filter_25": Arm(share=0.25, labels="soft", keep=0.0),
    "soft_first": Arm(share=0.5, labels="soft", first=True),
    "truncated_25": Arm(share=0.25, truncation=0.7),
    "snapshots_25": Arm(share=0.25, parts=(1, 2, 0)),
    "self_soft": Arm(share=0.5, labels="soft", self_taught=True),
}
"""Every arm by name."""


def fit(real: Cohort, added: tuple[Tensor, Tensor] | None, arm: Arm, classes: int, seed: int) -> SmallClassifier:
    """Train with the budget of all arms.

    Args:
        real: training images.
        added: images (N, C, H, W) and their targets (N, classes), which sum to 1; None for none.
        arm: how they are mixed.
        classes: number of classes.
        seed: of weights, batches and augmentation.
    """
    rng = torch.Generator().manual_seed(seed)
    model = _initialized(real.images.shape[1], classes, WIDTH, rng).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=1e-2)
    augment = ClassicalAugmentation() if arm.classical else None
    sources = [(real.images, F.one_hot(real.classes, classes).float()), *([added] if added else [])]
    members = [_members(targets, classes) for _, targets in sources]
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * step / STEPS))
        chosen = [
            balanced_batch(of, count, rng) for of, count in zip(members, _counts(arm, step, len(sources)), strict=True)
        ]
        images = torch.cat([source[0][rows] for source, rows in zip(sources, chosen, strict=True)])
        targets = torch.cat([source[1][rows] for source, rows in zip(sources, chosen, strict=True)])
        images = images if augment is None else augment(images, rng)
        loss = F.cross_entropy(model(images.contiguous(memory_format=torch.channels_last)), targets)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
    return model.eval()


def _members(targets: Tensor, classes: int) -> list[Tensor]:
    """Images of every class, by the largest target; classes that none has are left out."""
    found = [torch.nonzero(targets.argmax(1) == index).flatten() for index in range(classes)]
    return [rows for rows in found if len(rows)]


def _counts(arm: Arm, step: int, sources: int) -> list[int]:
    """Images of a batch from each source."""
    if sources == 1:
        return [BATCH]
    share = float(step < arm.share * STEPS) if arm.first else arm.share
    return [BATCH - round(BATCH * share), round(BATCH * share)]


def arm_scores(work: Path, options: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    """Macro AUC and balanced accuracy of one classifier on the held-out split."""
    arm, images = ARMS[name], open_set(work, options.set)
    real, held_out = real_cohort(images, "train"), real_cohort(images, options.split)
    classes = len(images.classes)
    added, facts = _added(work, options, arm, real, classes)
    probabilities = predict(fit(real, added, arm, classes, seed), held_out.images).double().numpy()
    scores = classification_scores(held_out.classes.numpy(), probabilities)
    return facts | {"macro_auc": scores.macro_auc, "balanced_accuracy": scores.balanced_accuracy}


def _added(
    work: Path, options: argparse.Namespace, arm: Arm, real: Cohort, classes: int
) -> tuple[tuple[Tensor, Tensor] | None, dict[str, Any]]:
    """Synthetic images with their targets, and what became of them."""
    if arm.share == 0:
        return None, {}
    if arm.self_taught:
        return (real.images, _teach(work, options.set, real, real.images, classes)), {}
    per_class = [options.per_class // len(arm.parts)] * classes
    pairs = [make_images(part_of(work, options.run, p), per_class, k, arm.truncation) for k, p in enumerate(arm.parts)]
    made, labels = torch.cat([pair[0] for pair in pairs]), torch.cat([pair[1] for pair in pairs])
    if arm.keep is None and arm.labels == "made":
        return (made, F.one_hot(labels, classes).float()), {"made": len(made)}
    soft = _teach(work, options.set, real, made, classes)
    targets = {"made": F.one_hot(labels, classes).float(), "soft": soft}
    kept = torch.ones(len(made), dtype=torch.bool)
    if arm.keep is not None:
        kept = (soft.argmax(1) == labels) & (soft.max(1).values >= arm.keep)
    return (made[kept], targets[arm.labels][kept]), {"made": len(made), "kept": int(kept.sum())}


def _teach(work: Path, set_name: str, real: Cohort, images: Tensor, classes: int) -> Tensor:
    """Mean probabilities (N, classes) of the teachers, which are trained once for a set."""
    answers = []
    for seed in range(FIRST_TEACHER, FIRST_TEACHER + TEACHERS):
        path = work / "judges" / f"{set_name}-teacher-{seed}.pt"
        model = SmallClassifier(real.images.shape[1], classes)
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            torch.save(fit(real, None, Arm(), classes, seed).state_dict(), path)
        model.load_state_dict(torch.load(path, weights_only=True))
        answers.append(predict(model.eval(), images))
    return torch.stack(answers).mean(0)
