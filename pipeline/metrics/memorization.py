"""Flag synthetic images that copy a training image, by a threshold learned from real images that were held out.

How similar honest images are depends on the anatomy and the framing. So held-out real images are compared with the
training images in the way of `pipeline.metrics.copy_search`, and a random half of their subjects sets the threshold
(the 99 % quantile with the finite-sample rank of split conformal prediction, Vovk et al. 2005, moved a quarter of the
way to 1); the other half measures how often an innocent image is accused. The release is blocked when more synthetic
images are flagged than the 99th percentile of Binomial(n, that rate).

Held-out images that *are* a training image, pixel by pixel or mirrored, are no innocents: they are counted and take no
part, else the threshold would learn that copies are normal. It is never above `HIGHEST_THRESHOLD`, where only copies
are.

Nearest-neighbor distance ratio in feature space, for the report beside the flags:
d(synthetic, nearest train) / median d(held-out, nearest train); about 1 is as expected, far below 1 is suspicious.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from pipeline.errors import InputError
from pipeline.metrics.copy_search import Images, NearestCopies, nearest_copies
from pipeline.metrics.kid import Features, Matrix, checked_cohorts
from pipeline.metrics.precision_recall import distances

HELD_OUT_QUANTILE = 0.99
"""Share of held-out images below the threshold before it is moved up."""

HIGHEST_THRESHOLD = 0.999
"""The threshold is never above this correlation."""

IDENTICAL = 0.9999
"""Plain correlation from which a held-out image is a training image."""

SMALLEST_HELD_OUT = 20
"""Held-out images that the search is calibrated on at least."""

GATE_QUANTILE = 0.99
"""Quantile of the binomial number of innocent flags above which a release is blocked."""


class UncalibratedError(InputError):
    """Too few held-out images for a threshold."""


@dataclass(frozen=True)
class Memorization:
    """Outcome of the search.

    Args:
        copies: nearest training image of every synthetic image.
        flags: (n,) bool, true where the correlation exceeds the threshold.
        threshold: correlation above which an image is flagged.
        calibrated_rate: how often a held-out image is accused, (accused + 1) / (measured + 2), never 0.
        held_out: number of innocent held-out images; those of half of their subjects set the threshold.
        identical: held-out images that are training images and took no part.
        allowed_flags: flags that chance explains.
        verdict: ``blocked`` when there are more flags than that, else ``passed``. Flagged images are dropped anyhow.
    """

    copies: NearestCopies
    flags: npt.NDArray[np.bool_]
    threshold: float
    calibrated_rate: float
    held_out: int
    identical: int
    allowed_flags: int
    verdict: Literal["passed", "blocked"]


def find_memorized(
    train: Images,
    held_out: Images,
    synthetic: Images,
    rng: np.random.Generator,
    subjects: Sequence[str] | None = None,
) -> Memorization:
    """Flag synthetic images that copy a training image.

    Args:
        train: (t, H, W) training images of the generator, any intensity unit.
        held_out: (h, H, W) real images of other subjects, at least 20; 300 and more make a sharp threshold.
        synthetic: (n, H, W) synthetic images.
        rng: draws which half of the held-out subjects sets the threshold.
        subjects: (h,) subject of every held-out image; None takes every image for a subject.

    Raises:
        UncalibratedError: too few held-out images.
        InputError: shapes differ, images are too small or too few, or a value is not finite.
    """
    names = np.arange(len(held_out)) if subjects is None else np.asarray(subjects)
    known = nearest_copies(train, held_out) if len(held_out) else None
    innocent = np.zeros(0, np.bool_) if known is None else known.plain < IDENTICAL
    if known is None or innocent.sum() < SMALLEST_HELD_OUT:
        raise UncalibratedError(
            "The search for copies is calibrated on held-out real images.",
            found=f"{innocent.sum()} held-out images that are no training images",
            allowed=f"at least {SMALLEST_HELD_OUT}; 300 and more are advised",
            change="Hold out more subjects.",
        )
    correlation = known.correlation[innocent]
    first = _half(names[innocent], rng)
    threshold = copy_threshold(correlation[first])
    measured = correlation[~first]
    rate = float(((measured > threshold).sum() + 1) / (len(measured) + 2))
    copies = nearest_copies(train, synthetic)
    flags = copies.correlation > threshold
    allowed = int(binom.ppf(GATE_QUANTILE, len(flags), rate))
    return Memorization(
        copies=copies,
        flags=flags,
        threshold=threshold,
        calibrated_rate=rate,
        held_out=len(correlation),
        identical=int((~innocent).sum()),
        allowed_flags=allowed,
        verdict="blocked" if int(flags.sum()) > allowed else "passed",
    )


def copy_threshold(innocent: npt.NDArray[np.floating]) -> float:
    """Correlation above which an image counts as a copy.

    q + (1 − q) / 4 with q the ⌈(h + 1) · 0.99⌉-th smallest of the correlations of held-out images (the largest when
    there are fewer than that), 0.999 at most.

    Args:
        innocent: (h,) highest correlations of held-out images with the training images.
    """
    rank = min(len(innocent), math.ceil((len(innocent) + 1) * HELD_OUT_QUANTILE))
    quantile = float(np.sort(innocent)[rank - 1])
    return min(HIGHEST_THRESHOLD, quantile + (1 - quantile) / 4)


def _half(subjects: npt.NDArray[np.generic], rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Which images set the threshold: those of random subjects, about half; of a single subject, half of its images."""
    names, owner, counts = np.unique(subjects, return_inverse=True, return_counts=True)
    if len(names) < 2:
        names, owner, counts = np.arange(len(subjects)), np.arange(len(subjects)), np.ones(len(subjects), np.int64)
    order = rng.permutation(len(names))
    before = np.concatenate([[0], counts[order].cumsum()[:-1]])
    chosen = order[before < len(subjects) // 2]
    # The last subject drawn never joins, so that somebody is left to measure on.
    return np.asarray(np.isin(owner, chosen[chosen != order[-1]]))


def feature_distance_ratio(train: Features, held_out: Features, synthetic: Features) -> Matrix:
    """Nearest-neighbor distance ratio of every synthetic image, (n,) float64.

    Args:
        train: (t, d) features of the training images.
        held_out: (h, d) features of held-out real images.
        synthetic: (n, d) features of the synthetic images.

    Raises:
        InputError: numbers of features differ, a cohort is empty, a value is not finite, or the held-out images lie on
            training images, so that there is no distance to compare with.
    """
    reference, innocent = checked_cohorts(train, held_out, smallest=1)
    _, suspects = checked_cohorts(train, synthetic, smallest=1)
    usual = float(np.median(distances(innocent, reference).min(axis=1)))
    if usual <= 0:
        raise InputError(
            "The distance ratio needs held-out images that are not training images.",
            found="median distance 0 between held-out and training images",
            allowed="a positive distance",
            change="Remove copies across the split.",
        )
    return np.asarray(distances(suspects, reference).min(axis=1) / usual)
