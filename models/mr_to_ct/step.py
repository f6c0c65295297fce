"""One training step of the MR → CT CycleGAN: both generators move once, then both discriminators.

With G = mr_to_ct, F = ct_to_mr, an MR x and a CT y, the generators minimize (Zhu 2017, eq. 3 and section 5.2)

    λ_adv [adv(D_ct(G(x))) + adv(D_mr(F(y)))] + λ_cycle (‖F(G(x)) − x‖₁ + ‖G(F(y)) − y‖₁)
    + λ_identity λ_cycle (‖G(y) − y‖₁ + ‖F(x) − x‖₁) + λ_paired (‖G(x) − y‖₁ + ‖F(y) − x‖₁, where x and y are a pair)
    + what ties G(x) to a deformed partner, a weak label or the structure of x (`models.mr_to_ct.anchors`)

and the discriminators half of their loss, on fakes from a history of 50. Norms are means over pixels; the paired one is
weighted by the body mask. Slices come as stacks of k neighbors, which both generators translate at once, so that the
cycle has the neighbors that it needs. Channels beyond k are context, handed on and never predicted.

An MR of s sequences has s k channels before its context, one sequence after another. A network that takes it and is
shown CT gets the k slices s times; F gives all sequences. Structure is compared with the first sequence.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from models import optimization
from models.diagnostics import Game, probability_real_over_fake
from models.ema import ExponentialMovingAverage
from models.losses import cycle_loss, identity_loss, masked_l1, objective_named, r1_penalty
from models.mr_to_ct.anchors import KnownCT, Weighted, ct_terms
from models.mr_to_ct.players import MRToCTNetworks, Side, missing, sides_of
from models.mr_to_ct.step_settings import MRToCTStepSettings
from models.ranks import ALONE, Ranks
from models.rules import broken_rule
from models.shared_statistics import share_statistics


@dataclass(frozen=True)
class MRToCTBatch:
    """Slices of both modalities; row i of MR and of CT belong together only where `paired[i]` is true.

    Attributes:
        mr: (N, s k + c, H, W): k neighboring slices in [−1, 1] of each sequence, then c context channels.
        ct: (N, k + c, H, W), likewise.
        mr_mask: (N, k, H, W) float, 1 inside the body and 0 outside.
        ct_mask: (N, k, H, W), likewise.
        paired: (N,) bool: ct[i] is the registered CT of mr[i].
        weak: (N, k, H, W) a guess of the CT of mr[i], made without its pair; None where there is none.
    """

    mr: Tensor
    ct: Tensor
    mr_mask: Tensor
    ct_mask: Tensor
    paired: Tensor
    weak: Tensor | None = None


@dataclass(frozen=True)
class _Outcome:
    """What one direction made of a batch; each (N, k, H, W), or (N, s k, H, W) of MR."""

    fake: Tensor
    identity: Tensor | None


class MRToCTStep:
    """The networks in training, their optimizers, the histories of fakes, and the average of mr_to_ct.

    Args:
        networks: on their device.
        settings: how they learn.
        rng: all randomness of training; its state is the caller's to save.
        ranks: who shares each batch; every rank must be built and called alike.

    Raises:
        ValueError: a network that the settings need is missing, or channels that do not fit together.
    """

    def __init__(
        self, networks: MRToCTNetworks, settings: MRToCTStepSettings, rng: torch.Generator, ranks: Ranks = ALONE
    ) -> None:
        self.settings, self.rng, self.ranks = settings, rng, ranks
        for network in vars(networks).values():
            if network is not None:
                share_statistics(network, ranks)
        self.objective = objective_named(settings.objective)
        self._sides = sides_of(networks, settings)
        self.slices = networks.mr_to_ct.out_channels
        self._channels = {"ct": self.slices, "mr": self.slices * settings.sequences}
        self.ema = ExponentialMovingAverage(networks.mr_to_ct, settings.ema_decay)
        self._registration = networks.registration if settings.supervision == "registered" else None
        if settings.supervision == "registered" and self._registration is None:
            raise missing("registration")
        learners = [side.translator for side in self._sides] + ([self._registration] if self._registration else [])
        self._generator_adam = optimization.build_adam(
            [p for network in learners for p in network.parameters()],
            settings.learning_rate_generator,
            settings.betas,
        )
        judges = [p for side in self._sides if side.discriminator for p in side.discriminator.parameters()]
        self._discriminator_adam = (
            optimization.build_adam(judges, settings.learning_rate_discriminator, settings.betas) if judges else None
        )

    def step(self, batch: MRToCTBatch) -> dict[str, Tensor]:
        """Train on one batch, of which every rank is given the whole.

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
        batch = _part(batch, self.ranks)
        warm = self.ema.updates < self.settings.warm_steps
        for side in self._sides:
            side.translator.train()
            if side.discriminator:
                optimization.freeze(side.discriminator)
        sides = self._sides[:1] if warm else self._sides
        outcomes = [self._translate_batch(side, batch, warm) for side in sides]
        weighted = self._anchor_terms(outcomes, batch)
        if not warm:
            weighted |= self._adversarial_terms(outcomes, batch) | self._cycle_terms(outcomes, batch)
            weighted |= self._identity_terms(outcomes, batch)
        loss = torch.stack([weight * term for weight, term in weighted.values()]).sum()
        terms = {name: term.detach() for name, (_, term) in weighted.items()}
        clip = self.settings.gradient_clip
        terms["g_grad_norm"] = optimization.update(self._generator_adam, loss, "g", terms, clip, self.ranks)
        terms["g_loss"] = loss.detach()
        if self._discriminator_adam is not None and not warm:
            terms |= self._discriminator_step(self._discriminator_adam, outcomes, batch)
        self.ema.update(self._sides[0].translator)
        return self.ranks.averaged(terms)

    def _translate_batch(self, side: Side, batch: MRToCTBatch, warm: bool) -> _Outcome:
        """One pass for the fakes and the identities: instance norm keeps images apart, so batching changes nothing."""
        source = self._shown(_OTHER[side.target], _other(side.target, batch))
        if warm or not self.settings.uses_identity:
            return _Outcome(self._passed(side.translator, source), None)
        own = self._shown(side.target, _own(side.target, batch))
        fake, identity = self._passed(side.translator, torch.cat([source, own])).chunk(2)
        return _Outcome(fake, identity)

    def _shown(self, kind: str, slices: Tensor) -> Tensor:
        """What a translator is shown of slices with their context: CT once for each sequence."""
        if kind == "mr" or self.settings.sequences == 1:
            return slices
        ct, context = slices[:, : self.slices], slices[:, self.slices :]
        return torch.cat([ct] * self.settings.sequences + [context], dim=1)

    def _images(self, kind: str, batch: MRToCTBatch) -> Tensor:
        """Slices of a batch without context."""
        return _own(kind, batch)[:, : self._channels[kind]]

    def _passed(self, network: nn.Module, slices: Tensor) -> Tensor:
        with optimization.passes(self.settings.precision, slices):
            result: Tensor = network(slices)
        return result.float()

    def _adversarial_terms(self, outcomes: list[_Outcome], batch: MRToCTBatch) -> Weighted:
        terms: Weighted = {}
        for side, outcome in zip(self._sides, outcomes, strict=True):
            if side.discriminator is None:
                continue
            scores = [self._passed(side.discriminator, outcome.fake)]
            if self.objective.relative:
                with torch.no_grad():
                    scores.append(self._passed(side.discriminator, self._images(side.target, batch)))
            terms[f"adversarial_{side.target}"] = (
                self.settings.lambda_adversarial,
                self.objective.generator_loss(*scores),
            )
        return terms

    def _cycle_terms(self, outcomes: list[_Outcome], batch: MRToCTBatch) -> Weighted:
        if self.settings.lambda_cycle == 0:
            return {}
        terms = {}
        for side, way_there in zip(self._sides, reversed(outcomes), strict=True):
            context = _own(side.target, batch)[:, self._channels[side.target] :]
            # The way back sees the context of the slice that it has to recover.
            made = self._shown(_OTHER[side.target], torch.cat([way_there.fake, context], dim=1))
            recovered = self._passed(side.translator, made)
            terms[f"cycle_{side.target}"] = (
                self.settings.lambda_cycle,
                cycle_loss(recovered, self._images(side.target, batch)),
            )
        return terms

    def _identity_terms(self, outcomes: list[_Outcome], batch: MRToCTBatch) -> Weighted:
        weight = self.settings.lambda_identity * self.settings.lambda_cycle
        return {
            f"identity_{side.target}": (
                weight,
                identity_loss(outcome.identity, self._images(side.target, batch)),
            )
            for side, outcome in zip(self._sides, outcomes, strict=True)
            if outcome.identity is not None
        }

    def _anchor_terms(self, outcomes: list[_Outcome], batch: MRToCTBatch) -> Weighted:
        """What ties translations to partners, weak labels and structure; pairs of a game's way back are plain."""
        fake = outcomes[0].fake
        truth = batch.ct[:, : self.slices] if self.settings.uses_pairs else None
        known = KnownCT(truth, batch.weak, batch.mr[:, : self.slices], batch.mr_mask, self._weights(batch, "ct"))
        terms = ct_terms(self.settings, fake, known, self._registration, self.ranks)
        if truth is not None and len(outcomes) > 1 and self._registration is None:
            distance = masked_l1(outcomes[1].fake, self._images("mr", batch), self._weights(batch, "mr"), self.ranks)
            terms["paired_mr"] = (self.settings.lambda_paired, distance)
        return terms

    def _weights(self, batch: MRToCTBatch, target: str) -> Tensor:
        """Weight of the distance from a partner: 1 in the body, less outside, 0 in rows without a partner."""
        body = batch.ct_mask if target == "ct" else torch.cat([batch.mr_mask] * self.settings.sequences, dim=1)
        weight = body + self.settings.outside_weight * (1 - body)
        return weight * batch.paired.to(weight.dtype)[:, None, None, None]

    def _discriminator_step(self, adam: Optimizer, outcomes: list[_Outcome], batch: MRToCTBatch) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        losses = []
        for side, outcome in zip(self._sides, outcomes, strict=True):
            if side.discriminator is None:
                continue
            optimization.unfreeze(side.discriminator)
            real = self._images(side.target, batch)
            # One history for all ranks: with the same draws, each of them keeps the same one.
            fake = self.ranks.part(side.pool.query(self.ranks.gathered(outcome.fake), self.rng))
            real_scores, fake_scores = self._passed(side.discriminator, torch.cat([real, fake])).chunk(2)
            if self.settings.penalty > 0:
                losses.append(self.settings.penalty * self._penalty(side.discriminator, real, fake))
            # Halved, so that D learns at half the pace of G (Zhu 2017, appendix 7.1).
            losses.append(0.5 * self.objective.discriminator_loss(real_scores, fake_scores))
            everyone = (self.ranks.gathered(scores) for scores in (real_scores, fake_scores))
            terms[f"p_real_over_fake_{side.target}"] = probability_real_over_fake(*everyone)
        loss = torch.stack(losses).sum()
        terms["d_grad_norm"] = optimization.update(adam, loss, "d", clip=self.settings.gradient_clip, ranks=self.ranks)
        terms["d_loss"] = loss.detach()
        if self.settings.weight_clip > 0:
            with torch.no_grad():
                for parameter in (p for group in adam.param_groups for p in group["params"]):
                    parameter.clamp_(-self.settings.weight_clip, self.settings.weight_clip)
        return terms

    def _penalty(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """R1 on real images, and R2 on fakes where the game is relative; in float32 (Mescheder 2018)."""
        penalties = []
        for images in (real, fake) if self.objective.relative else (real,):
            points = images.detach().requires_grad_()
            penalties.append(r1_penalty(discriminator(points), points))
        return torch.stack(penalties).sum()

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
        if self._registration is not None:
            networks["registration"] = self._registration
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
        context = [part.shape[1] - self._channels[kind] for kind, part in (("ct", batch.ct), ("mr", batch.mr))]
        sizes = [(len(part), *part.shape[2:]) for part in (batch.ct, batch.mr)]
        fits = context[0] == context[1] and sizes[0] == sizes[1] and len(batch.paired) == len(batch.mr)
        known = (batch.mr_mask, batch.ct_mask) if batch.weak is None else (batch.mr_mask, batch.ct_mask, batch.weak)
        if not (fits and all(part.shape == masks for part in known)):
            raise broken_rule(
                "MR, CT, masks and pairing of a batch must have matching shapes",
                found=", ".join(str(tuple(part.shape)) for part in vars(batch).values() if part is not None),
                allowed="mr (N, s k + c, H, W), ct (N, k + c, H, W), masks and weak (N, k, H, W), paired (N,), with "
                f"k = {self.slices} slices of s = {self.settings.sequences} sequences",
                change="crop both modalities to one patch size",
            )
        if self.settings.supervision in ("paired", "registered") and not bool(batch.paired.all()):
            raise broken_rule(
                "supervision by pairs needs a pair in every row",
                found=f"{int(batch.paired.sum())} pairs in a batch of {len(batch.paired)}",
                allowed="pairs only",
                change='set `supervision` to "mixed", or leave out slices without a partner',
            )


def _part(batch: MRToCTBatch, ranks: Ranks) -> MRToCTBatch:
    """The rows of this rank."""
    mr, ct, mr_mask, ct_mask, paired = (
        ranks.part(rows) for rows in (batch.mr, batch.ct, batch.mr_mask, batch.ct_mask, batch.paired)
    )
    weak = None if batch.weak is None else ranks.part(batch.weak)
    return MRToCTBatch(mr, ct, mr_mask, ct_mask, paired, weak)


_OTHER = {"ct": "mr", "mr": "ct"}


def _own(target: str, batch: MRToCTBatch) -> Tensor:
    return batch.ct if target == "ct" else batch.mr


def _other(target: str, batch: MRToCTBatch) -> Tensor:
    return batch.mr if target == "ct" else batch.ct
