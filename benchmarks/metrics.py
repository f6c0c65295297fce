"""Metrics beside the libraries that people take them from: (MS-)SSIM (MONAI), KID (torchmetrics), FID (scipy), PRDC.

MS-SSIM: a volume of 96 × 96 × 40 voxels, padded to 112 along every axis, the smallest cube that MONAI takes for five
scales (ours would pad to 97 by itself); uniform windows of 7, as SynthRAD2025 scores. The values differ a little
(border and halving), and are kept with the times.
KID: 1000 and 1000 feature vectors of 256 numbers, 50 subsets of 500; both sides estimate the same quantity.
FID: 4096 and 4096 vectors of 2048 numbers; the peer is the usual formula with `scipy.linalg.sqrtm`. Once all of it
(`fid`), once the trace of the root alone from covariances that are known (`fid_trace`), and once of 500 and 500 images
(`fid_few_images`), fewer than features. SSIM: one volume of 128³. Precision, recall, density and coverage: 5000
and 5000 vectors of 64 numbers beside the code of its authors. How the cost of KID and of PRDC grows with images is kept
as an exponent.

One thread on both sides: a thread that waits for another counts as CPU too, and would flatter whoever waits less.
``python -m benchmarks.metrics --out docs/results`` keeps all of them in one file, ``metrics.json``.
"""

import argparse
import contextlib
import io
import math
import statistics
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
import torch
from threadpoolctl import threadpool_limits

from benchmarks.comparison import Comparison, Side, compare, cpu_seconds
from pipeline.files import write_json
from pipeline.metrics.fid import fid, trace_of_root
from pipeline.metrics.kid import kid
from pipeline.metrics.ms_ssim import ms_ssim
from pipeline.metrics.pairs import DIALECTS
from pipeline.metrics.precision_recall import manifold_scores
from pipeline.metrics.ssim import ssim

SHAPE = (96, 96, 40)
MONAI_EDGE = 112
RANGE = DIALECTS["synthrad2025-container"]
FEATURES, IMAGES, SUBSETS, SUBSET_SIZE = 256, 1000, 50, 500


def run() -> list[Comparison]:
    """Seven comparisons."""
    return list(_each())


def _each() -> Iterator[Comparison]:
    """One after the other, on one thread."""
    with threadpool_limits(1):
        for measure in (_ms_ssim, _ssim, _kid, _prdc, _fid_trace):
            yield measure()
        for count, rounds in ((4096, 2), (500, 1)):
            yield _fid(count, rounds)


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
        facts={"value": ours(), "peer_value": peer(), "exponent_from_1000_to_2000": _exponent(_kid_cost, 1000)},
    )


def _exponent(cost: Callable[[int], float], images: int) -> float:
    """Growth e of cost ~ imagesᵉ between ``images`` and twice as many, from medians of five rounds in turn."""
    cost(images)
    double, single = zip(*((cost(2 * images), cost(images)) for _ in range(5)), strict=True)
    return math.log2(statistics.median(double) / statistics.median(single))


def _kid_cost(images: int) -> float:
    """Seconds of CPU of KID of as many real and synthetic images, in subsets of half of them."""
    rng = np.random.default_rng(2)
    real, synthetic = (rng.normal(shift, 1, (images, FEATURES)).astype(np.float32) for shift in (0.0, 0.1))
    return cpu_seconds(lambda: kid(real, synthetic, rng, subsets=SUBSETS))


def _ssim() -> Comparison:
    from monai.metrics import SSIMMetric

    rng = np.random.default_rng(0)
    ct = rng.integers(-1000, 1500, (128, 128, 128)).astype(np.float32)
    pseudo_ct = ct + rng.normal(0, 80, ct.shape).astype(np.float32)
    metric = SSIMMetric(spatial_dims=3, data_range=RANGE.width, kernel_type="uniform", win_size=7)
    tensors = [
        torch.from_numpy(np.clip(image, RANGE.low, RANGE.high) - np.float32(RANGE.low))[None, None]
        for image in (pseudo_ct, ct)
    ]

    def peer() -> float:
        metric.reset()
        return float(metric(*tensors))

    return compare(
        "ssim",
        "SSIM of one volume of 128 x 128 x 128, uniform window of 7",
        Side("pipeline.metrics.ssim", lambda: cpu_seconds(lambda: ssim(ct, pseudo_ct, None, RANGE))),
        Side(f"MONAI {version('monai')} SSIMMetric", lambda: cpu_seconds(peer)),
        rounds=3,
        facts={"value": ssim(ct, pseudo_ct, None, RANGE), "peer_value": peer()},
    )


def _sqrtm_trace(first: Any, second: Any) -> float:
    return float(np.trace(np.real(scipy.linalg.sqrtm(first @ second))))


def _fid(count: int, rounds: int) -> Comparison:
    rng = np.random.default_rng(0)
    real, synthetic = rng.normal(0, 1, (count, 2048)), rng.normal(0.1, 1.1, (count, 2048))
    values: dict[str, float] = {}

    def ours() -> None:
        values["value"] = fid(real, synthetic).value

    def peer() -> None:
        means = [side.mean(axis=0) for side in (real, synthetic)]
        covariances = [np.cov(side, rowvar=False) for side in (real, synthetic)]
        traces = sum(np.trace(covariance) for covariance in covariances)
        root = _sqrtm_trace(*covariances)
        values["peer_value"] = float(np.square(means[0] - means[1]).sum() + traces - 2 * root)

    return compare(
        "fid" if count >= 2048 else "fid_few_images",
        f"FID of {count} and {count} vectors of 2048",
        Side("pipeline.metrics.fid", lambda: cpu_seconds(ours)),
        Side(f"scipy {version('scipy')} sqrtm", lambda: cpu_seconds(peer)),
        rounds=rounds,
        warm_up=0,
        facts=values,
    )


def _fid_trace() -> Comparison:
    rng = np.random.default_rng(0)
    features = (rng.normal(0, spread, (4096, 2048)) for spread in (1, 1.1))
    first, second = (np.asfortranarray(np.cov(side, rowvar=False)) for side in features)  # as in `fid`
    values: dict[str, float] = {}

    def ours() -> None:
        values["value"] = trace_of_root(first, second)

    def peer() -> None:
        values["peer_value"] = _sqrtm_trace(first, second)

    return compare(
        "fid_trace",
        "trace of the root of the product of two 2048 x 2048 covariances",
        Side("pipeline.metrics.fid.trace_of_root", lambda: cpu_seconds(ours)),
        Side(f"scipy {version('scipy')} sqrtm", lambda: cpu_seconds(peer)),
        rounds=3,
        warm_up=0,
        facts=values,
    )


def _prdc() -> Comparison:
    from prdc import compute_prdc

    rng = np.random.default_rng(0)
    real, synthetic = (rng.normal(shift, 1, (10_000, 64)).astype(np.float32) for shift in (0.0, 0.1))

    def ours(count: int) -> float:
        return cpu_seconds(lambda: manifold_scores(real[:count], synthetic[:count], 5))

    def peer() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            compute_prdc(real[:5000], synthetic[:5000], 5)

    return compare(
        "prdc",
        "precision, recall, density and coverage of 5000 and 5000 vectors of 64",
        Side("pipeline.metrics.precision_recall", lambda: ours(5000)),
        Side(f"prdc {version('prdc')}", lambda: cpu_seconds(peer)),
        rounds=3,
        facts={"exponent_from_5000_to_10000": _exponent(ours, 5000)},
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.metrics", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("bench-out"), help="folder of the JSON file")
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    command = f"python -m benchmarks.metrics --out {folder}"
    kept: dict[str, Any] = {}
    for comparison in _each():
        print(comparison.line(), flush=True)
        kept[comparison.name] = comparison.content(command)
        write_json(folder / "metrics.json", kept)


if __name__ == "__main__":
    main()
