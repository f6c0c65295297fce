"""One training step of the lesion GAN: D moves once, then G moves once, and the average of G follows.

Both players see one set of fakes per step (as in DCGAN). D judges real and fake images in a single pass, under one draw
of DiffAugment (Zhao 2020), and is frozen while G learns. With γ > 0 every 16th step adds lazy R1, 16 γ R1, to D's loss
(Mescheder 2018; Karras 2020, appendix B).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from models import optimization
from models.diagnostics import mean_pairwise_distance, probability_real_over_fake
from models.diff_augment import apply_augmentation, draw_augmentation, require_policies
from models.ema import ExponentialMovingAverage
from models.lesion_gan.discriminator import DCGANDiscriminator
from models.lesion_gan.generator import DCGANGenerator
from models.losses import objective_named, r1_penalty
from models.rules import broken_rule

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
        r1_gamma: weight γ of R1; 0 leaves it out.
        ema_decay: of the average of G, in [0, 1).
        learning_rate_generator: Adam step size of G.
        learning_rate_discriminator: Adam step size of D.
        betas: Adam decay rates.
    """

    objective: str = "hinge"
    diff_augment: tuple[str, ...] = ("brightness", "contrast", "translation", "cutout")
    r1_gamma: float = 0.0
    ema_decay: float = 0.999
    learning_rate_generator: float = 2e-4
    learning_rate_discriminator: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)


class LesionGANStep:
    """Both networks, their optimizers and the average of G.

    Args:
        generator: on its device.
        discriminator: on the same device, for the same image size and classes.
        settings: how they learn.
        rng: all randomness of training; its state is the caller's to save.

    Raises:
        ValueError: networks that do not fit together, or settings out of range.
    """

    def __init__(
        self,
        generator: DCGANGenerator,
        discriminator: DCGANDiscriminator,
        settings: LesionStepSettings,
        rng: torch.Generator,
    ) -> None:
        _require_match(generator, discriminator)
        require_policies(settings.diff_augment)
        self.generator, self.discriminator, self.settings, self.rng = generator, discriminator, settings, rng
        self.objective = objective_named(settings.objective)
        self.ema = ExponentialMovingAverage(generator, settings.ema_decay)
        self.steps = 0
        self._generator_adam = optimization.build_adam(
            generator.parameters(), settings.learning_rate_generator, settings.betas
        )
        self._discriminator_adam = optimization.build_adam(
            discriminator.parameters(), settings.learning_rate_discriminator, settings.betas
        )

    def step(self, images: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """Train on one batch.

        Args:
            images: (N, C, H, W) real images in [−1, 1], N ≥ 2.
            classes: (N,) long; the fakes are made of the same classes.

        Returns:
            Scalars without graph: `d_loss`, `g_loss`, `d_real_score`, `d_fake_score`, `p_real_over_fake`,
            `d_grad_norm`, `g_grad_norm`, `diversity` (mean distance of two fakes over that of two real images), and
            `r1` on the steps that compute it.

        Raises:
            ValueError: a batch of the wrong shape or with an unknown class.
            NonFiniteLossError: before the weights that the loss would have changed are touched.
        """
        self._require_batch(images, classes)
        self.generator.train()
        latent = torch.randn(len(images), self.generator.latent_size, generator=self.rng, device=self.rng.device)
        fakes = self.generator(latent.to(images.device), classes)
        terms = self._discriminator_step(images, fakes.detach(), classes)
        terms |= self._generator_step(fakes, classes)
        self.ema.update(self.generator)
        self.steps += 1
        first = slice(0, DIVERSITY_IMAGES)
        spread = mean_pairwise_distance(images[first]).clamp_min(1e-8)
        terms["diversity"] = mean_pairwise_distance(fakes.detach()[first]) / spread
        return terms

    def _discriminator_step(self, images: Tensor, fakes: Tensor, classes: Tensor) -> dict[str, Tensor]:
        count = len(images)
        optimization.unfreeze(self.discriminator)
        with_r1 = self.settings.r1_gamma > 0 and self.steps % R1_INTERVAL == 0
        real = images.detach().requires_grad_(with_r1)
        scores = self.discriminator(self._augment(torch.cat([real, fakes])), classes.repeat(2), groups=2)
        real_scores, fake_scores = scores[:count], scores[count:]
        loss = self.objective.discriminator_loss(real_scores, fake_scores)
        terms = {"d_loss": loss.detach()}
        if with_r1:
            penalty = r1_penalty(real_scores, real)
            terms["r1"] = penalty.detach()
            loss = loss + R1_INTERVAL * self.settings.r1_gamma * penalty
        terms["d_grad_norm"] = optimization.update(self._discriminator_adam, loss, "d")
        terms["d_real_score"] = real_scores.detach().mean()
        terms["d_fake_score"] = fake_scores.detach().mean()
        terms["p_real_over_fake"] = probability_real_over_fake(real_scores, fake_scores)
        return terms

    def _generator_step(self, fakes: Tensor, classes: Tensor) -> dict[str, Tensor]:
        optimization.freeze(self.discriminator)
        loss = self.objective.generator_loss(self.discriminator(self._augment(fakes), classes))
        norm = optimization.update(self._generator_adam, loss, "g")
        return {"g_loss": loss.detach(), "g_grad_norm": norm}

    def _augment(self, images: Tensor) -> Tensor:
        return apply_augmentation(images, draw_augmentation(self.settings.diff_augment, images, self.rng))

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
        return {"steps": torch.tensor(self.steps), "ema_updates": self.ema.state_dict()["updates"]}

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `extra_state` returned."""
        self.steps = int(state["steps"])
        self.ema.load_state_dict({"updates": state["ema_updates"]})

    def set_learning_rate_factor(self, factor: float) -> None:
        """Scale both learning rates relative to the settings, for a decay in time."""
        optimization.set_learning_rate_factor(self._generator_adam, self.settings.learning_rate_generator, factor)
        optimization.set_learning_rate_factor(
            self._discriminator_adam, self.settings.learning_rate_discriminator, factor
        )

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
        if count and not bool(((classes >= 0) & (classes < count)).all()):
            raise broken_rule(
                "every lesion class must be known to the networks",
                found=str(sorted(set(classes.tolist()))),
                allowed=f"0 to {count - 1}",
                change="build the networks with `num_classes` of the prepared set",
            )


def _require_match(generator: DCGANGenerator, discriminator: DCGANDiscriminator) -> None:
    made = (generator.image_size, generator.num_classes)
    judged = (discriminator.image_size, discriminator.num_classes)
    if made != judged:
        raise broken_rule(
            "generator and discriminator must be built for the same images",
            found=f"generator {made}, discriminator {judged} as (image size, classes)",
            allowed="equal pairs",
            change="build both with the same `image_size` and `num_classes`",
        )
