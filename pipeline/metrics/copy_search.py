"""For every image the training image that it copies, if it copies any: over mirrors, shifts of a few pixels and noise.

Images are compared by Pearson's correlation of pixels, over left-right mirrors and shifts of up to 2 pixels in both
directions: a plain correlation misses a copy that moved by one pixel. Images are averaged down to about 32 pixels after
the shift.

Noise hides a copy too: at 28 pixels 2 % of the intensity range takes the correlation of a copy below that of another
patient's chest. What tells them apart is the residual r = x − c·y of image x and candidate y (both of mean 0, norm 1,
c their correlation): noise is white, a difference of anatomy is not. The share of ‖r‖² that white noise explains is the
mean energy of r in the highest frequencies (the diagonal of the Haar wavelet, ½(a − b − c + d) over each 2 × 2 pixels)
times the number of pixels, at most what noise of `MILD_NOISE` of the intensity range would give. Without it,
√(1 − (‖r‖² − white)) takes the place of c. A copy without noise keeps 1, and anatomy gains little.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError

Images = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

MAX_SHIFT = 2
"""Largest shift searched, in pixels, along both axes."""

COMPARED_EDGE = 32
"""Images are block-averaged to at most this edge before they are correlated."""

MILD_NOISE = 0.03
"""Standard deviation of the noise that is searched through, as a share of the training images' intensity range."""

CANDIDATES = 10
"""Training images, the best by plain correlation, whose residual is looked at."""

CHUNK = 512
"""Training images correlated at a time."""


@dataclass(frozen=True)
class NearestCopies:
    """For each image the training image it resembles most.

    Args:
        correlation: (n,) highest correlation over training images, mirrors and shifts, in [-1, 1]; white noise taken
            out.
        nearest: (n,) index of that training image.
        plain: (n,) highest correlation with the noise left in; at most ``correlation``.
    """

    correlation: FloatArray
    nearest: IntArray
    plain: FloatArray


def nearest_copies(train: Images, images: Images) -> NearestCopies:
    """The training image that each image resembles most.

    Args:
        train: (t, H, W), t at least 1.
        images: (n, H, W), n at least 1, H and W at least 12.

    Raises:
        InputError: shapes differ, images are too small or too few, or a value is not finite.
    """
    _check(train, images)
    inner = tuple(slice(MAX_SHIFT, edge - MAX_SHIFT) for edge in images.shape[1:])
    cropped = images[:, inner[0], inner[1]].astype(np.float32)
    # All shifts are searched, so that mirroring the images does the same as mirroring the training images.
    blocks = [_blocks(cropped), _blocks(cropped[:, :, ::-1])]
    compared = [_standardized(side) for side in blocks]
    plain, rows, codes = _candidates(train, compared)
    pixels, merged = math.prod(blocks[0].shape[1:]), math.prod(_factors(cropped.shape))
    energy = np.square(blocks[0] - blocks[0].mean(axis=(1, 2), keepdims=True)).sum(axis=(1, 2))
    noise = merged * (MILD_NOISE * float(np.ptp(train))) ** 2 * pixels / np.maximum(energy, 1e-12)
    cleaned = np.full(plain.shape, -1, np.float32)
    for code in np.unique(codes):
        image, place = np.nonzero(codes == code)
        shifted = _standardized(_blocks(_shifts(train[rows[image, place]])[code // 2].astype(np.float32)))
        cleaned[image, place] = _without_noise(compared[code % 2][image], shifted, noise[image])
    best = cleaned.argmax(axis=1)
    which = np.arange(len(images))
    correlation = np.clip(cleaned[which, best], -1, 1).astype(np.float32)
    return NearestCopies(correlation, rows[which, best], np.minimum(np.clip(plain.max(axis=1), -1, 1), correlation))


def _candidates(train: Images, compared: list[FloatArray]) -> tuple[FloatArray, IntArray, IntArray]:
    """The best training images by plain correlation: correlations, rows and codes (shift × 2 + mirror), each (n, k)."""
    count, kept = len(compared[0]), min(CANDIDATES, len(train))
    flat = [side.reshape(count, -1) for side in compared]
    values = np.full((count, 0), -np.inf, np.float32)
    rows, codes = np.zeros((count, 0), np.int64), np.zeros((count, 0), np.int64)
    for start in range(0, len(train), CHUNK):
        chunk = train[start : start + CHUNK].astype(np.float32)
        best = np.full((count, len(chunk)), -np.inf, np.float32)
        code_of = np.zeros(best.shape, np.int64)
        for number, view in enumerate(_shifts(chunk)):
            shifted = _standardized(_blocks(view)).reshape(len(chunk), -1).T
            for mirror, side in enumerate(flat):
                correlation = side @ shifted
                better = correlation > best
                np.copyto(best, correlation, where=better)
                np.copyto(code_of, 2 * number + mirror, where=better)
        values = np.concatenate([values, best], axis=1)
        rows = np.concatenate([rows, np.broadcast_to(np.arange(start, start + len(chunk)), best.shape)], axis=1)
        codes = np.concatenate([codes, code_of], axis=1)
        top = np.argsort(-values, axis=1, kind="stable")[:, :kept]
        values = np.take_along_axis(values, top, axis=1)
        rows, codes = np.take_along_axis(rows, top, axis=1), np.take_along_axis(codes, top, axis=1)
    return values, rows, codes


def _without_noise(images: FloatArray, originals: FloatArray, noise: npt.NDArray[np.floating]) -> FloatArray:
    """Correlations (m,) of standardized images with standardized originals, (m, h, w) both, white noise taken out.

    Args:
        images: the suspects.
        originals: their candidates.
        noise: (m,) most energy that noise may have.
    """
    correlation = (images * originals).sum(axis=(1, 2))
    residual = images - correlation[:, None, None] * originals
    diagonal = residual[:, 1:, 1:] - residual[:, 1:, :-1] - residual[:, :-1, 1:] + residual[:, :-1, :-1]
    white = np.minimum(np.square(diagonal / 2).mean(axis=(1, 2)) * math.prod(images.shape[1:]), noise)
    left = np.square(residual).sum(axis=(1, 2)) - white
    cleaned = np.sqrt(np.clip(1 - left, 0, 1))
    return np.asarray(np.where(correlation > 0, np.maximum(cleaned, correlation), correlation), dtype=np.float32)


def _shifts(images: Images) -> list[Images]:
    """Views of the images for every shift, cropped to the inner part."""
    edges = images.shape[1:]
    return [
        images[:, down : edges[0] - 2 * MAX_SHIFT + down, across : edges[1] - 2 * MAX_SHIFT + across]
        for down in range(2 * MAX_SHIFT + 1)
        for across in range(2 * MAX_SHIFT + 1)
    ]


def _factors(shape: tuple[int, ...]) -> list[int]:
    """Pixels that make one block, along both axes."""
    return [max(1, math.ceil(edge / COMPARED_EDGE)) for edge in shape[1:]]


def _blocks(images: FloatArray) -> FloatArray:
    """Sums over blocks of pixels, (n, h, w) with h and w of `COMPARED_EDGE` at most."""
    factors = _factors(images.shape)
    rows, columns = (edge // factor for edge, factor in zip(images.shape[1:], factors, strict=True))
    blocks = np.zeros((len(images), rows, columns), np.float32)
    for down in range(factors[0]):
        for across in range(factors[1]):
            blocks += images[:, down : rows * factors[0] : factors[0], across : columns * factors[1] : factors[1]]
    return blocks


def _standardized(blocks: FloatArray) -> FloatArray:
    """Blocks with mean 0 and norm 1; constant images become zeros and resemble nothing."""
    largest = np.abs(blocks).max(axis=(1, 2), initial=0, keepdims=True)
    centered = blocks - blocks.mean(axis=(1, 2), keepdims=True)
    norm = np.sqrt(np.square(centered).sum(axis=(1, 2), keepdims=True))
    constant = norm <= 1e-5 * largest
    return np.asarray(np.where(constant, 0, centered / np.where(constant, 1, norm)), dtype=np.float32)


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
