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

from pipeline.errors import InputError
from pipeline.metrics.kid import Features, Matrix, checked_cohorts


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
    if k < 1:
        raise InputError(
            "A ball needs a neighbor to reach to.", found=f"k {k}", allowed="k >= 1", change="Use k 3 or 5."
        )
    x, y = checked_cohorts(real, synthetic, smallest=k + 1)
    radius_x, radius_y = _radii(x, k), _radii(y, k)
    between = distances(x, y)
    in_real_ball, in_synthetic_ball = between <= radius_x[:, None], between <= radius_y[None, :]
    return ManifoldScores(
        precision=float(in_real_ball.any(axis=0).mean()),
        recall=float(in_synthetic_ball.any(axis=1).mean()),
        density=float(in_real_ball.sum(axis=0).mean() / k),
        coverage=float(in_real_ball.any(axis=1).mean()),
        k=k,
    )


def distances(x: Matrix, y: Matrix) -> Matrix:
    """Euclidean distances (m, n) between rows of (m, d) and (n, d), float64.

    Both are centered first: the squares in ‖x‖² + ‖y‖² − 2xᵀy then lose no digits to a common offset.
    """
    center = x.mean(axis=0)
    x, y = x - center, y - center
    squared = np.square(x).sum(axis=1)[:, None] + np.square(y).sum(axis=1)[None, :] - 2 * (x @ y.T)
    return np.asarray(np.sqrt(np.clip(squared, 0, None)))


def _radii(x: Matrix, k: int) -> Matrix:
    """Distance of every row to its k-th nearest other row."""
    own = distances(x, x)
    np.fill_diagonal(own, np.inf)
    return np.asarray(np.partition(own, k - 1, axis=1)[:, k - 1])
