"""What a flight recorder wants to know of a running GAN, computed without gradients."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Game:
    """Where D's logged loss lies between knowing nothing and having won.

    Attributes:
        objective: key of `models.losses.OBJECTIVES`.
        chance_loss: `d_loss` of a D that gives every image the score 0; None where the score 0 says nothing.
        floor_loss: lowest `d_loss` that the labels allow.
        targets: endings of the terms that every generator has of its own, e.g. ``("_ct", "_mr")``; ``("",)`` for one.
    """

    objective: str
    chance_loss: float | None
    floor_loss: float = 0.0
    targets: tuple[str, ...] = ("",)


@torch.no_grad()
def probability_real_over_fake(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """P(D(x) > D(G(z))) over all pairs of a batch, ties counted half: the area under the ROC curve of D.

    It is ½ at equilibrium and 1 when D has won, under every objective.

    Args:
        real_scores: (N, ...); patch scores are averaged per image.
        fake_scores: (M, ...).

    Returns:
        Scalar in [0, 1].
    """
    real = real_scores.reshape(len(real_scores), -1).mean(dim=1)
    fake = fake_scores.reshape(len(fake_scores), -1).mean(dim=1)
    difference = real[:, None] - fake[None, :]
    return (0.5 * (difference.sign() + 1)).mean()


@torch.no_grad()
def mean_pairwise_distance(images: Tensor) -> Tensor:
    """Mean over pairs of the mean absolute difference of two images: zero when a generator has collapsed.

    Args:
        images: (N, C, H, W) with N ≥ 2; any unit.

    Returns:
        Scalar in the unit of the images.
    """
    flat = images.flatten(1).float()
    return F.pdist(flat, p=1).mean() / flat.shape[1]


@torch.no_grad()
def energy_gap(real: Tensor, fake: Tensor) -> Tensor:
    """How far two clouds of features are apart: (2 E|x − y| − E|x − x'| − E|y − y'|) / (2 E|x − y|).

    The energy distance over its largest value (Székely and Rizzo 2013, "Energy statistics", section 6): 0 for equal
    distributions, 1 for two different points. It has no unit; pairs are those of different images, so that two draws
    from one distribution give 0 on average, and may fall below.

    Args:
        real: (N, d) with N ≥ 2.
        fake: (M, d) with M ≥ 2.

    Returns:
        Scalar, at most 1.
    """
    between = 2 * torch.cdist(real, fake).mean()
    within = F.pdist(real).mean() + F.pdist(fake).mean()
    return (between - within) / between.clamp_min(1e-12)


@torch.no_grad()
def relative_spread(fake: Tensor, real: Tensor) -> Tensor:
    """Mean distance of two fakes over that of two real images, in any feature space; 0 after collapse, 1 as varied.

    Args:
        fake: (N, d) with N ≥ 2.
        real: (M, d) with M ≥ 2.
    """
    return F.pdist(fake).mean() / F.pdist(real).mean().clamp_min(1e-12)
