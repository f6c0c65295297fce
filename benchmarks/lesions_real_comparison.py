"""Difference of two arms in macro AUC, with an interval over test images and seeds drawn together."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.metrics.resampled_classification import SCORES, resampled_scores

Matrix = npt.NDArray[np.float64]
_AUC = SCORES.index("macro_auc")


def paired_difference(
    truth: npt.NDArray[np.int64], first: Matrix, second: Matrix, *, resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Mean macro AUC over seeds of the second arm minus that of the first.

    A resample draws images and seeds with replacement, the same for both arms; the interval is that of its 2.5th to
    97.5th percentile (Efron and Tibshirani 1993, chapter 13).

    Args:
        truth: (N,) classes.
        first: (S, N, C) probabilities of the first arm, one classifier a seed.
        second: same shape; a seed's classifiers of both arms began with the same weights.
        resamples: drawn.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(truth), np.full(len(truth), 1 / len(truth)), size=resamples).astype(np.float64)
    weights = np.vstack([np.ones(len(truth)), weights])
    aucs = np.stack(
        [[resampled_scores(truth, one, weights)[:, _AUC] for one in arm] for arm in (first, second)]
    )  # (2, S, 1 + R)
    seeds = rng.multinomial(len(first), np.full(len(first), 1 / len(first)), size=resamples) / len(first)
    drawn = (aucs[:, :, 1:] * seeds.T).sum(axis=1)
    low, high = np.nanpercentile(drawn[1] - drawn[0], [2.5, 97.5])
    means = aucs[:, :, 0].mean(axis=1)
    return {
        "macro_auc": [float(mean) for mean in means],
        "difference": float(means[1] - means[0]),
        "interval": [float(low), float(high)],
        "seeds": len(first),
        "images": len(truth),
        "resamples": resamples,
    }


def kept_answers(folder: Path, split: str, arm: str, seeds: int) -> Matrix:
    """(S, N, C) probabilities that `lesions_real arms` kept."""
    return np.stack([np.load(folder / f"{split}-{arm}-{seed}.npy") for seed in range(seeds)])
