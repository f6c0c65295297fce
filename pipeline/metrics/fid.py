"""Fréchet distance between two cohorts in feature space (FID), and its extrapolation to infinitely many images.

    FID = ‖μ_r − μ_f‖² + tr Σ_r + tr Σ_f − 2 tr (Σ_r Σ_f)^½,    Σ with 1/(n − 1)

Heusel et al., NeurIPS 2017; Dowson and Landau, J. Multivariate Anal. 12:450, 1982. The last trace is the sum of the
singular values of F_r F_fᵀ for any factors Σ = Fᵀ F: the centered features themselves, scaled, where there are
fewer images than features, else Cholesky factors, and then the roots of the eigenvalues of F_r Σ_f F_rᵀ are quicker. No
square root of a matrix is formed, and nothing becomes complex.

FID is biased upward in small cohorts, by about c/n, and c depends on the generator, so that values of different n do
not compare and may rank wrongly. FID∞ fits a line in 1/n through subsets and reads it at 1/n = 0 (Chong and Forsyth,
CVPR 2020). Below n ≈ d covariances are singular and the line bends: both results carry a flag, and KID is the better
choice. The features decide what is seen: name the extractor beside the value.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import eigvalsh
from scipy.linalg.blas import dsyrk
from scipy.linalg.lapack import dpotrf, dsygst

from pipeline.errors import InputError
from pipeline.metrics.kid import Features, Matrix, checked_cohorts

SubsetsOf = Literal["both", "synthetic"]
"""Which cohorts FID∞ thins: `synthetic` as published, `both` where the real cohort is small too."""


@dataclass(frozen=True)
class FrechetDistance:
    """FID and its two terms, in squared units of the features.

    Args:
        value: mean_term + covariance_term.
        mean_term: ‖μ_r − μ_f‖².
        covariance_term: tr Σ_r + tr Σ_f − 2 tr (Σ_r Σ_f)^½.
        real_images: m.
        synthetic_images: n.
        features: d.
        too_few: a cohort has fewer images than features, so that its covariance is singular and the bias is large:
            print the flag beside the value.
    """

    value: float
    mean_term: float
    covariance_term: float
    real_images: int
    synthetic_images: int
    features: int
    too_few: bool


@dataclass(frozen=True)
class ExtrapolatedDistance:
    """FID∞ and the line it was read from.

    Args:
        value: the line at 1/n = 0; may be slightly negative for equal distributions.
        slope: of FID in 1/n, the size of the bias.
        standard_error: of the intercept, from the scatter about the line. Subsets overlap and subjects are not
            redrawn, so that it is smaller than the true error: bootstrap subjects for an interval.
        sizes: images in each subset.
        distances: FID of each subset.
        subsets_of: the cohorts that were thinned.
        too_few: the smallest subset, or a cohort, has fewer images than features, where FID is not linear in 1/n.
    """

    value: float
    slope: float
    standard_error: float
    sizes: tuple[int, ...]
    distances: tuple[float, ...]
    subsets_of: SubsetsOf
    too_few: bool


def fid(real: Features, synthetic: Features) -> FrechetDistance:
    """FID of all images, in float64.

    Args:
        real: (m, d) features, m at least 2.
        synthetic: (n, d) features, n at least 2.

    Raises:
        InputError: numbers of features differ, a cohort has fewer than two images, or a value is not finite.
    """
    x, y = checked_cohorts(real, synthetic, smallest=2)
    return _distance(x, y)


def trace_of_root(first: Matrix, second: Matrix) -> float:
    """Trace of (Σ₁ Σ₂)^½, by the eigenvalues of Lᵀ Σ₂ L with Σ₁ = L Lᵀ.

    Args:
        first: (d, d) covariance, whose lower triangle is read.
        second: the same.
    """
    lower = _cholesky(first)
    if lower is None:
        return _sum_of_singular_values(_root_factor(first) @ _root_factor(second).T)
    congruent, _ = dsygst(second, lower, itype=2, lower=1)  # half the arithmetic of two products
    eigenvalues = eigvalsh(congruent, driver="evr", check_finite=False, overwrite_a=True)
    return float(np.sqrt(eigenvalues.clip(min=0)).sum())


def fid_infinity(
    real: Features,
    synthetic: Features,
    rng: np.random.Generator,
    *,
    subsets_of: SubsetsOf,
    points: int = 15,
    smallest: int | None = None,
) -> ExtrapolatedDistance:
    """FID∞: the intercept of a line in 1/n through FID of random subsets, evenly spaced in 1/n.

    Args:
        real: (m, d) features.
        synthetic: (n, d) features.
        rng: source of the subsets, each drawn without replacement.
        subsets_of: `synthetic` keeps all real images, so that the bias of the real cohort stays; `both` draws equally
            many of either and removes both biases.
        points: number of subsets, at least 3.
        smallest: images in the smallest subset. None takes a quarter of the largest, but 2 d (where FID starts to be
            linear in 1/n) if that is more, and half of the largest at most.

    Raises:
        InputError: numbers of features differ, a value is not finite, or the sizes do not fit the cohorts.
    """
    x, y = checked_cohorts(real, synthetic, smallest=2)
    largest = len(y) if subsets_of == "synthetic" else min(len(x), len(y))
    first = min(max(largest // 4, 2 * x.shape[1]), largest // 2) if smallest is None else smallest
    if not 2 <= first < largest or points < 3:
        raise InputError(
            "FID∞ fits a line through subsets of different sizes.",
            found=f"smallest {first}, points {points}; largest subset {largest}",
            allowed=f"2 <= smallest < {largest}, points >= 3",
            change="Make the smallest subset smaller, or the cohorts larger.",
        )
    sizes = np.rint(1 / np.linspace(1 / first, 1 / largest, points)).astype(np.int64)
    distances = np.array([_subset_distance(x, y, int(size), subsets_of, rng) for size in sizes])
    value, slope, error = _line(1 / sizes, distances)
    fewest = min(first, len(x))
    return ExtrapolatedDistance(
        value, slope, error, tuple(sizes.tolist()), tuple(distances.tolist()), subsets_of, fewest < x.shape[1]
    )


def _subset_distance(x: Matrix, y: Matrix, size: int, subsets_of: SubsetsOf, rng: np.random.Generator) -> float:
    drawn_y = y[rng.choice(len(y), size, replace=False)]
    drawn_x = x[rng.choice(len(x), size, replace=False)] if subsets_of == "both" else x
    return _distance(drawn_x, drawn_y).value


def _line(x: Matrix, y: Matrix) -> tuple[float, float, float]:
    """Intercept, slope and standard error of the intercept of the least-squares line."""
    center, spread = x.mean(), np.square(x - x.mean()).sum()
    slope = ((x - center) * (y - y.mean())).sum() / spread
    intercept = y.mean() - slope * center
    variance = np.square(y - intercept - slope * x).sum() / (len(x) - 2)
    return float(intercept), float(slope), float(np.sqrt(variance * (1 / len(x) + center**2 / spread)))


def _distance(x: Matrix, y: Matrix) -> FrechetDistance:
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    mean_term = float(np.square(mean_x - mean_y).sum())
    a, b = x - mean_x, y - mean_y
    (m, d), n = x.shape, len(y)
    traces = np.vdot(a, a) / (m - 1) + np.vdot(b, b) / (n - 1)
    # Rounding may leave a distance of equal cohorts at -1e-13; a squared distance is not negative.
    covariance_term = max(0.0, float(traces - 2 * _trace_by_features(a, b)))
    return FrechetDistance(mean_term + covariance_term, mean_term, covariance_term, m, n, d, min(m, n) < d)


def _trace_by_features(a: Matrix, b: Matrix) -> float:
    """Trace of (Σ_a Σ_b)^½ from centered features, by the smallest matrix that has its singular values."""
    if len(a) > len(b):
        a, b = b, a
    if len(a) >= a.shape[1]:
        return trace_of_root(_covariance(a), _covariance(b))
    if len(b) < b.shape[1]:
        return _sum_of_singular_values(a @ b.T) / math.sqrt((len(a) - 1) * (len(b) - 1))
    covariance = _covariance(b)
    lower = _cholesky(covariance)
    other = _root_factor(covariance).T if lower is None else lower
    return _sum_of_singular_values(a @ other) / math.sqrt(len(a) - 1)


def _covariance(centered: Matrix) -> Matrix:
    """Lower triangle of the covariance of centered features, zeros above."""
    return np.asarray(dsyrk(1 / (len(centered) - 1), np.ascontiguousarray(centered).T, lower=1))


def _sum_of_singular_values(matrix: Matrix) -> float:
    return float(torch.linalg.svdvals(torch.from_numpy(matrix)).sum())


def _cholesky(covariance: Matrix) -> Matrix | None:
    """Lower factor of a covariance; None for dead or dependent features, where rounding would spoil small roots."""
    lower, failed = dpotrf(covariance, lower=1)
    rounding = covariance.diagonal().max() * len(covariance) * np.finfo(np.float64).eps
    return None if failed or float(lower.diagonal().min()) ** 2 <= rounding else np.asarray(lower)


def _root_factor(covariance: Matrix) -> npt.NDArray[np.float64]:
    """F with Fᵀ F = Σ, from a lower triangle that may be singular; eigenvalues within rounding of 0 become 0."""
    values, vectors = np.linalg.eigh(covariance)
    values[values < values.max() * len(values) * np.finfo(np.float64).eps] = 0
    return np.asarray(np.sqrt(values)[:, None] * vectors.T)
