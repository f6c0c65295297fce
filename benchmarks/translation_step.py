"""One CycleGAN training step beside a plain PyTorch loop with the same networks, losses and weights.

The plain loop calls every network once for each term, leaves the discriminators trainable while the generators learn,
and runs Adam in its default form. Another implementation can be named instead: see `peer_file`.
"""

import itertools
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import l1_loss

from benchmarks.comparison import Comparison, Side, compare, cpu_seconds
from benchmarks.operations import operations_of
from benchmarks.peer_file import build_step_of
from models.ema import ExponentialMovingAverage
from models.image_pool import ImagePool
from models.losses import objective_named
from models.mr_to_ct.discriminator import PatchDiscriminator
from models.mr_to_ct.generator import UNetGenerator
from models.mr_to_ct.step import MRToCTBatch, MRToCTNetworks, MRToCTStep
from models.mr_to_ct.step_settings import MRToCTStepSettings

SIDE, BATCH, WIDTH, DISCRIMINATOR_WIDTH, DEPTH = 96, 2, 24, 32, 3
RATE, BETAS, CYCLE, IDENTITY = 2e-4, (0.5, 0.999), 10.0, 5.0


def run(peer: Path | None = None) -> list[Comparison]:
    """One comparison."""
    rng = torch.Generator().manual_seed(0)
    translators = [UNetGenerator(1, 1, rng, width=WIDTH, depth=DEPTH) for _ in range(2)]
    judges = [PatchDiscriminator(1, rng, width=DISCRIMINATOR_WIDTH) for _ in range(2)]
    mr, ct = (torch.rand(BATCH, 1, SIDE, SIDE, generator=rng) * 2 - 1 for _ in range(2))
    if peer is None:
        name, their = "plain PyTorch loop", _plain_step(deepcopy(translators), deepcopy(judges))
    else:
        build = build_step_of(peer)
        name, their = peer.stem, build(channels=1, width=WIDTH, discriminator_width=DISCRIMINATOR_WIDTH)
    settings = MRToCTStepSettings(
        lambda_cycle=CYCLE, lambda_identity=IDENTITY / CYCLE, learning_rate_generator=RATE,
        learning_rate_discriminator=RATE, betas=BETAS,
    )  # fmt: skip
    networks = MRToCTNetworks(translators[0], translators[1], judges[0], judges[1])
    step = MRToCTStep(networks, settings, torch.Generator().manual_seed(1))
    mask = torch.ones_like(mr)
    batch = MRToCTBatch(mr, ct, mask, mask, torch.zeros(BATCH, dtype=torch.bool))
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
            "translation_step",
            f"one step of {BATCH} MR and {BATCH} CT patches of {SIDE} pixels, float32, CPU",
            Side("MRToCTStep", lambda: cpu_seconds(lambda: step.step(batch))),
            Side(name, lambda: cpu_seconds(lambda: their(mr, ct))),
            rounds=7,
            facts=facts,
            images=BATCH,
        )
    ]


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
