"""One training step of the lesion GAN: D moves once, then G moves once, and the average of G follows.

Both players see one set of fakes per step (as in DCGAN). D judges real and fake images in a single pass where it has
no batch norm (else the passes are apart), under one draw of DiffAugment (Zhao 2020), and is frozen while G learns.
With γ > 0 every 16th step adds lazy penalties, 16 γ R1 and 16 γ R2, to D's loss (Mescheder 2018; Karras 2020, appendix
B). The gradient penalty of Gulrajani (2017) is added at every step. With `critic_steps` n, G moves at every n-th step.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from models import optimization
from models.adaptive_augmentation import AdaptiveProbability
from models.diagnostics import Game, mean_pairwise_distance, probability_real_over_fake
from models.diff_augment import apply_augmentation, draw_augmentation, part_of, require_policies
from models.ema import ExponentialMovingAverage
from models.labels import HARD_LABELS, LabelSettings, draw_labels, lowest_cross_entropy
from models.lesion_gan.classic import ClassicDiscriminator, ClassicGenerator
from models.lesion_gan.conditions import classes_of
from models.lesion_gan.discriminator import DCGANDiscriminator
from models.lesion_gan.generator import DCGANGenerator
from models.losses import gradient_penalty, mixtures_of, objective_named, r1_penalty
from models.ranks import ALONE, Ranks
from models.rules import broken_rule
from models.shared_statistics import share_statistics

Generator = DCGANGenerator | ClassicGenerator
Discriminator = DCGANDiscriminator | ClassicDiscriminator

R1_INTERVAL = 16
"""Steps between two R1 penalties (Karras 2020, appendix B)."""

DIVERSITY_IMAGES = 16
"""Images of a batch whose pairwise distances are recorded; all pairs of a large batch would cost too much."""


@dataclass(frozen=True)
class LesionStepSettings:
    """How the two players learn.

    Attributes:
        objective: key of `models.losses.OBJECTIVES`.
        diff_augment: policies of `models.diff_augment.POLICIES`; empty for none.
        adaptive_augment: lead of D toward which the probability of augmenting is steered, see
            `models.adaptive_augmentation`; 0 augments always.
        labels: what D is told real and fake images are; objectives without labels take hard ones only.
        instance_noise: standard deviation of the Gaussian noise on every image that D sees, in units of [−1, 1]
            (Sønderby 2017); `LesionGANStep.set_noise_factor` makes it fade.
        r1_gamma, r2_gamma: weights γ of R1 (real images) and R2 (fakes); 0 leaves them out.
        gradient_penalty: weight λ of (‖∇D‖ − 1)² between real and fake images; 0 leaves it out.
        weight_clip: D's weights are kept in [−c, c] after each of its steps; 0 leaves them free.
        critic_steps: steps of D for one of G.
        ema_decay: of the average of G, in [0, 1).
        learning_rate_generator: Adam step size of G.
        learning_rate_discriminator: Adam step size of D.
        betas: Adam decay rates.
        gradient_clip: largest norm of a network's gradient; 0 leaves gradients as they are.
        precision: of the passes through the networks, see `models.optimization.passes`.
    """

    objective: str = "hinge"
    diff_augment: tuple[str, ...] = ("brightness", "contrast", "translation", "cutout")
    adaptive_augment: float = 0.0
    labels: LabelSettings = HARD_LABELS
    instance_noise: float = 0.0
    r1_gamma: float = 0.0
    r2_gamma: float = 0.0
    gradient_penalty: float = 0.0
    weight_clip: float = 0.0
    critic_steps: int = 1
    ema_decay: float = 0.999
    learning_rate_generator: float = 2e-4
    learning_rate_discriminator: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    gradient_clip: float = 0.0
    precision: optimization.Precision = "float32"


class LesionGANStep:
    """Both networks, their optimizers and the average of G.

    Args:
        generator: on its device.
        discriminator: on the same device, for the same image size and classes.
        settings: how they learn.
        rng: all randomness of training; its state is the caller's to save.
        ranks: who shares each batch; every rank must be built and called alike.

    Raises:
        ValueError: networks that do not fit together, or settings out of range.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        settings: LesionStepSettings,
        rng: torch.Generator,
        ranks: Ranks = ALONE,
    ) -> None:
        _require_match(generator, discriminator)
        _require_sense(discriminator, settings)
        require_policies(settings.diff_augment)
        self.generator, self.discriminator, self.settings, self.rng = generator, discriminator, settings, rng
        self.ranks = ranks
        for network in (generator, discriminator):
            share_statistics(network, ranks)
        self.objective = objective_named(settings.objective)
        self.ema = ExponentialMovingAverage(generator, settings.ema_decay)
        self.steps = 0
        device = next(generator.parameters()).device
        self._adaptive = (
            AdaptiveProbability(settings.adaptive_augment, device) if settings.adaptive_augment != 0 else None
        )
        self._noise_factor = 1.0
        self._generator_adam = optimization.build_adam(
            generator.parameters(), settings.learning_rate_generator, settings.betas
        )
        self._discriminator_adam = optimization.build_adam(
            discriminator.parameters(), settings.learning_rate_discriminator, settings.betas
        )

    def step(self, images: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """Train on one batch, of which every rank is given the whole.

        Args:
            images: (N, C, H, W) real images in [−1, 1], N ≥ 2.
            classes: (N,) long, or (N, 1 + attributes) floats (`conditions.py`); the fakes are made of the same.

        Returns:
            Scalars without graph: `d_loss`, `d_real_score`, `d_fake_score`, `p_real_over_fake`, `d_grad_norm`,
            `diversity` (mean distance of two fakes over that of two real images), and on the steps that compute them
            `augment_probability`, `g_loss`, `g_grad_norm`, `r1`, `r2`, `gradient_penalty`.

        Raises:
            ValueError: a batch of the wrong shape or with an unknown class.
            NonFiniteLossError: before the weights that the loss would have changed are touched.
        """
        self._require_batch(images, classes)
        self.generator.train()
        latent = torch.randn(len(images), self.generator.latent_size, generator=self.rng, device=self.rng.device)
        everyone = images
        images, classes, latent = (self.ranks.part(rows) for rows in (images, classes, latent))
        with optimization.passes(self.settings.precision, images):
            fakes = self.generator(latent.to(images.device), classes).float()
        terms = self._discriminator_step(images, fakes.detach(), classes)
        if (self.steps + 1) % self.settings.critic_steps == 0:
            terms |= self._generator_step(images, fakes, classes)
            self.ema.update(self.generator)
        self.steps += 1
        first = slice(0, DIVERSITY_IMAGES)
        spread = mean_pairwise_distance(everyone[first]).clamp_min(1e-8)
        terms["diversity"] = mean_pairwise_distance(self.ranks.gathered(fakes.detach()[first])[first]) / spread
        return self.ranks.averaged(terms)

    def _discriminator_step(self, images: Tensor, fakes: Tensor, classes: Tensor) -> dict[str, Tensor]:
        optimization.unfreeze(self.discriminator)
        due = self.steps % R1_INTERVAL == 0
        real = images.detach().requires_grad_(due and self.settings.r1_gamma > 0)
        fake = fakes.requires_grad_(due and self.settings.r2_gamma > 0)
        real_scores, fake_scores = self._scores(real, fake, classes)
        loss = self._adversarial_loss(real_scores, fake_scores)
        terms = {"d_loss": loss.detach()}
        for name, weight, penalty in self._penalties(real, fake, real_scores, fake_scores, classes):
            terms[name] = penalty.detach()
            loss = loss + weight * penalty
        terms["d_grad_norm"] = optimization.update(
            self._discriminator_adam, loss, "d", clip=self.settings.gradient_clip, ranks=self.ranks
        )
        self._clip_weights()
        terms["d_real_score"] = real_scores.detach().mean()
        terms["d_fake_score"] = fake_scores.detach().mean()
        terms["p_real_over_fake"] = probability_real_over_fake(
            self.ranks.gathered(real_scores), self.ranks.gathered(fake_scores)
        )
        if self._adaptive is not None:
            terms["augment_probability"] = self._adaptive.value
            self._adaptive.see(terms["p_real_over_fake"], self.ranks.count * len(images))
        return terms

    def _scores(self, real: Tensor, fake: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of real and fake images, both under one draw of the augmentation."""
        scores = self._judged(
            self._seen_by_d(torch.cat([real, fake]), groups=2), torch.cat([classes, classes]), groups=2
        )
        return scores[: len(real)], scores[len(real) :]

    def _judged(self, images: Tensor, classes: Tensor, groups: int = 1) -> Tensor:
        with optimization.passes(self.settings.precision, images):
            scores: Tensor = self.discriminator(images, classes, groups=groups)
        return scores.float()

    def _adversarial_loss(self, real_scores: Tensor, fake_scores: Tensor) -> Tensor:
        if self.settings.labels.hard:
            return self.objective.discriminator_loss(real_scores, fake_scores)
        assert self.objective.labeled_loss is not None  # noqa: S101 - `_require_sense` has seen to it
        labels = draw_labels(self.settings.labels, self.ranks.count * len(real_scores), self.rng)
        pairs = zip((real_scores, fake_scores), labels, strict=True)
        return torch.stack(
            [self.objective.labeled_loss(of, self.ranks.part(told).to(of.device)) for of, told in pairs]
        ).sum()

    def _penalties(
        self, real: Tensor, fake: Tensor, real_scores: Tensor, fake_scores: Tensor, classes: Tensor
    ) -> Iterator[tuple[str, float, Tensor]]:
        """Name, weight and value of every penalty that is due."""
        if real.requires_grad:
            yield "r1", R1_INTERVAL * self.settings.r1_gamma, r1_penalty(real_scores, real)
        if fake.requires_grad:
            yield "r2", R1_INTERVAL * self.settings.r2_gamma, r1_penalty(fake_scores, fake)
        if self.settings.gradient_penalty > 0:
            shares = torch.rand(self.ranks.count * len(real), generator=self.rng, device=self.rng.device)
            between = mixtures_of(real, fake, self.ranks.part(shares).to(real.device))
            yield (
                "gradient_penalty",
                self.settings.gradient_penalty,
                gradient_penalty(self._judged(between, classes), between),
            )

    @torch.no_grad()
    def _clip_weights(self) -> None:
        """Keep every weight of D in [−c, c] (Arjovsky 2017, algorithm 1, line 7)."""
        limit = self.settings.weight_clip
        if limit > 0:
            for parameter in self.discriminator.parameters():
                parameter.clamp_(-limit, limit)

    def _generator_step(self, images: Tensor, fakes: Tensor, classes: Tensor) -> dict[str, Tensor]:
        optimization.freeze(self.discriminator)
        if self.objective.relative:
            real_scores, fake_scores = self._scores(images, fakes, classes)
            loss = self.objective.generator_loss(fake_scores, real_scores)
        else:
            loss = self.objective.generator_loss(self._judged(self._seen_by_d(fakes), classes))
        norm = optimization.update(self._generator_adam, loss, "g", clip=self.settings.gradient_clip, ranks=self.ranks)
        return {"g_loss": loss.detach(), "g_grad_norm": norm}

    def _seen_by_d(self, images: Tensor, groups: int = 1) -> Tensor:
        """Images as D sees them: augmented, and under instance noise. Numbers are drawn for the images of all ranks."""

        def part(rows: Tensor) -> Tensor:
            return self.ranks.part(rows, groups)

        count = self.ranks.count * len(images)
        probability = None if self._adaptive is None else self._adaptive.value
        policies = self.settings.diff_augment
        draw = draw_augmentation(policies, images, self.rng, probability=probability, count=count)
        seen = apply_augmentation(images, part_of(draw, part))
        spread = self.settings.instance_noise * self._noise_factor
        if spread == 0:
            return seen
        noise = torch.randn(count, *images.shape[1:], generator=self.rng, device=self.rng.device)
        return seen + spread * part(noise).to(images.device)

    @torch.no_grad()
    def sample(self, classes: Tensor, latent: Tensor) -> Tensor:
        """Make images with the averaged generator.

        Args:
            classes: (N,) long.
            latent: (N, latent_size), standard normal.

        Returns:
            (N, C, H, W) in [−1, 1]. An image does not depend on the others of its batch.
        """
        result: Tensor = self.ema.average(latent, classes)
        return result

    def game(self) -> Game:
        """The scale of `d_loss`."""
        return Game(self.settings.objective, self.objective.chance_loss, lowest_cross_entropy(self.settings.labels))

    def networks(self) -> dict[str, nn.Module]:
        """Every network whose weights a checkpoint must hold."""
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "generator_ema": self.ema.average,
        }

    def optimizers(self) -> dict[str, Optimizer]:
        """Every optimizer whose state a checkpoint must hold."""
        return {"generator": self._generator_adam, "discriminator": self._discriminator_adam}

    def extra_state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold beside networks, optimizers and the generator of random numbers."""
        state = {"steps": torch.tensor(self.steps), "ema_updates": self.ema.state_dict()["updates"]}
        if self._adaptive is not None:
            state |= {f"adaptive_{name}": value for name, value in self._adaptive.state_dict().items()}
        return state

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `extra_state` returned."""
        self.steps = int(state["steps"])
        self.ema.load_state_dict({"updates": state["ema_updates"]})
        if self._adaptive is not None:
            self._adaptive.load_state_dict({name: state[f"adaptive_{name}"] for name in self._adaptive.state_dict()})

    def set_learning_rate_factor(self, factor: float) -> None:
        """Scale both learning rates relative to the settings, for a decay in time."""
        optimization.set_learning_rate_factor(self._generator_adam, self.settings.learning_rate_generator, factor)
        optimization.set_learning_rate_factor(
            self._discriminator_adam, self.settings.learning_rate_discriminator, factor
        )

    def set_noise_factor(self, factor: float) -> None:
        """Scale the instance noise relative to the settings, so that it fades in time."""
        self._noise_factor = factor

    def _require_batch(self, images: Tensor, classes: Tensor) -> None:
        side = self.discriminator.image_size
        shape = (self.discriminator.image_channels, side, side)
        if images.ndim != 4 or tuple(images.shape[1:]) != shape or len(images) < 2 or len(classes) != len(images):
            raise broken_rule(
                "a batch must hold at least two images of the networks' size, and one class for each",
                found=f"images {tuple(images.shape)}, classes {tuple(classes.shape)}",
                allowed=f"images (N, {shape[0]}, {side}, {side}) and classes (N,) with N ≥ 2",
                change="set `image_size` to that of the prepared crops, or raise `batch_size`",
            )
        count = self.generator.num_classes
        if count and not bool(((classes_of(classes) >= 0) & (classes_of(classes) < count)).all()):
            raise broken_rule(
                "every lesion class must be known to the networks",
                found=str(sorted(set(classes_of(classes).tolist()))),
                allowed=f"0 to {count - 1}",
                change="build the networks with `num_classes` of the prepared set",
            )


def _require_sense(discriminator: Discriminator, settings: LesionStepSettings) -> None:
    """Refuse settings that contradict each other or the network."""
    penalized = settings.r1_gamma + settings.r2_gamma + settings.gradient_penalty > 0
    if discriminator.batch_normalized and penalized:
        raise broken_rule(
            "a penalty on D's gradient needs a discriminator that judges each image by itself",
            found="a gradient penalty, R1 or R2 with batch normalization in D",
            allowed="penalties with the family `dcgan`, or weight clipping with `dcgan_classic`",
            change="set the weight of the penalty to 0, or choose the other family",
        )
    if discriminator.spectral and settings.weight_clip > 0:
        raise broken_rule(
            "weights are clipped or normalized spectrally, not both",
            found=f"weight_clip {settings.weight_clip:g} with spectral normalization",
            allowed="one of the two",
            change="set `weight_clip` to 0 or `spectral_norm` to false",
        )
    if objective_named(settings.objective).labeled_loss is None and not settings.labels.hard:
        raise broken_rule(
            "softened labels need an objective that has labels",
            found=f"softened labels with the objective {settings.objective}",
            allowed="minimax, non_saturating, least_squares",
            change="keep the labels hard, or choose one of these objectives",
        )


def _require_match(generator: Generator, discriminator: Discriminator) -> None:
    made = (generator.image_size, generator.num_classes)
    judged = (discriminator.image_size, discriminator.num_classes)
    if made != judged:
        raise broken_rule(
            "generator and discriminator must be built for the same images",
            found=f"generator {made}, discriminator {judged} as (image size, classes)",
            allowed="equal pairs",
            change="build both with the same `image_size` and `num_classes`",
        )
