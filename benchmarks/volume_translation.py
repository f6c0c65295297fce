"""Translation of a volume beside MONAI's sliding-window inference, and what faster paths change in HU.

A U-Net learns to make CT of MR from phantom heads for minutes (L1, windows of 128 pixels), so that errors mean
something; a further head of 256 x 256 pixels is translated. MONAI: windows of 128 pixels, Gaussian weights,
the overlap of the plan beside it, one window at once, which is its fastest on a CPU. Ours: the same windows, over the
body alone (the default), with half overlap, and the faster paths. Facts of each: its mean absolute error (MAE) against
the phantom's CT inside the body, and how far that is from the default's, which must be 1 HU at most for a faster path
to be taken.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.comparison import Comparison, Side, compare, cpu_seconds
from models.mr_to_ct.generator import UNetGenerator
from pipeline.body_mask import BODY_MARGIN_PX, dilate_in_plane, mr_body_mask
from pipeline.inference import Member, SourceVolume, WindowPlan, translate_slices
from pipeline.intensity import CT_MAP, robust_mr_scale
from pipeline.phantom import PhantomGrid, phantom_subject
from pipeline.prepared_set import to_slices
from pipeline.trained_models import TranslatorSettings

GRID = PhantomGrid((256, 256, 10), (1.0, 1.0, 14.0), (7.0, 12.0))
PATCH, WIDTH, DEPTH = 128, 24, 3
TRAINING, STEPS, BATCH, RATE = 4, 1600, 2, 1e-3
PLANS = {
    "windows": WindowPlan(),
    "windows_half_overlap": WindowPlan(overlap=0.5),
    "whole_slice": WindowPlan(whole_slice=True),
    "whole_slice_bfloat16": WindowPlan(whole_slice=True, bfloat16=True),
}
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class _Head:
    """Units of the MR, body and HU of the CT, (K, H, W)."""

    mr: npt.NDArray[np.float32]
    body: npt.NDArray[np.bool_]
    ct: npt.NDArray[np.int16]


def run() -> list[Comparison]:
    """One comparison a path."""
    network = _trained([_head(number) for number in range(TRAINING)])
    head = _head(TRAINING)
    settings = TranslatorSettings(generator="unet", width=WIDTH, slices=1, coordinates=False, patch_px=PATCH)
    member = Member(network, settings, network.divisor)
    near = dilate_in_plane(head.body, BODY_MARGIN_PX)
    source = SourceVolume(head.mr, head.body.astype(np.uint8), near, lambda units: units)
    peers = {
        name: Side(
            "MONAI sliding_window_inference", lambda plan=plan: cpu_seconds(lambda: _monai(network, head.mr, plan))
        )
        for name, plan in PLANS.items()
    }
    errors = {name: _error(head, _ours(source, member, plan)) for name, plan in PLANS.items()}
    facts = {"peer_mae_hu": _error(head, _monai(network, head.mr, WindowPlan())), "body_share": float(near.mean())}
    return [
        compare(
            f"volume_translation_{name}",
            f"{len(head.mr)} slices of 256 x 256 pixels, U-Net, CPU",
            Side(name.replace("_", " "), lambda plan=plan: cpu_seconds(lambda: _ours(source, member, plan))),
            peers[name],
            rounds=5,
            facts=facts | {"mae_hu": errors[name], "change_of_mae_hu": errors[name] - errors["windows"]},
            images=len(head.mr),
        )
        for name, plan in PLANS.items()
    ]


def _head(number: int) -> _Head:
    truth = phantom_subject(71, number, "HEAD", "T1", grid=GRID)
    mr = truth.mr.astype(np.float32)
    body = mr_body_mask(mr, GRID.spacing_mm).astype(bool)
    units = robust_mr_scale(mr, body).encode(mr)
    return _Head(to_slices(units), to_slices(body.astype(np.uint8)) > 0, to_slices(truth.ct_hu))


def _trained(heads: list[_Head]) -> UNetGenerator:
    rng = torch.Generator().manual_seed(0)
    network = UNetGenerator(1, 1, rng, width=WIDTH, depth=DEPTH)
    adam = torch.optim.Adam(network.parameters(), lr=RATE)
    for _ in range(STEPS):
        mr, ct = _patches(heads, rng)
        loss = (network(mr) - ct).abs().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return network.eval()


def _patches(heads: list[_Head], rng: torch.Generator) -> tuple[Tensor, Tensor]:
    pairs = []
    for _ in range(BATCH):
        head = heads[int(torch.randint(len(heads), (1,), generator=rng))]
        k, top, left = (int(torch.randint(limit, (1,), generator=rng)) for limit in (len(head.mr), 129, 129))
        cut = (k, slice(top, top + PATCH), slice(left, left + PATCH))
        pairs.append((torch.from_numpy(head.mr[cut]), torch.from_numpy(CT_MAP.encode(head.ct[cut]))))
    mr, ct = (torch.stack(list(part))[:, None] for part in zip(*pairs, strict=True))
    return mr, ct


def _ours(source: SourceVolume, member: Member, plan: WindowPlan) -> npt.NDArray[np.float32]:
    indices = [index for index in range(len(source.near)) if source.near[index].any()]
    found = np.full(source.stored.shape, -1000.0, np.float32)
    for index, hu in zip(indices, translate_slices(source, member, plan, CT_MAP.decode, _CPU, indices), strict=True):
        found[index] = hu
    return found


@torch.inference_mode()
def _monai(
    network: Callable[[Tensor], Tensor], mr: npt.NDArray[np.float32], plan: WindowPlan
) -> npt.NDArray[np.float32]:
    from monai.inferers import sliding_window_inference

    slices: list[Any] = [
        sliding_window_inference(
            torch.from_numpy(one[None, None]), PATCH, 1, network, overlap=plan.overlap, mode="gaussian"
        )
        for one in mr
    ]
    return CT_MAP.decode(torch.cat(slices)[:, 0].numpy())


def _error(head: _Head, hu: npt.NDArray[np.float32]) -> float:
    return float(np.abs(hu - head.ct)[head.body].mean())
