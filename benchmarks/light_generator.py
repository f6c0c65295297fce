"""CPU seconds that the light generator and the generator of 2017 take to an equal error on real head pairs.

``SCANLOOM_TEST_DATA`` names the folder that holds `mr_ct_head_pairs`; two of its six cases test. Both learn slices of
128 pixels from pairs with L1 alone, one slice at a time in the same order, each at the learning rate of its preset. The
generator of 2017 trains for a fixed time; its mean absolute error (grey levels, inside the outline) at the end is the
mark. Errors are those of the same slices of the test cases, and do not count as training time.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.comparison import Comparison
from benchmarks.translation_real_data import Case, mr_units, read_head_pairs
from models.mr_to_ct.generator import Translator
from models.mr_to_ct.light import LightGenerator
from models.mr_to_ct.resnet_2017 import ResNet2017
from models.optimization import build_adam
from pipeline.intensity import GREY_MAP

DATA = "SCANLOOM_TEST_DATA"
SECONDS, SCORES, EVERY_SLICE = 90.0, 3, 6
LIGHT_SCORED_EVERY_S = 2.0
RATE, LIGHT_RATE, BETAS = 2e-4, 1e-3, (0.5, 0.999)


@dataclass(frozen=True)
class Slices:
    """Slices of cases.

    Attributes:
        mr, ct: (N, 1, H, W) units.
        outline: (N, 1, H, W), where errors count.
    """

    mr: Tensor
    ct: Tensor
    outline: Tensor


@dataclass(frozen=True)
class Score:
    """The error after some training."""

    cpu_s: float
    images: int
    mae: float


def run() -> list[Comparison]:
    """One comparison; none where there are no pairs."""
    folder = Path(os.environ.get(DATA, "")) / "mr_ct_head_pairs"
    if not folder.is_dir():
        print(f"light_generator: skipped, {DATA} names no folder with mr_ct_head_pairs", flush=True)
        return []
    train, test = read_head_pairs(folder).split(0)
    learned, scored = _slices(train, 1), _slices(test, EVERY_SLICE)
    rng = torch.Generator().manual_seed(0)
    curve = list(scores(ResNet2017(1, 1, rng), RATE, learned, scored, SECONDS / SCORES, SECONDS))
    mark = curve[-1].mae
    light = []
    for score in scores(LightGenerator(1, 1, rng), LIGHT_RATE, learned, scored, LIGHT_SCORED_EVERY_S, SECONDS):
        light.append(score)
        if score.mae <= mark:
            break
    facts = {
        "mae": mark,
        "reached": light[-1].mae <= mark,
        "images": light[-1].images,
        "peer_images": curve[-1].images,
        "curve": [vars(score) for score in light],
        "peer_curve": [vars(score) for score in curve],
    }
    work = f"CPU seconds of training to a mean absolute error of {mark:.1f} grey levels on head pairs"
    seconds = ([light[-1].cpu_s], [curve[-1].cpu_s])
    return [Comparison("light_generator", work, "light", "resnet_2017", seconds, facts)]


def scores(
    network: Translator, rate: float, learned: Slices, scored: Slices, every_s: float, limit_s: float
) -> Iterator[Score]:
    """Train, and tell the error after every ``every_s`` seconds of CPU until ``limit_s``."""
    adam = build_adam(network.parameters(), rate, BETAS)
    order = torch.Generator().manual_seed(1)
    spent, images, told = 0.0, 0, 0
    while spent < limit_s:
        start = time.process_time()
        row = torch.randint(len(learned.mr), (1,), generator=order)
        loss = (network(learned.mr[row]) - learned.ct[row]).abs().mean()
        adam.zero_grad()
        torch.autograd.backward(loss)
        adam.step()
        spent, images = spent + time.process_time() - start, images + 1
        if spent >= (told + 1) * every_s:
            told = int(spent / every_s)
            yield Score(round(spent, 2), images, mae(network, scored))


@torch.inference_mode()
def mae(network: Translator, slices: Slices) -> float:
    """Mean absolute error in grey levels inside the outline."""
    made = np.concatenate([GREY_MAP.decode(network(one).numpy()) for one in slices.mr.split(1)])
    truth = GREY_MAP.decode(slices.ct.numpy())
    return float(np.abs(made - truth)[slices.outline.numpy()].mean())


def _slices(cases: list[Case], every: int) -> Slices:
    mr = np.concatenate([mr_units(case)[0][::every] for case in cases])
    ct = np.concatenate([GREY_MAP.encode(case.ct)[::every] for case in cases])
    outline = np.concatenate([case.outline[::every] for case in cases])
    return Slices(*(torch.from_numpy(np.ascontiguousarray(part))[:, None] for part in (mr, ct, outline)))
