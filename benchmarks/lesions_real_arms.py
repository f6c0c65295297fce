"""Ways to give a classifier synthetic images beside few real ones, all with one budget of optimizer steps.

Every arm augments its batches classically (but ``real``). Filters and soft labels come from a teacher, the mean of
three classifiers that were trained on the same few real images with classical augmentation; generator, teacher and
classifier see those images and no others. ``self_soft`` is the control of the soft labels: the teacher's labels of the
real images, no synthetic one.

Batches are even over the classes, which repeats the images of a rare class: on an imbalanced set ``real_classical`` is
the control "real + duplicated real + classical". ``natural`` draws as the set comes. ``fill_*`` arms take a share of
the rarest class's places from synthetic images, ``fill`` as many as bring that class level with the largest.
"""

import argparse
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.lesions_real_data import open_set
from benchmarks.lesions_real_scores import real_cohort
from benchmarks.lesions_real_training import make_images, part_of
from models.lesion_gan.backbone import BackboneClassifier
from pipeline.classifier import Judge, SmallClassifier, _initialized, balanced_batch, predict
from pipeline.classifier_augmentation import ClassicalAugmentation
from pipeline.evaluate.cohorts import Cohort
from pipeline.metrics.classification import classification_scores
from pipeline.trained_models import load_backbone

STEPS, BATCH, LEARNING_RATE, WIDTH = 300, 64, 3e-3, 16
Targets = tuple[Tensor, Tensor]
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
        natural: draw real images as often as they come, not evenly over the classes.
        fill: share of synthetic images among those of the rarest class, the only one that gets any; `LEVEL` fills up
            the difference to the largest.
        backbone: `frozen` or `tuned`: train the head on the GAN's discriminator, or all of it, in place of the small
            classifier.
    """

    share: float = 0.0
    keep: float | None = None
    labels: str = "made"
    first: bool = False
    truncation: float = 1.0
    parts: tuple[int, ...] = (0,)
    classical: bool = True
    self_taught: bool = False
    natural: bool = False
    fill: float = 0.0
    backbone: str = ""


LEVEL = -1.0

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
    "natural": Arm(natural=True),
    "fill": Arm(fill=LEVEL),
    "fill_50": Arm(fill=0.5),
    "fill_25": Arm(fill=0.25),
    "fill_10": Arm(fill=0.1),
    "fill_50_filter": Arm(fill=0.5, keep=0.0),
    "fill_50_soft": Arm(fill=0.5, labels="soft"),
    "fill_50_truncated": Arm(fill=0.5, truncation=0.7),
    "fill_50_snapshots": Arm(fill=0.5, parts=(1, 2, 0)),
    "backbone_frozen": Arm(backbone="frozen"),
    "backbone_tuned": Arm(backbone="tuned"),
}
"""Every arm by name."""


def fit(real: Cohort, added: Targets | None, arm: Arm, classes: int, seed: int, backbone: Path | None = None) -> Judge:
    """Train with the budget of all arms.

    Args:
        real: training images.
        added: images (N, C, H, W) and their targets (N, classes), which sum to 1; None for none.
        arm: how they are mixed.
        classes: number of classes.
        seed: of weights, batches and augmentation.
        backbone: model folder of the GAN whose discriminator is trained on, for arms that say so.
    """
    rng = torch.Generator().manual_seed(seed)
    model, parameters = _network(real, arm, classes, rng, backbone)
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=1e-2)
    augment = ClassicalAugmentation() if arm.classical else None
    groups = _groups(real, added, arm, classes)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * step / STEPS))
        counts = _counts(arm, step, len(groups), classes)
        chosen = [balanced_batch(group.members, count, rng) for group, count in zip(groups, counts, strict=True)]
        images = torch.cat([group.images[rows] for group, rows in zip(groups, chosen, strict=True)])
        targets = torch.cat([group.targets[rows] for group, rows in zip(groups, chosen, strict=True)])
        images = images if augment is None else augment(images, rng)
        loss = F.cross_entropy(model(images.contiguous(memory_format=torch.channels_last)), targets)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
    return model.eval()


def _network(
    real: Cohort, arm: Arm, classes: int, rng: torch.Generator, backbone: Path | None
) -> tuple[Judge, list[nn.Parameter]]:
    if backbone is not None and arm.backbone:
        on = BackboneClassifier(load_backbone(backbone), classes, rng, frozen=arm.backbone == "frozen")
        return on.train(), on.trained_parameters()
    model = _initialized(real.images.shape[1], classes, WIDTH, rng).to(memory_format=torch.channels_last).train()
    return model, list(model.parameters())


@dataclass(frozen=True)
class Group:
    """Images that a batch takes a number of, evenly over ``members``, which hold the rows of a class each."""

    images: Tensor
    targets: Tensor
    members: list[Tensor]


def _groups(real: Cohort, added: Targets | None, arm: Arm, classes: int) -> list[Group]:
    """What batches are drawn from, in the order of `_counts`."""
    targets = F.one_hot(real.classes, classes).float()
    members = _members(targets, classes)
    if arm.natural:
        return [Group(real.images, targets, [torch.arange(len(real.images))])]
    if added is None:
        return [Group(real.images, targets, members)]
    if not arm.fill:
        return [Group(real.images, targets, members), Group(*added, _members(added[1], classes))]
    rare = _rarest(real, classes)
    others = [rows for index, rows in enumerate(members) if index != rare]
    return [
        Group(real.images, targets, others),
        Group(real.images, targets, [members[rare]]),
        Group(*added, [torch.arange(len(added[0]))]),
    ]


def _rarest(real: Cohort, classes: int) -> int:
    return int(torch.bincount(real.classes, minlength=classes).argmin())


def _members(targets: Tensor, classes: int) -> list[Tensor]:
    """Images of every class, by the largest target; classes that none has are left out."""
    found = [torch.nonzero(targets.argmax(1) == index).flatten() for index in range(classes)]
    return [rows for rows in found if len(rows)]


def _counts(arm: Arm, step: int, groups: int, classes: int) -> list[int]:
    """Images of a batch from each group."""
    if groups == 1:
        return [BATCH]
    if arm.fill:
        of_rare = BATCH // classes
        synthetic = round(of_rare * arm.fill)
        return [BATCH - of_rare, of_rare - synthetic, synthetic]
    share = float(step < arm.share * STEPS) if arm.first else arm.share
    return [BATCH - round(BATCH * share), round(BATCH * share)]


def arm_scores(work: Path, options: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    """Macro AUC and balanced accuracy of one classifier on the held-out split; its probabilities are kept."""
    images = open_set(work, options.set)
    real, held_out = real_cohort(images, "train"), real_cohort(images, options.split)
    classes = len(images.classes)
    arm = _leveled(ARMS[name], real, classes)
    added, facts = _added(work, options, arm, real, classes)
    backbone = part_of(work, options.run, 0) if arm.backbone else None
    probabilities = predict(fit(real, added, arm, classes, seed, backbone), held_out.images).double().numpy()
    folder = work / "answers" / f"{options.set}-{options.run}"
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{options.split}-{name}-{seed}.npy", probabilities)
    scores = classification_scores(held_out.classes.numpy(), probabilities)
    return facts | {"macro_auc": scores.macro_auc, "balanced_accuracy": scores.balanced_accuracy}


def _leveled(arm: Arm, real: Cohort, classes: int) -> Arm:
    """`LEVEL` as a share: what the rarest class lacks of the largest, over the latter."""
    if arm.fill != LEVEL:
        return arm
    counts = torch.bincount(real.classes, minlength=classes)
    return replace(arm, fill=1 - int(counts.min()) / int(counts.max()))


def _added(
    work: Path, options: argparse.Namespace, arm: Arm, real: Cohort, classes: int
) -> tuple[Targets | None, dict[str, Any]]:
    """Synthetic images with their targets, and what became of them."""
    if arm.share == 0 and arm.fill == 0:
        return None, {}
    if arm.self_taught:
        return (real.images, _teach(work, options.set, real, real.images, classes)), {}
    per_class = [options.per_class // len(arm.parts)] * classes
    if arm.fill:
        rare = _rarest(real, classes)
        per_class = [count if index == rare else 0 for index, count in enumerate(per_class)]
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
