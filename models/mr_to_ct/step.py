"""One training step of the MR → CT CycleGAN: both generators move once, then both discriminators.

With G = mr_to_ct, F = ct_to_mr, an MR x and a CT y, the generators minimize (Zhu 2017, eq. 3 and section 5.2)

    λ_adv [adv(D_ct(G(x))) + adv(D_mr(F(y)))] + λ_cycle (‖F(G(x)) − x‖₁ + ‖G(F(y)) − y‖₁)
    + λ_identity λ_cycle (‖G(y) − y‖₁ + ‖F(x) − x‖₁) + λ_paired (‖G(x) − y‖₁ + ‖F(y) − x‖₁, where x and y are a pair)

and the discriminators half of their loss, on fakes from a history of 50. Norms are means over pixels; the paired one is
weighted by the body mask. Slices come as stacks of k neighbors, which both generators translate at once, so that the
cycle has the neighbors that it needs. Channels beyond k are context, handed on and never predicted.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from models import optimization
from models.diagnostics import Game, probability_real_over_fake
from models.ema import ExponentialMovingAverage
from models.image_pool import ImagePool
from models.losses import cycle_loss, identity_loss, masked_l1, objective_named
from models.mr_to_ct.discriminator import PatchDiscriminator
from models.mr_to_ct.generator import Translator
from models.mr_to_ct.step_settings import MRToCTStepSettings
from models.rules import broken_rule


@dataclass(frozen=True)
class MRToCTBatch:
    """Slices of both modalities; row i of MR and of CT belong together only where `paired[i]` is true.

    Attributes:
        mr: (N, k + c, H, W): k neighboring slices in [−1, 1], then c context channels.
        ct: (N, k + c, H, W), likewise.
        mr_mask: (N, k, H, W) float, 1 inside the body and 0 outside.
        ct_mask: (N, k, H, W), likewise.
        paired: (N,) bool: ct[i] is the registered CT of mr[i].
    """

    mr: Tensor
    ct: Tensor
    mr_mask: Tensor
    ct_mask: Tensor
    paired: Tensor


@dataclass(frozen=True)
class MRToCTNetworks:
    """The players, on one device. Those that the settings leave out may be None, and are not looked at.

    Attributes:
        mr_to_ct: k + c channels in, k out.
        ct_to_mr: same channels.
        ct_discriminator: k channels in.
        mr_discriminator: k channels in.
    """

    mr_to_ct: Translator
    ct_to_mr: Translator | None = None
    ct_discriminator: PatchDiscriminator | None = None
    mr_discriminator: PatchDiscriminator | None = None


@dataclass(frozen=True)
class _Side:
    """One direction of translation: everything that ends in the target modality."""

    target: str
    translator: Translator
    discriminator: PatchDiscriminator | None
    pool: ImagePool


@dataclass(frozen=True)
class _Outcome:
    """What one direction made of a batch; each (N, k, H, W)."""

    fake: Tensor
    identity: Tensor | None


class MRToCTStep:
    """The networks in training, their optimizers, the histories of fakes, and the average of mr_to_ct.

    Args:
        networks: on their device.
        settings: how they learn.
        rng: all randomness of training; its state is the caller's to save.

    Raises:
        ValueError: a network that the settings need is missing, or channels that do not fit together.
    """

    def __init__(self, networks: MRToCTNetworks, settings: MRToCTStepSettings, rng: torch.Generator) -> None:
        self.settings, self.rng = settings, rng
        self.objective = objective_named(settings.objective)
        self._sides = _sides(networks, settings)
        self.slices = networks.mr_to_ct.out_channels
        self.ema = ExponentialMovingAverage(networks.mr_to_ct, settings.ema_decay)
        self._generator_adam = optimization.build_adam(
            [p for side in self._sides for p in side.translator.parameters()],
            settings.learning_rate_generator,
            settings.betas,
        )
        judges = [p for side in self._sides if side.discriminator for p in side.discriminator.parameters()]
        self._discriminator_adam = (
            optimization.build_adam(judges, settings.learning_rate_discriminator, settings.betas) if judges else None
        )

    def step(self, batch: MRToCTBatch) -> dict[str, Tensor]:
        """Train on one batch.

        Args:
            batch: slices; `paired` is ignored when supervision is "unpaired".

        Returns:
            Scalars without graph: `g_loss` (the weighted sum), `g_grad_norm`, and unweighted, for both targets ct and
            mr as far as the settings use them, `adversarial_ct`, `cycle_ct`, `identity_ct`, `paired_ct`,
            `p_real_over_fake_ct`; `d_loss` and `d_grad_norm` when there are discriminators.

        Raises:
            ValueError: a batch of the wrong shape, or one with unpaired rows when supervision is "paired".
            NonFiniteLossError: before the weights that the loss would have changed are touched.
        """
        self._require_batch(batch)
        for side in self._sides:
            side.translator.train()
            if side.discriminator:
                optimization.freeze(side.discriminator)
        outcomes = [self._translate_batch(side, batch) for side in self._sides]
        weighted = self._adversarial_terms(outcomes) | self._cycle_terms(outcomes, batch)
        weighted |= self._identity_terms(outcomes, batch) | self._paired_terms(outcomes, batch)
        loss = torch.stack([weight * term for weight, term in weighted.values()]).sum()
        terms = {name: term.detach() for name, (_, term) in weighted.items()}
        terms["g_grad_norm"] = optimization.update(self._generator_adam, loss, "g", terms, self.settings.gradient_clip)
        terms["g_loss"] = loss.detach()
        if self._discriminator_adam is not None:
            terms |= self._discriminator_step(self._discriminator_adam, outcomes, batch)
        self.ema.update(self._sides[0].translator)
        return terms

    def _translate_batch(self, side: _Side, batch: MRToCTBatch) -> _Outcome:
        """One pass for the fakes and the identities: instance norm keeps images apart, so batching changes nothing."""
        source = _other(side.target, batch)
        if not self.settings.uses_identity:
            return _Outcome(self._passed(side.translator, source), None)
        fake, identity = self._passed(side.translator, torch.cat([source, _own(side.target, batch)])).chunk(2)
        return _Outcome(fake, identity)

    def _passed(self, network: nn.Module, slices: Tensor) -> Tensor:
        with optimization.passes(self.settings.precision, slices):
            result: Tensor = network(slices)
        return result.float()

    def _adversarial_terms(self, outcomes: list[_Outcome]) -> dict[str, tuple[float, Tensor]]:
        return {
            f"adversarial_{side.target}": (
                self.settings.lambda_adversarial,
                self.objective.generator_loss(self._passed(side.discriminator, outcome.fake)),
            )
            for side, outcome in zip(self._sides, outcomes, strict=True)
            if side.discriminator
        }

    def _cycle_terms(self, outcomes: list[_Outcome], batch: MRToCTBatch) -> dict[str, tuple[float, Tensor]]:
        if self.settings.lambda_cycle == 0:
            return {}
        terms = {}
        for side, way_there in zip(self._sides, reversed(outcomes), strict=True):
            original = _own(side.target, batch)
            # The way back sees the context of the slice that it has to recover.
            recovered = self._passed(side.translator, torch.cat([way_there.fake, original[:, self.slices :]], dim=1))
            terms[f"cycle_{side.target}"] = (
                self.settings.lambda_cycle,
                cycle_loss(recovered, original[:, : self.slices]),
            )
        return terms

    def _identity_terms(self, outcomes: list[_Outcome], batch: MRToCTBatch) -> dict[str, tuple[float, Tensor]]:
        weight = self.settings.lambda_identity * self.settings.lambda_cycle
        return {
            f"identity_{side.target}": (
                weight,
                identity_loss(outcome.identity, _own(side.target, batch)[:, : self.slices]),
            )
            for side, outcome in zip(self._sides, outcomes, strict=True)
            if outcome.identity is not None
        }

    def _paired_terms(self, outcomes: list[_Outcome], batch: MRToCTBatch) -> dict[str, tuple[float, Tensor]]:
        if not self.settings.uses_pairs:
            return {}
        terms = {}
        for side, outcome in zip(self._sides, outcomes, strict=True):
            body = batch.ct_mask if side.target == "ct" else batch.mr_mask
            weight = body + self.settings.outside_weight * (1 - body)
            weight = weight * batch.paired.to(weight.dtype)[:, None, None, None]
            truth = _own(side.target, batch)[:, : self.slices]
            terms[f"paired_{side.target}"] = (self.settings.lambda_paired, masked_l1(outcome.fake, truth, weight))
        return terms

    def _discriminator_step(self, adam: Optimizer, outcomes: list[_Outcome], batch: MRToCTBatch) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        losses = []
        for side, outcome in zip(self._sides, outcomes, strict=True):
            if side.discriminator is None:
                continue
            optimization.unfreeze(side.discriminator)
            real = _own(side.target, batch)[:, : self.slices]
            fake = side.pool.query(outcome.fake, self.rng)
            real_scores, fake_scores = self._passed(side.discriminator, torch.cat([real, fake])).chunk(2)
            # Halved, so that D learns at half the pace of G (Zhu 2017, appendix 7.1).
            losses.append(0.5 * self.objective.discriminator_loss(real_scores, fake_scores))
            terms[f"p_real_over_fake_{side.target}"] = probability_real_over_fake(real_scores, fake_scores)
        loss = torch.stack(losses).sum()
        terms["d_grad_norm"] = optimization.update(adam, loss, "d", clip=self.settings.gradient_clip)
        terms["d_loss"] = loss.detach()
        return terms

    @torch.no_grad()
    def translate(self, mr: Tensor) -> Tensor:
        """Translate MR slices with the averaged mr_to_ct.

        Args:
            mr: (N, k + c, H, W) as in `MRToCTBatch`.

        Returns:
            (N, k, H, W) in [−1, 1]; the middle slice is the one that all k inputs inform best.

        Raises:
            ValueError: other channels, or sides that the network cannot halve.
        """
        result: Tensor = self.ema.average(mr)
        return result

    def game(self) -> Game:
        """The scale of `d_loss`, which adds up half of the loss of each discriminator."""
        judges = sum(side.discriminator is not None for side in self._sides)
        chance = self.objective.chance_loss
        return Game(
            self.settings.objective,
            None if chance is None or not judges else 0.5 * judges * chance,
            targets=tuple(f"_{side.target}" for side in self._sides),
        )

    def networks(self) -> dict[str, nn.Module]:
        """Every network in training, and the average, whose weights a checkpoint must hold."""
        networks: dict[str, nn.Module] = {}
        for side in self._sides:
            networks["mr_to_ct" if side.target == "ct" else "ct_to_mr"] = side.translator
            if side.discriminator:
                networks[f"{side.target}_discriminator"] = side.discriminator
        return networks | {"mr_to_ct_ema": self.ema.average}

    def optimizers(self) -> dict[str, Optimizer]:
        """Every optimizer whose state a checkpoint must hold."""
        optimizers: dict[str, Optimizer] = {"generators": self._generator_adam}
        if self._discriminator_adam is not None:
            optimizers["discriminators"] = self._discriminator_adam
        return optimizers

    def extra_state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold beside networks, optimizers and the generator of random numbers."""
        pools = {f"{side.target}_pool": side.pool.state_dict()["images"] for side in self._sides}
        return {"ema_updates": self.ema.state_dict()["updates"], **pools}

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `extra_state` returned; tensors must be on the device of the networks."""
        self.ema.load_state_dict({"updates": state["ema_updates"]})
        for side in self._sides:
            side.pool.load_state_dict({"images": state[f"{side.target}_pool"]})

    def set_learning_rate_factor(self, factor: float) -> None:
        """Scale the learning rates relative to the settings, for the linear decay of Zhu 2017."""
        optimization.set_learning_rate_factor(self._generator_adam, self.settings.learning_rate_generator, factor)
        if self._discriminator_adam is not None:
            optimization.set_learning_rate_factor(
                self._discriminator_adam, self.settings.learning_rate_discriminator, factor
            )

    def _require_batch(self, batch: MRToCTBatch) -> None:
        masks = (batch.mr.shape[0], self.slices, *batch.mr.shape[2:])
        fits = batch.ct.shape == batch.mr.shape and len(batch.paired) == len(batch.mr)
        if not (fits and batch.mr_mask.shape == masks and batch.ct_mask.shape == masks):
            raise broken_rule(
                "MR, CT, masks and pairing of a batch must have matching shapes",
                found=", ".join(str(tuple(part.shape)) for part in vars(batch).values()),
                allowed=f"mr and ct (N, k + c, H, W), both masks (N, k, H, W), paired (N,), with k = {self.slices}",
                change="crop both modalities to one patch size",
            )
        if self.settings.supervision == "paired" and not bool(batch.paired.all()):
            raise broken_rule(
                "supervision by pairs needs a pair in every row",
                found=f"{int(batch.paired.sum())} pairs in a batch of {len(batch.paired)}",
                allowed="pairs only",
                change='set `supervision` to "mixed", or leave out slices without a partner',
            )


def _own(target: str, batch: MRToCTBatch) -> Tensor:
    return batch.ct if target == "ct" else batch.mr


def _other(target: str, batch: MRToCTBatch) -> Tensor:
    return batch.mr if target == "ct" else batch.ct


def _sides(networks: MRToCTNetworks, settings: MRToCTStepSettings) -> tuple[_Side, ...]:
    """The directions in use, MR → CT first.

    Raises:
        ValueError: a network is missing or has other channels than mr_to_ct.
    """
    found = {"ct": (networks.mr_to_ct, networks.ct_discriminator)}
    if settings.trains_ct_to_mr:
        if networks.ct_to_mr is None:
            raise _missing("ct_to_mr")
        found["mr"] = (networks.ct_to_mr, networks.mr_discriminator)
    sides = []
    for target, (translator, discriminator) in found.items():
        if settings.trains_discriminators and discriminator is None:
            raise _missing(f"{target}_discriminator")
        judge = discriminator if settings.trains_discriminators else None
        _require_channels(networks.mr_to_ct, translator, judge)
        sides.append(_Side(target, translator, judge, ImagePool(settings.pool_size)))
    return tuple(sides)


def _missing(name: str) -> ValueError:
    return broken_rule(
        "every network that the settings train must be given",
        found=f"{name} = None",
        allowed="a network",
        change=f"build {name}, or set the weights that need it to zero",
    )


def _require_channels(first: Translator, translator: Translator, judge: PatchDiscriminator | None) -> None:
    channels = (first.in_channels, first.out_channels)
    judged = first.out_channels if judge is None else judge.in_channels
    if (translator.in_channels, translator.out_channels) != channels or judged != first.out_channels:
        raise broken_rule(
            "all networks must work on stacks of the same slices",
            found=f"translators {channels} and {(translator.in_channels, translator.out_channels)}, judged {judged}",
            allowed="the same (in, out) channels for both translators, and `out` for the discriminators",
            change="build all networks for one stack size",
        )
