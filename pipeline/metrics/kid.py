"""Kernel distance between two cohorts in feature space: the unbiased squared maximum mean discrepancy.

    k(x, y) = (xᵀy / d + 1)³
    MMD² = Σ_{i≠j} k(x_i, x_j) / (m(m−1)) + Σ_{i≠j} k(y_i, y_j) / (n(n−1)) − 2 Σ_{ij} k(x_i, y_j) / (m n)

Bińkowski et al., "Demystifying MMD GANs", ICLR 2018 (KID); estimator of Gretton et al., JMLR 13:723, 2012. Unlike FID
it has no bias in small cohorts, so that values near 0, also below, mean "no difference seen". The features decide what
is seen: name the extractor beside the value.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError

Features = npt.NDArray[np.floating]
Matrix = npt.NDArray[np.float64]

ROWS = 1024
"""Rows of a kernel matrix held at a time."""


@dataclass(frozen=True)
class KernelDistance:
    """KID over random subsets.

    Args:
        value: mean of MMD² over the subsets.
        deviation: standard deviation over the subsets, the ± that papers print.
        standard_error: deviation / √subsets, the error of the mean from drawing finitely many subsets. It does not
            cover the choice of subjects: bootstrap those.
        subsets: number of subsets.
        subset_size: images of each cohort in a subset.
    """

    value: float
    deviation: float
    standard_error: float
    subsets: int
    subset_size: int


def mmd2_unbiased(real: Features, synthetic: Features) -> float:
    """Unbiased MMD² of all images with the cubic kernel.

    Args:
        real: (m, d) features, m at least 2.
        synthetic: (n, d) features, n at least 2.

    Raises:
        InputError: numbers of features differ, a cohort has fewer than two images, or a value is not finite.
    """
    x, y = checked_cohorts(real, synthetic, smallest=2)
    chosen_x, chosen_y = np.ones((1, len(x))), np.ones((1, len(y)))
    return float(_subset_mmd2(x, y, chosen_x, chosen_y)[0])


def kid(
    real: Features,
    synthetic: Features,
    rng: np.random.Generator,
    *,
    subsets: int = 100,
    subset_size: int | None = None,
) -> KernelDistance:
    """KID: mean and spread of MMD² over random subsets, drawn without replacement within a subset.

    Args:
        real: (m, d) features.
        synthetic: (n, d) features.
        rng: source of the subsets.
        subsets: number of subsets, at least 2.
        subset_size: images of each cohort in a subset; None takes half of the smaller cohort, 1000 at most.

    Raises:
        InputError: numbers of features differ, a value is not finite, or the sizes do not fit the cohorts.
    """
    x, y = checked_cohorts(real, synthetic, smallest=2)
    smaller = min(len(x), len(y))
    size = max(2, min(1000, smaller // 2)) if subset_size is None else subset_size
    if not 2 <= size <= smaller or subsets < 2:
        raise InputError(
            "KID draws subsets from both cohorts.",
            found=f"subset_size {size}, subsets {subsets}; cohorts of {len(x)} and {len(y)}",
            allowed=f"2 <= subset_size <= {smaller}, subsets >= 2",
            change="Make the subsets smaller, or the cohorts larger.",
        )
    values = _subset_mmd2(x, y, _draw(len(x), size, subsets, rng), _draw(len(y), size, subsets, rng))
    deviation = float(values.std(ddof=1))
    return KernelDistance(float(values.mean()), deviation, deviation / subsets**0.5, subsets, size)


def kid_interval(
    real: Features,
    synthetic: Features,
    subjects: Sequence[str],
    rng: np.random.Generator,
    *,
    resamples: int = 500,
    confidence: float = 0.95,
    most: int = 2000,
) -> tuple[float, float]:
    """Percentile bootstrap interval of MMD² over real subjects and synthetic images.

    Whole subjects of the real cohort and single synthetic images are drawn with replacement. A resample weighs pairs of
    images by how often both were drawn and leaves out pairs of an image with itself, so that repeats do not count as
    closeness (weighted U-statistic).

    Args:
        real: (m, d) features, of two subjects at least.
        synthetic: (n, d) features, n at least 2.
        subjects: subject of every real image.
        rng: source of the resamples.
        resamples: number of resamples, at least 100.
        confidence: share of resamples inside the interval.
        most: larger cohorts are thinned at random to this number, which widens the interval.

    Raises:
        InputError: as `mmd2_unbiased`, or fewer than two subjects or 100 resamples.
    """
    x, y = checked_cohorts(real, synthetic, smallest=2)
    kept_x, kept_y = (np.sort(rng.permutation(len(side))[:most]) for side in (x, y))
    x, y = x[kept_x], y[kept_y]
    _, owner = np.unique(np.asarray(subjects)[kept_x], return_inverse=True)
    count = int(owner.max()) + 1
    if count < 2 or resamples < 100 or not 0 < confidence < 1:
        raise InputError(
            "A bootstrap draws subjects with replacement.",
            found=f"{count} subjects, {resamples} resamples, confidence {confidence}",
            allowed="at least 2 subjects and 100 resamples, 0 < confidence < 1",
            change="Evaluate on more subjects, or correct the settings.",
        )
    drawn = np.stack([np.bincount(rng.integers(count, size=count), minlength=count) for _ in range(resamples)])
    weight_x = drawn[:, owner].astype(np.float64)
    weight_y = np.stack([np.bincount(rng.integers(len(y), size=len(y)), minlength=len(y)) for _ in range(resamples)])
    values = _weighted_mmd2(x, y, weight_x, weight_y.astype(np.float64))
    usable = values[np.isfinite(values)]
    low, high = np.quantile(usable, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _weighted_mmd2(x: Matrix, y: Matrix, weight_x: Matrix, weight_y: Matrix) -> Matrix:
    """Unbiased MMD² of every row of weights; NaN where all weight lies on one image."""

    def within(z: Matrix, weight: Matrix) -> Matrix:
        own = np.square(weight)
        pairs = weight.sum(axis=1) ** 2 - own.sum(axis=1)
        sums = _kernel_sums(z, z, weight, weight) - own @ _kernel_diagonal(z)
        return np.asarray(np.divide(sums, pairs, out=np.full(len(sums), np.nan), where=pairs > 0))

    between = _kernel_sums(x, y, weight_x, weight_y) / (weight_x.sum(axis=1) * weight_y.sum(axis=1))
    return np.asarray(within(x, weight_x) + within(y, weight_y) - 2 * between)


def checked_cohorts(real: Features, synthetic: Features, smallest: int) -> tuple[Matrix, Matrix]:
    """Both cohorts as float64 after the checks that cohort metrics share.

    Raises:
        InputError: not (n, d) with one d, fewer than `smallest` images, or a value that is not finite.
    """
    x, y = np.asarray(real, dtype=np.float64), np.asarray(synthetic, dtype=np.float64)
    shapes_fit = x.ndim == y.ndim == 2 and x.shape[1] == y.shape[1] > 0
    if shapes_fit and min(len(x), len(y)) >= smallest and np.isfinite(x).all() and np.isfinite(y).all():
        return x, y
    raise InputError(
        "Cohorts are compared in features of one extractor.",
        found=f"real {x.shape}, synthetic {y.shape}, all finite: {bool(np.isfinite(x).all() and np.isfinite(y).all())}",
        allowed=f"(n, d) with the same d, at least {smallest} images each, finite values",
        change="Embed both cohorts with the same extractor; enlarge the smaller one.",
    )


def _draw(count: int, size: int, subsets: int, rng: np.random.Generator) -> Matrix:
    """(subsets, count) of 0 and 1 with `size` ones a row."""
    chosen = np.zeros((subsets, count))
    for row in chosen:
        row[rng.choice(count, size, replace=False)] = 1
    return chosen


def _subset_mmd2(x: Matrix, y: Matrix, chosen_x: Matrix, chosen_y: Matrix) -> Matrix:
    """MMD² of every subset: kernels are computed once, and summed over subsets as s K sᵀ."""
    m, n = chosen_x.sum(axis=1), chosen_y.sum(axis=1)
    within_x = _kernel_sums(x, x, chosen_x, chosen_x) - chosen_x @ _kernel_diagonal(x)
    within_y = _kernel_sums(y, y, chosen_y, chosen_y) - chosen_y @ _kernel_diagonal(y)
    between = _kernel_sums(x, y, chosen_x, chosen_y)
    return np.asarray(within_x / (m * (m - 1)) + within_y / (n * (n - 1)) - 2 * between / (m * n))


def _kernel_sums(x: Matrix, y: Matrix, chosen_x: Matrix, chosen_y: Matrix) -> Matrix:
    sums = np.zeros(len(chosen_x))
    for start in range(0, len(x), ROWS):
        rows = slice(start, start + ROWS)
        kernel = x[rows] @ y.T / x.shape[1] + 1
        kernel *= kernel * kernel
        sums += ((chosen_x[:, rows] @ kernel) * chosen_y).sum(axis=1)
    return sums


def _kernel_diagonal(x: Matrix) -> Matrix:
    return np.asarray((np.square(x).sum(axis=1) / x.shape[1] + 1) ** 3)
