"""One training step of the lesion GAN beside a plain PyTorch loop with the same networks and the same mathematics.

The plain loop is what tutorials show: D judges real and fake images in two passes, stays trainable while G learns (its
weight gradients are computed and thrown away), Adam runs in its default form. Another implementation can be named
instead: a file with ``build_step`` (see `peer_file`), or a script that defines `Generator` and `Discriminator`, such as
dcgan/main.py of github.com/pytorch/examples. The script's networks are then trained as it trains them, beside
`dcgan_classic` with the same weights, latents, loss and optimizer.
"""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.comparison import Comparison, Side, compare, cpu_seconds
from benchmarks.operations import operations_of
from benchmarks.peer_file import build_step_of
from benchmarks.script_networks import ScriptNetworks, has_networks, networks_of
from models.ema import ExponentialMovingAverage
from models.lesion_gan.classic import ClassicDiscriminator, ClassicGenerator
from models.lesion_gan.discriminator import DCGANDiscriminator
from models.lesion_gan.generator import DCGANGenerator
from models.lesion_gan.step import LesionGANStep, LesionStepSettings
from models.losses import objective_named
from models.optimization import Precision

SIZE, CLASSES, BATCH, WIDTH, LATENT = 64, 3, 32, 32, 64
STEPS = 1
RATE, BETAS = 2e-4, (0.0, 0.99)
SCRIPT_BATCH, SCRIPT_WIDTH, SCRIPT_LATENT = 64, 64, 100
SCRIPT_BETAS = (0.5, 0.999)
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")

Step = Callable[[Tensor, Tensor], object]


def run(peer: Path | None = None) -> list[Comparison]:
    """One comparison; beside a script two, with our step in float32 and in bfloat16."""
    if peer is not None and has_networks(peer):
        return [_beside_script(peer, precision) for precision in PRECISIONS]
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
    work = f"{STEPS} steps of {BATCH} images of {SIZE} pixels, float32, CPU"
    return [_timed("lesion_gan", work, step.step, name, their, images, classes, facts)]


def _timed(
    label: str, work: str, ours: Step, name: str, their: Step, images: Tensor, classes: Tensor, facts: dict[str, object]
) -> Comparison:
    def times(step: Step) -> float:
        return cpu_seconds(lambda: [step(images, classes) for _ in range(STEPS)])

    return compare(
        label,
        work,
        Side("LesionGANStep", lambda: times(ours)),
        Side(name, lambda: times(their)),
        rounds=7,
        facts=facts,
        images=STEPS * len(images),
    )


def _beside_script(path: Path, precision: Precision) -> Comparison:
    """Our step of `dcgan_classic`, in a precision, beside the script's networks in float32 as it trains them."""
    rng = torch.Generator().manual_seed(0)
    torch.manual_seed(0)  # what the script draws its weights from
    theirs = networks_of(path, latent_size=SCRIPT_LATENT, width=SCRIPT_WIDTH, channels=1)
    generator = ClassicGenerator(SIZE, rng, latent_size=SCRIPT_LATENT, width=SCRIPT_WIDTH)
    discriminator = ClassicDiscriminator(SIZE, rng, width=SCRIPT_WIDTH)
    give_weights(generator, theirs.generator)
    give_weights(discriminator, theirs.discriminator)
    settings = LesionStepSettings(
        objective="non_saturating", diff_augment=(), learning_rate_generator=RATE, learning_rate_discriminator=RATE,
        betas=SCRIPT_BETAS, ema_decay=0.0, precision=precision,
    )  # fmt: skip
    step = LesionGANStep(generator, discriminator, settings, torch.Generator().manual_seed(1))
    their = script_step(theirs)
    images = torch.rand(SCRIPT_BATCH, 1, SIZE, SIZE, generator=rng) * 2 - 1
    classes = torch.zeros(SCRIPT_BATCH, dtype=torch.long)
    first, other = step.step(images, classes), their(images, classes)
    facts: dict[str, object] = {
        "d_loss_of_first_step": float(first["d_loss"]),
        "g_loss_of_first_step": float(first["g_loss"]),
        "peer_losses_of_first_step": other,
        "width": SCRIPT_WIDTH,
    }
    work = f"{STEPS} steps of {SCRIPT_BATCH} images of {SIZE} pixels, {precision} against float32, CPU"
    name = f"{path.parent.name}/{path.name}"
    return _timed(f"lesion_gan_script_{precision}", work, step.step, name, their, images, classes, facts)


def give_weights(ours: nn.Module, theirs: nn.Module) -> None:
    """Copy the layers of a script's network in their order; offsets that it lacks become 0.

    Raises:
        SystemExit: networks that are not alike.
    """
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)
    for kind in kinds:
        pairs = [[layer for layer in network.modules() if isinstance(layer, kind)] for network in (ours, theirs)]
        if [layer.weight.shape for layer in pairs[0]] != [layer.weight.shape for layer in pairs[1]]:
            raise SystemExit("The peer's networks are built otherwise than ours.")
        for own, other in zip(*pairs, strict=True):
            own.weight.data.copy_(other.weight.data)
            if own.bias is not None:
                own.bias.data.copy_(torch.zeros_like(own.bias) if other.bias is None else other.bias.data)


def script_step(networks: ScriptNetworks) -> Step:
    """The loop of the DCGAN example: D on real, D on fake images, then G, with the loss on probabilities."""
    generator, discriminator = networks.generator, networks.discriminator
    adam_g = torch.optim.Adam(generator.parameters(), lr=RATE, betas=SCRIPT_BETAS)
    adam_d = torch.optim.Adam(discriminator.parameters(), lr=RATE, betas=SCRIPT_BETAS)
    rng = torch.Generator().manual_seed(1)

    def judged(images: Tensor, label: float) -> Tensor:
        scores = discriminator(images)
        loss = F.binary_cross_entropy(scores, torch.full_like(scores, label))
        torch.autograd.backward(loss)
        return loss.detach()

    def step(images: Tensor, classes: Tensor) -> object:
        discriminator.zero_grad()
        real_loss = judged(images, 1.0)
        fakes = generator(torch.randn(len(images), SCRIPT_LATENT, generator=rng)[:, :, None, None])
        d_loss = real_loss + judged(fakes.detach(), 0.0)
        adam_d.step()
        generator.zero_grad()
        g_loss = judged(fakes, 1.0)
        adam_g.step()
        return d_loss.item(), g_loss.item()

    return step


def _plain_step(generator: DCGANGenerator, discriminator: DCGANDiscriminator) -> Step:
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
