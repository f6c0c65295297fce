"""Metrics beside the libraries that people take them from: MS-SSIM (MONAI) and KID (torchmetrics).

MS-SSIM: a volume of 96 × 96 × 40 voxels, padded to 112 along every axis, the smallest cube that MONAI takes for five
scales (ours would pad to 97 by itself); uniform windows of 7, as SynthRAD2025 scores. The values differ a little
(border and halving), and are kept with the times.
KID: 1000 and 1000 feature vectors of 256 numbers, 50 subsets of 500; both sides estimate the same quantity.
"""

import warnings
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from benchmarks.comparison import Comparison, Side, compare, cpu_seconds
from pipeline.metrics.kid import kid
from pipeline.metrics.ms_ssim import ms_ssim
from pipeline.metrics.pairs import DIALECTS

SHAPE = (96, 96, 40)
MONAI_EDGE = 112
RANGE = DIALECTS["synthrad2025-container"]
FEATURES, IMAGES, SUBSETS, SUBSET_SIZE = 256, 1000, 50, 500


def run() -> list[Comparison]:
    """Two comparisons."""
    return [_ms_ssim(), _kid()]


def _ms_ssim() -> Comparison:
    from monai.metrics import MultiScaleSSIMMetric

    rng = np.random.default_rng(0)
    own_ct = rng.integers(-1000, 1500, SHAPE).astype(np.float32)
    own_pseudo_ct = own_ct + rng.normal(0, 80, SHAPE).astype(np.float32)
    padding = [((MONAI_EDGE - edge) // 2, (MONAI_EDGE - edge) // 2) for edge in SHAPE]
    ct, pseudo_ct = (np.pad(image, padding, mode="edge") for image in (own_ct, own_pseudo_ct))
    metric = MultiScaleSSIMMetric(spatial_dims=3, data_range=RANGE.width, kernel_type="uniform", kernel_size=7)

    def tensor(image: Any) -> torch.Tensor:
        return torch.from_numpy(np.clip(image, RANGE.low, RANGE.high) - np.float32(RANGE.low))[None, None]

    def peer() -> float:
        metric.reset()
        return float(metric(tensor(pseudo_ct), tensor(ct)))

    facts = {
        "value": ms_ssim(ct, pseudo_ct, None, RANGE, "coarsest_only"),
        "peer_value": peer(),
        "cpu_seconds_without_the_padding": cpu_seconds(lambda: ms_ssim(own_ct, own_pseudo_ct, None, RANGE)),
    }
    return compare(
        "ms_ssim",
        f"MS-SSIM of one 96 x 96 x 40 volume padded to {MONAI_EDGE} along every axis",
        Side("pipeline.metrics.ms_ssim", lambda: cpu_seconds(lambda: ms_ssim(ct, pseudo_ct, None, RANGE))),
        Side(f"MONAI {version('monai')} MultiScaleSSIMMetric", lambda: cpu_seconds(peer)),
        rounds=5,
        facts=facts,
    )


def _kid() -> Comparison:
    from torchmetrics.image.kid import KernelInceptionDistance

    rng = np.random.default_rng(0)
    real = rng.normal(0, 1, (IMAGES, FEATURES)).astype(np.float32)
    synthetic = rng.normal(0.1, 1, (IMAGES, FEATURES)).astype(np.float32)

    def ours() -> float:
        return kid(real, synthetic, np.random.default_rng(1), subsets=SUBSETS, subset_size=SUBSET_SIZE).value

    def peer() -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # says that all features are kept in memory
            metric = KernelInceptionDistance(torch.nn.Identity(), subsets=SUBSETS, subset_size=SUBSET_SIZE)
        metric.update(torch.from_numpy(real), real=True)
        metric.update(torch.from_numpy(synthetic), real=False)
        return float(metric.compute()[0])

    return compare(
        "kid",
        f"KID of {IMAGES} and {IMAGES} vectors of {FEATURES}, {SUBSETS} subsets of {SUBSET_SIZE}",
        Side("pipeline.metrics.kid", lambda: cpu_seconds(ours)),
        Side(f"torchmetrics {version('torchmetrics')} KernelInceptionDistance", lambda: cpu_seconds(peer)),
        rounds=5,
        facts={"value": ours(), "peer_value": peer()},
    )
