"""How the MR → CT networks learn, and which of them the chosen weights need."""

from dataclasses import dataclass
from typing import Literal, get_args

from models.optimization import Precision
from models.rules import broken_rule

Supervision = Literal["unpaired", "paired", "mixed"]


@dataclass(frozen=True)
class MRToCTStepSettings:
    """Weights of the losses and pace of the learning. Facts without another source are those of Zhu 2017.

    Attributes:
        supervision: "unpaired" ignores pairs; "paired" wants a pair in every row; "mixed" uses pairs where there are.
        objective: key of `models.losses.OBJECTIVES`; the paper's is least_squares.
        lambda_adversarial: weight of the adversarial terms; 0 leaves out the discriminators.
        lambda_cycle: weight of the cycle; with "paired", 0 leaves out ct_to_mr.
        lambda_identity: weight of the identity as a fraction of `lambda_cycle`.
        lambda_paired: weight of the L1 distance of a translation from its partner, 100 in Isola 2017.
        outside_weight: weight of that distance outside the body mask, where inside it is 1; in [0, 1].
        pool_size: fakes kept as history on each side.
        ema_decay: of the average of mr_to_ct, in [0, 1).
        learning_rate_generator: Adam step size of both generators.
        learning_rate_discriminator: Adam step size of both discriminators.
        betas: Adam decay rates.
        gradient_clip: largest norm of the generators' gradient, and of the discriminators'; 0 leaves them as they are.
        precision: of the passes through the networks, see `models.optimization.passes`.

    Raises:
        ValueError: a weight out of range, or weights that leave nothing to learn from.
    """

    supervision: Supervision = "unpaired"
    objective: str = "least_squares"
    lambda_adversarial: float = 1.0
    lambda_cycle: float = 10.0
    lambda_identity: float = 0.5
    lambda_paired: float = 100.0
    outside_weight: float = 0.1
    pool_size: int = 50
    ema_decay: float = 0.999
    learning_rate_generator: float = 2e-4
    learning_rate_discriminator: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    gradient_clip: float = 0.0
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if self.supervision not in get_args(Supervision):
            raise broken_rule(
                "the supervision must be a known one",
                found=repr(self.supervision),
                allowed=", ".join(get_args(Supervision)),
                change="set `supervision` to one of these",
            )
        weights = (self.lambda_adversarial, self.lambda_cycle, self.lambda_identity, self.lambda_paired)
        if min(weights) < 0 or not 0 <= self.outside_weight <= 1:
            raise broken_rule(
                "loss weights must not be negative, and the outside must not weigh more than the body",
                found=f"weights {weights}, outside {self.outside_weight}",
                allowed="weights ≥ 0 and 0 ≤ outside_weight ≤ 1",
                change="correct the weight",
            )
        if self.lambda_adversarial == 0 and not self.uses_pairs:
            raise broken_rule(
                "something must tie the translations to the other modality",
                found=f"lambda_adversarial = 0 without a paired term (supervision {self.supervision})",
                allowed="lambda_adversarial > 0, or paired or mixed supervision with lambda_paired > 0",
                change="raise one of these weights",
            )

    @property
    def uses_pairs(self) -> bool:
        """Whether the distance from a partner is part of the loss."""
        return self.supervision != "unpaired" and self.lambda_paired > 0

    @property
    def uses_identity(self) -> bool:
        """Whether translators also see images of their target modality."""
        return self.lambda_identity > 0 and self.lambda_cycle > 0

    @property
    def trains_ct_to_mr(self) -> bool:
        """Whether the way back is needed: always but for pairs without a cycle."""
        return self.supervision != "paired" or self.lambda_cycle > 0

    @property
    def trains_discriminators(self) -> bool:
        """Whether there is an adversarial term."""
        return self.lambda_adversarial > 0
