"""Search for synthetic images that copy a training image, calibrated on real images that were held out.

Every synthetic image is compared with every training image by Pearson's correlation of pixels, over left-right mirrors
and shifts of up to 2 pixels in both directions: a plain correlation misses a copy that moved by one pixel. Images are
averaged down to about 32 pixels after the shift, which takes mild noise away. The highest correlation counts.

How similar honest images are depends on the anatomy and the framing, so that the threshold is learned: held-out real
images are compared with the training images in the same way. A random half of them sets the threshold (their 99 %
quantile with the finite-sample rank of split conformal prediction, Vovk et al. 2005, moved a quarter of the way to 1),
the other half measures how often an innocent image is accused. The release is blocked when more synthetic images are
flagged than the 99th percentile of Binomial(n, that rate).

Held-out images have to be of other subjects than the training images, and near-copies across the split removed: else
the threshold learns that copies are normal. It is therefore never above 0.99, where only copies are.

Nearest-neighbor distance ratio in feature space, for the report beside the flags:
d(synthetic, nearest train) / median d(held-out, nearest train); about 1 is as expected, far below 1 is suspicious.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from pipeline.errors import InputError
from pipeline.metrics.kid import Features, Matrix, checked_cohorts
from pipeline.metrics.precision_recall import distances

Images = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float32]

MAX_SHIFT = 2
"""Largest shift searched, in pixels, along both axes."""

COMPARED_EDGE = 32
"""Images are block-averaged to at most this edge before they are correlated."""

HELD_OUT_QUANTILE = 0.99
"""Share of held-out images below the threshold before it is moved up."""

HIGHEST_THRESHOLD = 0.99
"""The threshold is never above this correlation."""

GATE_QUANTILE = 0.99
"""Quantile of the binomial number of innocent flags above which a release is blocked."""

CHUNK = 512
"""Training images correlated at a time."""


@dataclass(frozen=True)
class NearestCopies:
    """For each image the training image it resembles most.

    Args:
        correlation: (n,) highest correlation over training images, mirrors and shifts, in [-1, 1].
        nearest: (n,) index of that training image.
    """

    correlation: FloatArray
    nearest: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Memorization:
    """Outcome of the search.

    Args:
        copies: nearest training image of every synthetic image.
        flags: (n,) bool, true where the correlation exceeds the threshold.
        threshold: correlation above which an image is flagged.
        calibrated_rate: how often a held-out image is accused, (accused + 1) / (measured + 2), never 0.
        held_out: number of held-out images, half of which set the threshold.
        allowed_flags: flags that chance explains.
        verdict: ``blocked`` when there are more flags than that, else ``passed``. Flagged images are dropped anyhow.
    """

    copies: NearestCopies
    flags: npt.NDArray[np.bool_]
    threshold: float
    calibrated_rate: float
    held_out: int
    allowed_flags: int
    verdict: Literal["passed", "blocked"]


def find_memorized(train: Images, held_out: Images, synthetic: Images, rng: np.random.Generator) -> Memorization:
    """Flag synthetic images that copy a training image.

    Args:
        train: (t, H, W) training images of the generator, any intensity unit.
        held_out: (h, H, W) real images of other subjects, at least 20; 300 and more make a sharp threshold.
        synthetic: (n, H, W) synthetic images.
        rng: draws which half of the held-out images sets the threshold.

    Raises:
        InputError: shapes differ, images are too small or too few, or a value is not finite.
    """
    if len(held_out) < 20:
        raise InputError(
            "The search for copies is calibrated on held-out real images.",
            found=f"{len(held_out)} held-out images",
            allowed="at least 20; 300 and more are advised",
            change="Hold out more subjects.",
        )
    innocent = nearest_copies(train, held_out).correlation
    order = rng.permutation(len(innocent))
    threshold = copy_threshold(innocent[order[: len(order) // 2]])
    measured = innocent[order[len(order) // 2 :]]
    rate = float(((measured > threshold).sum() + 1) / (len(measured) + 2))
    copies = nearest_copies(train, synthetic)
    flags = copies.correlation > threshold
    allowed = int(binom.ppf(GATE_QUANTILE, len(flags), rate))
    return Memorization(
        copies=copies,
        flags=flags,
        threshold=threshold,
        calibrated_rate=rate,
        held_out=len(innocent),
        allowed_flags=allowed,
        verdict="blocked" if int(flags.sum()) > allowed else "passed",
    )


def copy_threshold(innocent: npt.NDArray[np.floating]) -> float:
    """Correlation above which an image counts as a copy.

    q + (1 − q) / 4 with q the ⌈(h + 1) · 0.99⌉-th smallest of the correlations of held-out images (the largest when
    there are fewer than that), 0.99 at most.

    Args:
        innocent: (h,) highest correlations of held-out images with the training images.
    """
    rank = min(len(innocent), math.ceil((len(innocent) + 1) * HELD_OUT_QUANTILE))
    quantile = float(np.sort(innocent)[rank - 1])
    return min(HIGHEST_THRESHOLD, quantile + (1 - quantile) / 4)


def nearest_copies(train: Images, images: Images) -> NearestCopies:
    """Highest correlation of every image with any training image, over mirrors and shifts.

    Args:
        train: (t, H, W), t at least 1.
        images: (n, H, W), n at least 1, H and W at least 12.

    Raises:
        InputError: shapes differ, images are too small or too few, or a value is not finite.
    """
    _check(train, images)
    inner = tuple(slice(MAX_SHIFT, edge - MAX_SHIFT) for edge in images.shape[1:])
    cropped = images[:, inner[0], inner[1]]
    # All shifts are searched, so that mirroring the images does the same as mirroring the training images.
    compared = np.concatenate([_standardized(cropped), _standardized(cropped[:, :, ::-1])])
    best = np.full(len(compared), -np.inf, np.float32)
    nearest = np.zeros(len(compared), np.int64)
    for start in range(0, len(train), CHUNK):
        for shifted in _shifted(train[start : start + CHUNK].astype(np.float32)):
            correlation = compared @ _standardized(shifted).T
            position = correlation.argmax(axis=1)
            value = correlation[np.arange(len(compared)), position]
            better = value > best
            best[better], nearest[better] = value[better], position[better] + start
    plain, mirrored = best.reshape(2, -1)
    which = np.where(mirrored > plain, nearest[len(images) :], nearest[: len(images)])
    return NearestCopies(np.clip(np.maximum(plain, mirrored), -1, 1), which)


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


def _shifted(images: FloatArray) -> list[FloatArray]:
    """Views of the images for every shift, cropped to the inner part."""
    edges = images.shape[1:]
    return [
        images[:, down : edges[0] - 2 * MAX_SHIFT + down, across : edges[1] - 2 * MAX_SHIFT + across]
        for down in range(2 * MAX_SHIFT + 1)
        for across in range(2 * MAX_SHIFT + 1)
    ]


def _standardized(images: Images) -> FloatArray:
    """Block sums with mean 0 and norm 1, (n, pixels); constant images become zeros and resemble nothing."""
    factors = [max(1, math.ceil(edge / COMPARED_EDGE)) for edge in images.shape[1:]]
    rows, columns = (edge // factor for edge, factor in zip(images.shape[1:], factors, strict=True))
    blocks = np.zeros((len(images), rows, columns), np.float32)
    for down in range(factors[0]):
        for across in range(factors[1]):
            blocks += images[:, down : rows * factors[0] : factors[0], across : columns * factors[1] : factors[1]]
    largest = np.abs(blocks).max(axis=(1, 2), initial=0)[:, None]
    flat = blocks.reshape(len(images), rows * columns)
    flat -= flat.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    constant = norm <= 1e-5 * largest
    return np.asarray(np.where(constant, 0, flat / np.where(constant, 1, norm)), dtype=np.float32)


def _check(train: Images, images: Images) -> None:
    """Both (n, H, W) with equal H, W of at least 12, not empty, finite."""
    shapes_fit = train.ndim == images.ndim == 3 and train.shape[1:] == images.shape[1:]
    large_enough = shapes_fit and 0 not in (len(train), len(images)) and min(images.shape[1:]) >= 12
    if large_enough and np.isfinite(train).all() and np.isfinite(images).all():
        return
    raise InputError(
        "Copies are searched among grey images of one size.",
        found=f"training images {train.shape}, images to check {images.shape}",
        allowed="(n, H, W) with equal H and W of at least 12, at least one image each, finite values",
        change="Bring both cohorts to the size at which the generator works.",
    )
