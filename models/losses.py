"""Adversarial objectives, gradient penalties, and the L1 terms of the translation.

With scores s = D(x) of real and t = D(G(z)) of fake images before any sigmoid, and σ the logistic function,

    objective       discriminator minimizes               generator minimizes     source
    minimax         −E ln σ(s) − E ln(1 − σ(t))           E ln(1 − σ(t))          Goodfellow 2014, eq. 1
    non_saturating  −E ln σ(s) − E ln(1 − σ(t))           −E ln σ(t)              Goodfellow 2014, section 3
    least_squares   E (s − 1)² + E t²                     E (t − 1)²              Mao 2017, eq. 9 without its ½
    hinge           E max(0, 1 − s) + E max(0, 1 + t)     −E t                    Lim and Ye 2017; Miyato 2018
    wasserstein     −E s + E t                            −E t                    Arjovsky 2017, eq. 2 and 3
    relativistic    −E ln σ(s − t)                        −E ln σ(t − s)          Jolicoeur-Martineau 2018; R3GAN 2024

`minimax` saturates: dL/dt = −σ(t) vanishes when fakes are obvious (t → −∞), where `non_saturating` gives −σ(−t) → −1.
`wasserstein` holds for a D that is 1-Lipschitz: clip its weights (Arjovsky 2017, algorithm 1) or penalize its gradient
(Gulrajani 2017). `relativistic` compares the i-th real with the i-th fake image and needs R1 and R2 to converge.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ranks import ALONE, Ranks
from models.rules import broken_rule


class NonFiniteLossError(ArithmeticError):
    """A loss or a gradient became NaN or infinite; raised before the weights are touched.

    Args:
        term: name of the first term that is not finite.
        value: its value.
    """

    def __init__(self, term: str, value: float) -> None:
        self.term, self.value = term, value
        super().__init__(term, value)

    def __str__(self) -> str:
        return (
            f"a training term must be finite\n  found:   {self.term} = {self.value}\n  allowed: finite numbers\n"
            "  change:  check the images for NaN, or lower the learning rates and go on from the last good weights"
        )


@dataclass(frozen=True)
class Objective:
    """An adversarial game on unbounded scores; the better D thinks of an image, the higher its score.

    Attributes:
        name: key in `OBJECTIVES`.
        discriminator_loss: (real_scores, fake_scores), any shapes → scalar that D minimizes.
        generator_loss: (fake_scores) → scalar that G minimizes; of a relative game, (fake_scores, real_scores).
        relative: whether G's loss looks at the scores of real images too.
        labeled_loss: (scores, labels in [0, 1]) → loss of D's part for one kind of image, or None where the objective
            has no labels that could be softened.
        chance_loss: D's loss where every score is 0, that is where D says nothing; None where the score 0 is not
            midway between real and fake.
    """

    name: str
    discriminator_loss: Callable[[Tensor, Tensor], Tensor]
    generator_loss: Callable[..., Tensor]
    relative: bool = False
    labeled_loss: Callable[[Tensor, Tensor], Tensor] | None = None
    chance_loss: float | None = None


def cross_entropy_discriminator_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """−E ln σ(s) − E ln(1 − σ(t)): 2 ln 2 when D answers ½ everywhere (Goodfellow 2014, theorem 1)."""
    return F.softplus(-real_scores).mean() + F.softplus(fake_scores).mean()


def minimax_generator_loss(fake_scores: Tensor) -> Tensor:
    """E ln(1 − σ(t)): the value that D maximizes, taken literally; flat when fakes are obvious."""
    return -F.softplus(fake_scores).mean()


def non_saturating_generator_loss(fake_scores: Tensor) -> Tensor:
    """−E ln σ(t): same fixed point as minimax, with a strong gradient when fakes are obvious."""
    return F.softplus(-fake_scores).mean()


def least_squares_discriminator_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """E (s − 1)² + E t² (Mao 2017 with labels a = 0, b = c = 1)."""
    return (real_scores - 1).square().mean() + fake_scores.square().mean()


def least_squares_generator_loss(fake_scores: Tensor) -> Tensor:
    """E (t − 1)²."""
    return (fake_scores - 1).square().mean()


def hinge_discriminator_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """E max(0, 1 − s) + E max(0, 1 + t): scores beyond the margin of 1 give no gradient."""
    return F.relu(1 - real_scores).mean() + F.relu(1 + fake_scores).mean()


def hinge_generator_loss(fake_scores: Tensor) -> Tensor:
    """−E t."""
    return -fake_scores.mean()


def wasserstein_discriminator_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """−E s + E t: minus the estimate of the earth mover's distance, for a 1-Lipschitz D."""
    return fake_scores.mean() - real_scores.mean()


def relativistic_discriminator_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """−E ln σ(s − t), real and fake images paired by place; ln 2 when D cannot tell them apart."""
    return F.softplus(fake_scores - real_scores).mean()


def relativistic_generator_loss(fake_scores: Tensor, real_scores: Tensor) -> Tensor:
    """−E ln σ(t − s)."""
    return F.softplus(real_scores - fake_scores).mean()


def labeled_cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """−E [y ln σ(s) + (1 − y) ln(1 − σ(s))]: D's loss for images of label y; lowest where σ(s) = y."""
    return F.binary_cross_entropy_with_logits(scores, labels)


def labeled_squares(scores: Tensor, labels: Tensor) -> Tensor:
    """E (s − y)²: lowest where s = y."""
    return (scores - labels).square().mean()


OBJECTIVES: dict[str, Objective] = {
    "minimax": Objective(
        "minimax",
        cross_entropy_discriminator_loss,
        minimax_generator_loss,
        labeled_loss=labeled_cross_entropy,
        chance_loss=2 * math.log(2),
    ),
    "non_saturating": Objective(
        "non_saturating",
        cross_entropy_discriminator_loss,
        non_saturating_generator_loss,
        labeled_loss=labeled_cross_entropy,
        chance_loss=2 * math.log(2),
    ),
    "least_squares": Objective(
        "least_squares",
        least_squares_discriminator_loss,
        least_squares_generator_loss,
        labeled_loss=labeled_squares,
    ),
    "hinge": Objective("hinge", hinge_discriminator_loss, hinge_generator_loss, chance_loss=2.0),
    "wasserstein": Objective("wasserstein", wasserstein_discriminator_loss, hinge_generator_loss, chance_loss=0.0),
    "relativistic": Objective(
        "relativistic",
        relativistic_discriminator_loss,
        relativistic_generator_loss,
        relative=True,
        chance_loss=math.log(2),
    ),
}
"""Every adversarial objective by its settings name."""


def objective_named(name: str) -> Objective:
    """The objective of that name.

    Raises:
        ValueError: no objective has that name.
    """
    if name not in OBJECTIVES:
        raise broken_rule(
            "the adversarial objective must be a known one",
            found=repr(name),
            allowed=", ".join(OBJECTIVES),
            change="set `objective` to one of these",
        )
    return OBJECTIVES[name]


def r1_penalty(scores: Tensor, images: Tensor) -> Tensor:
    """½ E ‖∇ₓ D(x)‖², to be weighted by γ: R1 over real, R2 over fake images (Mescheder 2018, eq. 9 and 10).

    Args:
        scores: (N, ...) computed from `images`, the graph still attached.
        images: (N, C, H, W) that requires gradients.

    Returns:
        Scalar that can itself be differentiated with respect to D's weights.
    """
    return 0.5 * _squared_gradients(scores, images).mean()


def gradient_penalty(scores: Tensor, mixtures: Tensor) -> Tensor:
    """E (‖∇ₓ D(x̂)‖ − 1)², to be weighted by λ (Gulrajani 2017, eq. 3).

    Args:
        scores: (N, ...) computed from `mixtures`, the graph still attached.
        mixtures: (N, C, H, W) that requires gradients, from `mixtures_of`.
    """
    squares = _squared_gradients(scores, mixtures)
    steep = squares > 0  # the root has no derivative at zero
    norms = torch.where(steep, squares, torch.ones_like(squares)).sqrt() * steep
    return (norms - 1).square().mean()


def mixtures_of(real_images: Tensor, fake_images: Tensor, shares: Tensor) -> Tensor:
    """x̂ = ε x + (1 − ε) G(z), one ε in [0, 1] an image: points between the two clouds (Gulrajani 2017, section 4).

    Args:
        real_images: (N, C, H, W).
        fake_images: same shape.
        shares: (N,), ε of each pair.

    Returns:
        Same shape, detached, requiring gradients.
    """
    share = shares[:, None, None, None]
    return (share * real_images + (1 - share) * fake_images).detach().requires_grad_()


def _squared_gradients(scores: Tensor, images: Tensor) -> Tensor:
    """‖∇ₓ D(x)‖² of every image, (N,)."""
    (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.square().flatten(1).sum(dim=1)


def cycle_loss(recovered: Tensor, original: Tensor) -> Tensor:
    """E |F(G(x)) − x|, in the unit of the images (Zhu 2017, eq. 2)."""
    return F.l1_loss(recovered, original)


def identity_loss(translated: Tensor, already_target: Tensor) -> Tensor:
    """E |G(y) − y| for an image y that already is of the target modality (Zhu 2017, section 5.2)."""
    return F.l1_loss(translated, already_target)


def masked_l1(prediction: Tensor, target: Tensor, mask: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """Weighted mean absolute error Σ m |p − t| / Σ m.

    Args:
        prediction: any shape.
        target: same shape.
        mask: weights ≥ 0 that broadcast to that shape: 1 inside a body mask and 0 outside, or anything between.
        ranks: who shares the batch; Σ m is the mean over them, so that the mean of their losses is that of the batch.

    Returns:
        Scalar in the unit of the images; zero, with zero gradients, where the mask is empty.
    """
    weight = mask.to(prediction.dtype).expand_as(prediction)
    total = ranks.mean(weight.sum())
    return (weight * (prediction - target).abs()).sum() / torch.where(total > 0, total, torch.ones_like(total))


def require_finite(terms: Mapping[str, Tensor]) -> None:
    """Stop loudly when a term is NaN or infinite; one transfer from the device whatever the number of terms.

    Args:
        terms: name → scalar.

    Raises:
        NonFiniteLossError: names the first term that is not finite.
    """
    values = torch.stack([term.detach().float() for term in terms.values()])
    finite = torch.isfinite(values)
    if not bool(finite.all()):
        first = finite.tolist().index(False)
        raise NonFiniteLossError(list(terms)[first], float(values[first]))
