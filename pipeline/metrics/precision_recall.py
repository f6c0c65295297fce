"""Fidelity and diversity of a synthetic cohort on k-nearest-neighbor manifolds.

Around every image a ball reaches to its k-th nearest neighbor in its own cohort.

- precision: share of synthetic images inside any real ball (fidelity);
  recall: share of real images inside any synthetic ball (diversity).
  Kynkäänniemi et al., NeurIPS 2019.
- density: mean over synthetic images of the number of real balls around them, divided by k;
  coverage: share of real balls that hold a synthetic image.
  Naeem et al., ICML 2020; less at the mercy of outliers, whose balls are huge. Density can exceed 1.

Precision alone misleads: noise and featureless images can score high. Recall and coverage carry the verdict.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from pipeline.errors import InputError
from pipeline.metrics.kid import Features, Matrix, checked_cohorts

ROWS = 128
"""Rows of a matrix of distances held at a time: 5 MB of 10 000 images."""

FLOAT64_IMAGES = 2000
"""Larger cohorts are compared in float32: twice as fast, and shares differ by some images in a thousand at most."""


@dataclass(frozen=True)
class ManifoldScores:
    """Scores for one k.

    Args:
        precision: in [0, 1].
        recall: in [0, 1].
        density: at least 0, may exceed 1.
        coverage: in [0, 1].
        k: neighbors that set the radius of a ball.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    k: int


def manifold_scores(real: Features, synthetic: Features, k: int = 5) -> ManifoldScores:
    """Precision, recall, density and coverage in Euclidean distance.

    Args:
        real: (m, d) features, m larger than k.
        synthetic: (n, d) features, n larger than k.
        k: neighbors, at least 1; 3 and 5 are usual.

    Raises:
        InputError: a cohort is too small, numbers of features differ, or a value is not finite.
    """
    hits = manifold_hits(real, synthetic, k)
    return ManifoldScores(
        precision=float(hits.precise.mean()),
        recall=float(hits.recalled.mean()),
        density=float(hits.density.mean()),
        coverage=float(hits.covered.mean()),
        k=k,
    )


@dataclass(frozen=True)
class ManifoldHits:
    """What the scores are means of, image by image, so that an interval can draw subjects.

    Args:
        precise: (n,) bool, synthetic image inside any real ball.
        density: (n,) number of real balls around the synthetic image, over k.
        recalled: (m,) bool, real image inside any synthetic ball.
        covered: (m,) bool, ball of the real image holds a synthetic image.
    """

    precise: npt.NDArray[np.bool_]
    density: npt.NDArray[np.float64]
    recalled: npt.NDArray[np.bool_]
    covered: npt.NDArray[np.bool_]


def manifold_hits(real: Features, synthetic: Features, k: int = 5) -> ManifoldHits:
    """The hits behind `manifold_scores`, chunk by chunk: memory grows with m + n, not with m · n.

    Raises:
        InputError: as `manifold_scores`.
    """
    if k < 1:
        raise InputError(
            "A ball needs a neighbor to reach to.", found=f"k {k}", allowed="k >= 1", change="Use k 3 or 5."
        )
    x, y = checked_cohorts(real, synthetic, smallest=k + 1)
    center = x.mean(axis=0)
    dtype = np.float32 if max(len(x), len(y)) > FLOAT64_IMAGES else np.float64
    x, y = (x - center).astype(dtype), (y - center).astype(dtype)
    radius_x, radius_y = _squared_radii(x, k), _squared_radii(y, k)
    left, right = _factors(x, y)
    balls = np.zeros(len(y), np.int64)
    recalled, covered = np.zeros(len(x), np.bool_), np.zeros(len(x), np.bool_)
    for start in range(0, len(x), ROWS):
        rows = slice(start, start + ROWS)
        squared = left[rows] @ right
        in_real_ball = squared <= radius_x[rows, None]
        balls += np.count_nonzero(in_real_ball, axis=0)
        covered[rows] = in_real_ball.any(axis=1)
        recalled[rows] = (squared <= radius_y[None, :]).any(axis=1)
    return ManifoldHits(balls > 0, balls / k, recalled, covered)


def distances(x: Matrix, y: Matrix) -> Matrix:
    """Euclidean distances (m, n) between rows of (m, d) and (n, d), float64.

    Both are centered first: the squares in ‖x‖² + ‖y‖² − 2xᵀy then lose no digits to a common offset.
    """
    center = x.mean(axis=0)
    x, y = x - center, y - center
    squared = np.square(x).sum(axis=1)[:, None] + np.square(y).sum(axis=1)[None, :] - 2 * (x @ y.T)
    return np.asarray(np.sqrt(np.clip(squared, 0, None)))


def _factors(x: Features, y: Features) -> tuple[Features, Features]:
    """(x, ‖x‖², 1) and (−2 y, 1, ‖y‖²)ᵀ: their product is the squared distance, in one pass over the memory."""
    norms = [np.square(side).sum(axis=1, keepdims=True) for side in (x, y)]
    left = np.hstack((x, norms[0], np.ones_like(norms[0])))
    right = np.hstack((-2 * y, np.ones_like(norms[1]), norms[1]))
    return left, np.ascontiguousarray(right.T)


def _squared_radii(x: Features, k: int) -> Features:
    """Squared distance of every row to its k-th nearest other row; rounding below 0 is cut off.

    `topk` takes a quarter of the time of NumPy's partition where AVX-512 is slow to write.
    """
    left, right = _factors(x, x)
    radii = np.empty(len(x), x.dtype)
    for start in range(0, len(x), ROWS):
        rows = slice(start, min(start + ROWS, len(x)))
        squared = left[rows] @ right
        squared[np.arange(len(squared)), np.arange(rows.start, rows.stop)] = np.inf
        nearest = torch.from_numpy(squared).topk(k, dim=1, largest=False, sorted=False).values
        radii[rows] = nearest.amax(dim=1).numpy()
    return np.maximum(radii, 0)
