"""Terms that tie a translation to something that is known: a partner, a weak label, the source's structure.

All work on the MR → CT direction but `paired`, which both directions have. Distances from a CT are measured on a scale
on which equal steps are equal HU, so that an error in bone counts as much as one of as many HU in the brain.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.losses import masked_l1
from models.mr_to_ct import structure
from models.mr_to_ct.registration import DeformationNetwork, length, roughness, warp
from models.mr_to_ct.step_settings import MRToCTStepSettings
from models.ranks import ALONE, Ranks

Weighted = dict[str, tuple[float, Tensor]]

LENGTH_SHARE = 0.01
"""Weight of the displacements' length relative to that of their roughness."""


@dataclass(frozen=True)
class KnownCT:
    """What a translation is compared with.

    Attributes:
        truth: (N, k, H, W), the partner, or None.
        weak: same shape, a guess made without the partner, or None.
        source: same shape, the MR slices.
        mr_mask: same shape, body mask of the MR.
        weight: same shape, weight of each pixel's distance from the partner; 0 in rows without one.
    """

    truth: Tensor | None
    weak: Tensor | None
    source: Tensor
    mr_mask: Tensor
    weight: Tensor


def ct_terms(
    settings: MRToCTStepSettings,
    fake: Tensor,
    known: KnownCT,
    registration: DeformationNetwork | None,
    ranks: Ranks = ALONE,
) -> Weighted:
    """Weighted terms of an MR → CT translation (N, k, H, W), as far as their weights are not 0.

    The mean of what the ranks are given is the term of the whole batch.
    """
    terms: Weighted = {}
    compared, bone_of, weight = fake, known.weak, torch.ones_like(known.weight)
    if known.truth is not None:
        bone_of, weight = known.truth, known.weight
        if registration is not None:
            displacements = registration(fake, known.truth)
            compared = warp(fake, displacements)
            cost = roughness(displacements) + LENGTH_SHARE * length(displacements)
            terms["deformation"] = (settings.lambda_smooth, cost)
        terms["paired_ct"] = (settings.lambda_paired, _distance(settings, compared, known.truth, known.weight, ranks))
    if known.weak is not None and settings.lambda_weak > 0:
        near = known.mr_mask + settings.outside_weight * (1 - known.mr_mask)
        terms["weak"] = (settings.lambda_weak, _distance(settings, fake, known.weak, near, ranks))
    if bone_of is not None:
        terms |= _bone_terms(settings, compared, bone_of, weight, ranks)
    return terms | structure_terms(settings, fake, known.source, known.mr_mask, ranks)


def structure_terms(
    settings: MRToCTStepSettings, fake: Tensor, source: Tensor, mask: Tensor, ranks: Ranks = ALONE
) -> Weighted:
    """Terms that need no CT: edges, descriptors, outline."""
    terms: Weighted = {}
    if settings.lambda_gradient > 0:
        terms["gradient"] = (settings.lambda_gradient, structure.gradient_consistency(fake, source, mask))
    if settings.lambda_mind > 0:
        terms["mind"] = (settings.lambda_mind, structure.mind_consistency(fake, source, mask, ranks))
    if settings.lambda_body > 0:
        terms["body"] = (settings.lambda_body, structure.body_consistency(fake, mask, ranks))
    return terms


def _distance(settings: MRToCTStepSettings, fake: Tensor, truth: Tensor, weight: Tensor, ranks: Ranks) -> Tensor:
    knots = settings.ct_knots_unit, settings.ct_knots_linear
    return masked_l1(
        structure.linear_hounsfield(fake, *knots), structure.linear_hounsfield(truth, *knots), weight, ranks
    )


def _bone_terms(settings: MRToCTStepSettings, fake: Tensor, truth: Tensor, weight: Tensor, ranks: Ranks) -> Weighted:
    """Dice and cross-entropy of bone, over the rows that have a partner."""
    rows = (weight.flatten(1).sum(dim=1) > 0).to(fake.dtype)[:, None, None, None]
    bone = (truth >= settings.bone_level).to(fake.dtype)
    terms: Weighted = {}
    if settings.lambda_bone > 0:
        # A level close to the end of the range needs a steep sigmoid.
        softness = min(0.1, (1 - settings.bone_level) / 2)
        shown = torch.where(rows > 0, fake, torch.full_like(fake, -1.0))
        dice = structure.bone_consistency(shown, bone * rows, settings.bone_level, softness, ranks)
        terms["bone"] = (settings.lambda_bone, dice)
    if settings.lambda_bone_entropy > 0:
        entropy = structure.bone_entropy(fake, bone, rows, settings.bone_level, ranks)
        terms["bone_entropy"] = (settings.lambda_bone_entropy, entropy)
    return terms
