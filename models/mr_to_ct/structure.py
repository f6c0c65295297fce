"""What a translation may not change: edges, local structure, the outline of the body, bone.

With a translation f, its source s, forward differences ∂ along rows and columns, and ⟨·⟩ the mean over a mask,

    gradient   1 − ½ Σ_axis |⟨∂f ∂s⟩| / √(⟨(∂f)²⟩ ⟨(∂s)²⟩)           Hiasa 2018, the absolute value is ours
    MIND       ⟨|M(f) − M(s)|⟩, M_r = exp(−D_r / V), max over r = 1   Heinrich 2012, four neighbors r, 3×3 patches
    body       mean |f + 1| outside the body, where CT is air (−1)
    bone       1 − Dice of σ((f − level) / softness) and a bone mask
    entropy    Σ −ln σ(±(f − level) / 0.1) over the pixels of the bone mask, + inside and − outside it

Bone is dark in MR and bright in CT, so that an edge may change its sign: the gradient term does not see signs, and MIND
(distances of patches D_r over their local mean V) does not see gain, offset or inversion.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.losses import masked_l1
from models.ranks import ALONE, Ranks

_SMALL = 1e-6
_ENTROPY_SOFTNESS, _FEWEST_BONE = 0.1, 5e-4
_NEIGHBORS = ((0, 1), (0, -1), (1, 0), (-1, 0))


def gradient_consistency(translated: Tensor, source: Tensor, mask: Tensor) -> Tensor:
    """One minus the mean absolute correlation of differences along rows and columns; one value a slice, averaged.

    Args:
        translated: (N, k, H, W).
        source: same shape.
        mask: same shape, 1 where differences count.

    Returns:
        Scalar in [0, 1]: 0 where the translation is an affine function of its source, 1 where edges have nothing in
        common. A slice without edges in either counts as 1.
    """
    correlations = []
    for axis in (-2, -1):
        inside = mask.narrow(axis, 1, mask.shape[axis] - 1)
        ours, theirs = (inside * image.diff(dim=axis) for image in (translated, source))
        product = (ours * theirs).sum(dim=(-2, -1))
        energy = (ours.square().sum(dim=(-2, -1)) * theirs.square().sum(dim=(-2, -1))).clamp(min=_SMALL**2)
        correlations.append(product.abs() / energy.sqrt())
    return 1 - torch.stack(correlations).mean()


def mind(images: Tensor) -> Tensor:
    """Modality-independent descriptor of each pixel's surroundings.

    Args:
        images: (N, k, H, W).

    Returns:
        (N, k, 4, H − 4, W − 4) in (0, 1]: how like its neighbors a pixel's patch is, the likest being 1.
    """
    flat = images.flatten(0, 1)[:, None]
    inner = flat[..., 1:-1, 1:-1]
    distances = []
    for down, right in _NEIGHBORS:
        moved = flat[..., 1 + down : flat.shape[-2] - 1 + down, 1 + right : flat.shape[-1] - 1 + right]
        distances.append(F.avg_pool2d((inner - moved).square(), 3, stride=1))
    distance = torch.cat(distances, dim=1)
    # Without contrast all patches are equal, whatever the scale: then the descriptor is 1 everywhere.
    variation = distance.mean(dim=1, keepdim=True).clamp(min=_SMALL)
    likeness = torch.exp(-(distance - distance.amin(dim=1, keepdim=True)) / variation)
    return likeness.view(*images.shape[:2], *likeness.shape[1:])


def mind_consistency(translated: Tensor, source: Tensor, mask: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """Mean absolute difference of the descriptors of (N, k, H, W) images inside a mask of that shape; in [0, 1)."""
    return masked_l1(mind(translated), mind(source), mask[:, :, None, 2:-2, 2:-2], ranks)


def body_consistency(translated: Tensor, mask: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """Mean distance from air (−1) outside a body mask (N, k, H, W)."""
    return masked_l1(translated, torch.full_like(translated, -1.0), 1 - mask, ranks)


def bone_consistency(translated: Tensor, bone: Tensor, level: float, softness: float, ranks: Ranks = ALONE) -> Tensor:
    """One minus the soft Dice of bone in the translation and a bone mask.

    Args:
        translated: (N, k, H, W).
        bone: same shape, 1 in bone.
        level: unit at which bone begins.
        softness: distance from the level at which the sigmoid is ½ ± 0.23.
        ranks: who shares the batch; the Dice is that of all their images.

    Returns:
        Scalar in [0, 1]; 0 without bone in the mask where the translation has none either.
    """
    found = torch.sigmoid((translated - level) / softness)
    overlap = 2 * ranks.summed((found * bone).sum()) + _SMALL
    return 1 - overlap / (ranks.summed(found.sum()) + ranks.summed(bone.sum()) + _SMALL)


def bone_entropy(translated: Tensor, bone: Tensor, rows: Tensor, level: float, ranks: Ranks = ALONE) -> Tensor:
    """Cross-entropy of bone in the translation with a bone mask, in nats, over the number of bone pixels in the mask.

    Where Dice sees no bone it has no slope: missed bone of a few pixels is never found. This slope does not vanish, and
    together they are what segmentation is trained with (Isensee 2021).

    Args:
        translated: (N, k, H, W).
        bone: same shape, 1 in bone.
        rows: weights that broadcast to that shape; 0 in rows that do not count.
        level: unit at which bone begins.
        ranks: who shares the batch; the mean of what they are given is the term of the whole batch.

    Returns:
        Scalar ≥ 0. Batches with hardly any bone count as if a share of `_FEWEST_BONE` of them were bone.
    """
    logits = (translated - level) / _ENTROPY_SOFTNESS
    entropy = F.binary_cross_entropy_with_logits(logits, bone, reduction="none") * rows
    count = ranks.mean((bone * rows).sum()).clamp(min=_FEWEST_BONE * bone.numel())
    return entropy.sum() / count


def linear_hounsfield(units: Tensor, knots_unit: tuple[float, ...], knots_linear: tuple[float, ...]) -> Tensor:
    """Piecewise-linear map of network units to a scale on which equal steps are equal HU, with gradients.

    Args:
        units: any shape; values beyond the outer knots are clipped to them.
        knots_unit: increasing.
        knots_linear: their places on the new scale, equally many.
    """
    result = torch.full_like(units, knots_linear[0])
    for i in range(len(knots_unit) - 1):
        width = knots_unit[i + 1] - knots_unit[i]
        slope = (knots_linear[i + 1] - knots_linear[i]) / width
        result = result + slope * (units - knots_unit[i]).clamp(0, width)
    return result
