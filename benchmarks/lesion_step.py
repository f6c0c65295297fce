"""One training step of the lesion GAN beside a plain PyTorch loop with the same networks and the same mathematics.

The plain loop is what tutorials show: D judges real and fake images in two passes, stays trainable while G learns (its
weight gradients are computed and thrown away), Adam runs in its default form. Another implementation can be named
instead: see `peer_file`.
"""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.comparison import Comparison, Side, compare, cpu_seconds
from benchmarks.operations import operations_of
from benchmarks.peer_file import build_step_of
from models.ema import ExponentialMovingAverage
from models.lesion_gan.discriminator import DCGANDiscriminator
from models.lesion_gan.generator import DCGANGenerator
from models.lesion_gan.step import LesionGANStep, LesionStepSettings
from models.losses import objective_named

SIZE, CLASSES, BATCH, WIDTH, LATENT = 64, 3, 32, 32, 64
STEPS = 2
RATE, BETAS = 2e-4, (0.0, 0.99)


def run(peer: Path | None = None) -> list[Comparison]:
    """One comparison."""
    rng = torch.Generator().manual_seed(0)
    generator = DCGANGenerator(SIZE, rng, num_classes=CLASSES, latent_size=LATENT, width=WIDTH)
    discriminator = DCGANDiscriminator(SIZE, rng, num_classes=CLASSES, width=WIDTH)
    images = torch.rand(BATCH, 1, SIZE, SIZE, generator=rng) * 2 - 1
    classes = torch.randint(CLASSES, (BATCH,), generator=rng)
    if peer is None:
        name, their = "plain PyTorch loop", _plain_step(deepcopy(generator), deepcopy(discriminator))
    else:
        build = build_step_of(peer)
        sizes = {"size_px": SIZE, "channels": 1, "classes": CLASSES, "width": WIDTH, "latent_size": LATENT}
        name, their = peer.stem, build(**sizes)
    settings = LesionStepSettings(
        diff_augment=(), learning_rate_generator=RATE, learning_rate_discriminator=RATE, betas=BETAS
    )
    step = LesionGANStep(generator, discriminator, settings, torch.Generator().manual_seed(1))
    first = step.step(images, classes)
    theirs = their(images, classes)
    facts = {
        "d_loss_of_first_step": float(first["d_loss"]),
        "peer_d_loss_of_first_step": theirs[0] if isinstance(theirs, tuple) else None,
        "operations": operations_of(lambda: step.step(images, classes)),
        "peer_operations": operations_of(lambda: their(images, classes)),
    }

    def times(work: Callable[[Tensor, Tensor], object]) -> float:
        return cpu_seconds(lambda: [work(images, classes) for _ in range(STEPS)])

    return [
        compare(
            "lesion_step",
            f"{STEPS} steps of {BATCH} images of {SIZE} pixels, float32, CPU",
            Side("LesionGANStep", lambda: times(step.step)),
            Side(name, lambda: times(their)),
            rounds=7,
            facts=facts,
            images=STEPS * BATCH,
        )
    ]


def _plain_step(generator: DCGANGenerator, discriminator: DCGANDiscriminator) -> Callable[[Tensor, Tensor], object]:
    objective = objective_named("hinge")
    average = ExponentialMovingAverage(generator, 0.999)
    adam_g = torch.optim.Adam(generator.parameters(), lr=RATE, betas=BETAS)
    adam_d = torch.optim.Adam(discriminator.parameters(), lr=RATE, betas=BETAS)
    rng = torch.Generator().manual_seed(1)

    def step(images: Tensor, classes: Tensor) -> object:
        fakes = generator(torch.randn(len(images), LATENT, generator=rng), classes)
        adam_d.zero_grad()
        real_scores, fake_scores = discriminator(images, classes), discriminator(fakes.detach(), classes)
        d_loss = objective.discriminator_loss(real_scores, fake_scores)
        torch.autograd.backward(d_loss)
        adam_d.step()
        adam_g.zero_grad()
        g_loss = objective.generator_loss(discriminator(fakes, classes))
        torch.autograd.backward(g_loss)
        adam_g.step()
        average.update(generator)
        return d_loss.item(), g_loss.item()

    return step
