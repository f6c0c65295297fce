"""One CycleGAN training step beside other implementations of it, with the same weights, batch and mathematics.

    python -m benchmarks mr_to_ct --peer mr_to_ct=CHECKOUT

CHECKOUT is a folder of github.com/junyanz/pytorch-CycleGAN-and-pix2pix: the authors' own step, in the recipe of 2017,
beside ours in float32 and in bfloat16. Without it the peer is a plain PyTorch loop with our U-Net, which calls every
network once for each term, leaves the discriminators trainable while the generators learn, and runs Adam in its default
form; or it is a file that builds another implementation, see `peer_file`.
"""

import itertools
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss

from benchmarks.authors_cyclegan import AuthorsStep, authors_step, is_checkout
from benchmarks.comparison import Comparison, Side, compare, cpu_seconds
from benchmarks.lesion_gan import give_weights
from benchmarks.operations import operations_of
from benchmarks.peer_file import build_step_of
from models import blocks
from models.ema import ExponentialMovingAverage
from models.image_pool import ImagePool
from models.losses import objective_named
from models.mr_to_ct.discriminator import PatchDiscriminator
from models.mr_to_ct.generator import UNetGenerator
from models.mr_to_ct.players import MRToCTNetworks
from models.mr_to_ct.resnet_2017 import ResNet2017
from models.mr_to_ct.step import MRToCTBatch, MRToCTStep
from models.mr_to_ct.step_settings import MRToCTStepSettings
from models.optimization import Precision

SIDE, BATCH, WIDTH, DISCRIMINATOR_WIDTH, DEPTH = 96, 2, 24, 32, 3
AUTHORS_SIDE, AUTHORS_BLOCKS, AUTHORS_STEPS = 128, 9, 2
RATE, BETAS, CYCLE, IDENTITY = 2e-4, (0.5, 0.999), 10.0, 5.0
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


def run(peer: Path | None = None) -> list[Comparison]:
    """One comparison; beside the authors' implementation two, with our step in float32 and in bfloat16."""
    if peer is not None and is_checkout(peer):
        return [_beside_authors(peer, precision) for precision in PRECISIONS]
    rng = torch.Generator().manual_seed(0)
    translators = [UNetGenerator(1, 1, rng, width=WIDTH, depth=DEPTH) for _ in range(2)]
    judges = [PatchDiscriminator(1, rng, width=DISCRIMINATOR_WIDTH) for _ in range(2)]
    if peer is None:
        name, their = "plain PyTorch loop", _plain_step(deepcopy(translators), deepcopy(judges))
    else:
        name, their = peer.stem, build_step_of(peer)(channels=1, width=WIDTH, discriminator_width=DISCRIMINATOR_WIDTH)
    step = _our_step(MRToCTNetworks(translators[0], translators[1], judges[0], judges[1]), "float32", ema_decay=0.999)
    mr, ct = _images(BATCH, SIDE, rng)
    batch = _batch(mr, ct)
    first = step.step(batch)
    theirs = their(mr, ct)
    facts = {
        "g_loss_of_first_step": float(first["g_loss"]),
        "peer_g_loss_of_first_step": float(theirs) if isinstance(theirs, float) else None,
        "operations": operations_of(lambda: step.step(batch)),
        "peer_operations": operations_of(lambda: their(mr, ct)),
    }
    return [
        compare(
            "mr_to_ct",
            f"one step of {BATCH} MR and {BATCH} CT patches of {SIDE} pixels, float32, CPU",
            Side("MRToCTStep", lambda: cpu_seconds(lambda: step.step(batch))),
            Side(name, lambda: cpu_seconds(lambda: their(mr, ct))),
            rounds=7,
            facts=facts,
            images=BATCH,
        )
    ]


def _beside_authors(checkout: Path, precision: Precision) -> Comparison:
    """Our step of the recipe of 2017, in a precision, beside the authors' step in float32."""
    rng = torch.Generator().manual_seed(0)
    torch.manual_seed(0)  # what they draw their weights from
    their = authors_step(checkout, blocks=AUTHORS_BLOCKS, rate=RATE, beta1=BETAS[0])
    networks: Mapping[str, nn.Module] = {
        "mr_to_ct": ResNet2017(1, 1, rng, blocks=AUTHORS_BLOCKS),
        "ct_to_mr": ResNet2017(1, 1, rng, blocks=AUTHORS_BLOCKS),
        "ct_discriminator": PatchDiscriminator(1, rng),
        "mr_discriminator": PatchDiscriminator(1, rng),
    }
    for name, network in their.networks().items():
        give_weights(networks[name], network)
    step = _our_step(MRToCTNetworks(**networks), precision, ema_decay=0.0)  # type: ignore[arg-type]
    mr, ct = _images(1, AUTHORS_SIDE, rng)
    batch = _batch(mr, ct)
    ours, theirs = ([run() for _ in range(AUTHORS_STEPS)] for run in (lambda: step.step(batch), lambda: their(mr, ct)))
    facts: dict[str, object] = {
        f"{whose}{name}_of_first_steps": [float(losses[name]) for losses in steps]
        for whose, steps in (("", ours), ("peer_", theirs))
        for name in ("g_loss", "d_loss")
    }
    facts |= _operations(lambda: step.step(batch), lambda: their(mr, ct), their)
    return compare(
        f"mr_to_ct_authors_{precision}",
        f"one step of the recipe of 2017 at {AUTHORS_SIDE} pixels, batch 1, {precision} against float32, CPU",
        Side("MRToCTStep", lambda: cpu_seconds(lambda: step.step(batch))),
        Side("pytorch-CycleGAN-and-pix2pix", lambda: cpu_seconds(lambda: their(mr, ct))),
        rounds=5,
        facts=facts,
        warm_up=0,
    )


def _operations(ours: Callable[[], object], theirs: Callable[[], object], their: AuthorsStep) -> dict[str, object]:
    """Ours as on this CPU and as on an accelerator; theirs with Adam as it comes on each."""
    elsewhere = partial(blocks.reflection_gradient, exact_kernel=False)
    found: dict[str, object] = {"operations": operations_of(ours), "peer_operations": operations_of(theirs)}
    with patch.object(blocks, "reflection_gradient", lambda gradient, size, **_: elsewhere(gradient, size)):
        found["operations_as_on_an_accelerator"] = operations_of(ours)
    for optimizer in their.model.optimizers:
        optimizer.param_groups[0]["foreach"] = True
    found["peer_operations_as_on_an_accelerator"] = operations_of(theirs)
    for optimizer in their.model.optimizers:
        optimizer.param_groups[0]["foreach"] = None
    return found


def _our_step(networks: MRToCTNetworks, precision: Precision, *, ema_decay: float) -> MRToCTStep:
    settings = MRToCTStepSettings(
        lambda_cycle=CYCLE, lambda_identity=IDENTITY / CYCLE, learning_rate_generator=RATE,
        learning_rate_discriminator=RATE, betas=BETAS, precision=precision, ema_decay=ema_decay,
    )  # fmt: skip
    return MRToCTStep(networks, settings, torch.Generator().manual_seed(1))


def _images(count: int, side: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    mr, ct = (torch.rand(count, 1, side, side, generator=rng) * 2 - 1 for _ in range(2))
    return mr, ct


def _batch(mr: Tensor, ct: Tensor) -> MRToCTBatch:
    mask = torch.ones_like(mr)
    return MRToCTBatch(mr, ct, mask, mask, torch.zeros(len(mr), dtype=torch.bool))


def _plain_step(
    translators: list[UNetGenerator], judges: list[PatchDiscriminator]
) -> Callable[[Tensor, Tensor], float]:
    mr_to_ct, ct_to_mr = translators
    ct_judge, mr_judge = judges
    objective = objective_named("least_squares")
    average = ExponentialMovingAverage(mr_to_ct, 0.999)
    adam_g = torch.optim.Adam(itertools.chain(*(t.parameters() for t in translators)), lr=RATE, betas=BETAS)
    adam_d = torch.optim.Adam(itertools.chain(*(j.parameters() for j in judges)), lr=RATE, betas=BETAS)
    pools, rng = [ImagePool(50), ImagePool(50)], torch.Generator().manual_seed(1)

    def step(mr: Tensor, ct: Tensor) -> float:
        pseudo_ct, pseudo_mr = mr_to_ct(mr), ct_to_mr(ct)
        adam_g.zero_grad()
        loss = objective.generator_loss(ct_judge(pseudo_ct)) + objective.generator_loss(mr_judge(pseudo_mr))
        loss = loss + CYCLE * (l1_loss(ct_to_mr(pseudo_ct), mr) + l1_loss(mr_to_ct(pseudo_mr), ct))
        loss = loss + IDENTITY * (l1_loss(mr_to_ct(ct), ct) + l1_loss(ct_to_mr(mr), mr))
        torch.autograd.backward(loss)
        adam_g.step()
        adam_d.zero_grad()
        for judge, real, fake, pool in ((ct_judge, ct, pseudo_ct, pools[0]), (mr_judge, mr, pseudo_mr, pools[1])):
            old = pool.query(fake, rng)
            torch.autograd.backward(0.5 * objective.discriminator_loss(judge(real), judge(old.detach())))
        adam_d.step()
        average.update(mr_to_ct)
        return float(loss.detach())

    return step
