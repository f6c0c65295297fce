"""What a flight recorder wants to know of a running GAN, computed without gradients."""

import torch
import torch.nn.functional as F
from torch import Tensor


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
