"""How the MR → CT networks learn, and which of them the chosen weights need."""

from dataclasses import dataclass
from typing import Literal, get_args

from models.optimization import Precision
from models.rules import broken_rule

Supervision = Literal["unpaired", "paired", "mixed", "registered"]


@dataclass(frozen=True)
class MRToCTStepSettings:
    """Weights of the losses and pace of the learning. Facts without another source are those of Zhu 2017.

    Attributes:
        supervision: "unpaired" ignores pairs; "paired" wants a pair in every row; "mixed" uses pairs where there are;
            "registered" is "paired" with a deformation network that bends translations onto their partners.
        objective: key of `models.losses.OBJECTIVES`; the paper's is least_squares.
        lambda_adversarial: weight of the adversarial terms; 0 leaves out the discriminators.
        lambda_cycle: weight of the cycle; with "paired", 0 leaves out ct_to_mr.
        lambda_identity: weight of the identity as a fraction of `lambda_cycle`.
        lambda_paired: weight of the L1 distance of a translation from its partner, 100 in Isola 2017.
        outside_weight: weight of that distance outside the body mask, where inside it is 1; in [0, 1].
        lambda_smooth: weight of the roughness of deformations, with "registered".
        lambda_weak: weight of the L1 distance from weak labels, in rows that have them.
        lambda_bone: weight of the bone masks' Dice: of partners where rows have them, of weak labels elsewhere.
        lambda_bone_entropy: weight of the same masks' cross-entropy, for bone of few pixels.
        lambda_gradient: weight of `structure.gradient_consistency`.
        lambda_mind: weight of `structure.mind_consistency`.
        lambda_body: weight of `structure.body_consistency`.
        warm_steps: first steps, in which all but weak labels, partners and structure is left out.
        bone_level: unit from which on CT is bone.
        ct_knots_unit, ct_knots_linear: the CT's intensity map, from units to a scale of equal HU over [−1, 1].
        penalty: weight of R1 (and R2 of a relative game) on the discriminators; 0 leaves it out.
        weight_clip: bound of every discriminator weight (Arjovsky 2017); 0 for none.
        pool_size: fakes kept as history on each side.
        ema_decay: of the average of mr_to_ct, in [0, 1).
        learning_rate_generator: Adam step size of both generators.
        learning_rate_discriminator: Adam step size of both discriminators.
        betas: Adam decay rates.
        gradient_clip: largest norm of the generators' gradient, and of the discriminators'; 0 leaves them as they are.
        sequences: MR sequences that are one input, one after another in its channels.
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
    lambda_smooth: float = 10.0
    lambda_weak: float = 0.0
    lambda_bone: float = 0.0
    lambda_bone_entropy: float = 0.0
    lambda_gradient: float = 0.0
    lambda_mind: float = 0.0
    lambda_body: float = 0.0
    warm_steps: int = 0
    bone_level: float = 0.4
    ct_knots_unit: tuple[float, ...] = (-1.0, 1.0)
    ct_knots_linear: tuple[float, ...] = (-1.0, 1.0)
    penalty: float = 0.0
    weight_clip: float = 0.0
    pool_size: int = 50
    ema_decay: float = 0.999
    learning_rate_generator: float = 2e-4
    learning_rate_discriminator: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    gradient_clip: float = 0.0
    sequences: int = 1
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if self.supervision not in get_args(Supervision):
            raise broken_rule(
                "the supervision must be a known one",
                found=repr(self.supervision),
                allowed=", ".join(get_args(Supervision)),
                change="set `supervision` to one of these",
            )
        weights = tuple(value for name, value in vars(self).items() if name.startswith("lambda_"))
        if min(weights) < 0 or not 0 <= self.outside_weight <= 1:
            raise broken_rule(
                "loss weights must not be negative, and the outside must not weigh more than the body",
                found=f"weights {weights}, outside {self.outside_weight}",
                allowed="weights ≥ 0 and 0 ≤ outside_weight ≤ 1",
                change="correct the weight",
            )
        if self.lambda_adversarial == 0 and not self.uses_pairs and self.lambda_weak == 0:
            raise broken_rule(
                "something must tie the translations to the other modality",
                found=f"lambda_adversarial = 0 without pairs or weak labels (supervision {self.supervision})",
                allowed="lambda_adversarial > 0, lambda_weak > 0, or supervision by pairs with lambda_paired > 0",
                change="raise one of these weights",
            )

        self._require_game()

    def _require_game(self) -> None:
        """Objectives that need something to hold their discriminators."""
        if self.objective == "wasserstein" and self.lambda_adversarial > 0 and self.weight_clip <= 0:
            raise broken_rule(
                "the Wasserstein objective holds for a Lipschitz discriminator only",
                found="weight_clip = 0",
                allowed="weight_clip > 0, 0.01 in Arjovsky 2017",
                change="set `weight_clip`, or choose another objective",
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
        """Whether the way back is needed: for a cycle, and for the game of unpaired images."""
        one_way = self.supervision in ("paired", "registered") or self.lambda_adversarial == 0
        return self.lambda_cycle > 0 or not one_way

    @property
    def trains_discriminators(self) -> bool:
        """Whether there is an adversarial term."""
        return self.lambda_adversarial > 0
