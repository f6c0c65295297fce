"""Find near-copies among 2-D grey images, mirrored ones included, and group them.

Public image sets hold re-saved, re-scaled and mirrored copies of the same slice; where a set carries no subject ids, a
group of near-copies is the best stand-in for a subject, and a split must not cut through it.

Each image is reduced to 32 × 32 by exact area averaging and standardized to mean 0, norm 1, so that the inner product
of two images is Pearson's correlation: blind to brightness, contrast and compression, sensitive to anatomy. A pair is a
near-copy when the correlation of one image with the other, or with its mirror image, reaches the threshold. Groups are
the connected components of these pairs (union-find). Anatomy of the same kind is similar too, and a threshold that is
too low chains a whole class together: see `DEFAULT_THRESHOLD`, and look at `DuplicateReport.largest`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError

Mirror = Literal["none", "left_right", "up_down"]
FloatArray = npt.NDArray[np.float32]

EDGE = 32
"""Edge of the reduced images."""

DEFAULT_THRESHOLD = 0.975
"""Correlation from which a pair is a near-copy, calibrated by eye on 2,000 public brain MR slices of four classes.

From 0.975 up, pairs were the same slice, re-windowed, sharpened or mirrored, rarely a neighboring slice of the same
head; between 0.95 and 0.97 different patients begin. No chaining at 0.975: 603 pairs, 330 of them mirrored, none across
classes, the largest group has 10 images (15 at 0.95). A wrong pair costs a split little; a missed copy leaks.
"""

CHUNK = 1024
"""Images correlated at a time; bounds memory to CHUNK × N correlations (80 MB for 20,000 images)."""


@dataclass(frozen=True)
class DuplicatePair:
    """Two near-copies.

    Args:
        first: index of the one image.
        second: index of the other image, larger than `first`.
        correlation: the highest correlation over the mirrors that were searched.
        mirror: the mirror under which it was reached.
    """

    first: int
    second: int
    correlation: float
    mirror: Mirror


@dataclass(frozen=True)
class DuplicateReport:
    """Groups of near-copies among N images.

    Args:
        clusters: (N,) group index of each image; groups are numbered by their first image; an image without near-copy
            is a group of its own.
        pairs: every pair at or above the threshold, by rising indices.
    """

    clusters: npt.NDArray[np.int64]
    pairs: tuple[DuplicatePair, ...]

    @property
    def largest(self) -> int:
        """Number of images in the largest group, 0 without images."""
        return int(np.bincount(self.clusters).max()) if len(self.clusters) else 0


def find_near_duplicates(
    images: Sequence[npt.NDArray[Any]] | npt.NDArray[Any],
    *,
    threshold: float = DEFAULT_THRESHOLD,
    up_down: bool = False,
) -> DuplicateReport:
    """Group the near-copies among images.

    Args:
        images: N grey images (H, W), of equal or different sizes, in any intensity unit.
        threshold: lowest correlation of a near-copy, in (0, 1].
        up_down: also search copies mirrored top to bottom; left-right mirrors are always searched.

    Raises:
        InputError: the threshold is out of range, or an image is not 2-D or not finite.
    """
    if not 0 < threshold <= 1:
        raise InputError(
            "The threshold for near-copies is a correlation.",
            found=str(threshold),
            allowed=f"0 < threshold <= 1; default {DEFAULT_THRESHOLD}",
            change="Correct the threshold.",
        )
    reduced = reduce_images(images)
    mirrors: dict[Mirror, FloatArray] = {"none": reduced, "left_right": reduced[:, :, ::-1]}
    if up_down:
        mirrors["up_down"] = reduced[:, ::-1, :]
    pairs = _pairs_above(reduced, mirrors, threshold)
    return DuplicateReport(clusters=_components(len(reduced), pairs), pairs=tuple(pairs))


def reduce_images(images: Sequence[npt.NDArray[Any]] | npt.NDArray[Any]) -> FloatArray:
    """Reduce images to (N, 32, 32) float32 of mean 0 and norm 1; a constant image becomes all zeros.

    Images smaller than 32 pixels are enlarged by the same area rule.

    Raises:
        InputError: an image is not 2-D or holds values that are not finite.
    """
    reduced = np.zeros((len(images), EDGE, EDGE), np.float32)
    weights: dict[int, npt.NDArray[np.float64]] = {}
    for index, image in enumerate(images):
        pixels = np.asarray(image, dtype=np.float64)
        if pixels.ndim != 2 or 0 in pixels.shape or not np.isfinite(pixels).all():
            raise InputError(
                "Near-copies are searched among grey images.",
                found=f"image {index} of shape {pixels.shape}, finite: {bool(np.isfinite(pixels).all())}",
                allowed="shape (H, W) with finite values",
                change="Convert the image to grey, or leave it out.",
            )
        for edge in pixels.shape:
            if edge not in weights:
                weights[edge] = area_weights(edge)
        small = weights[pixels.shape[0]] @ pixels @ weights[pixels.shape[1]].T
        small -= small.mean()
        norm = float(np.linalg.norm(small))
        # Below this the image is constant but for rounding, and its standardized pixels would be noise.
        if norm > 1e-9 * max(1.0, float(np.abs(pixels).max())):
            reduced[index] = small / norm
    return reduced


def area_weights(edge: int) -> npt.NDArray[np.float64]:
    """(32, edge) matrix of exact area averaging along one axis: the overlap of every output cell with every pixel."""
    bounds = np.linspace(0, edge, EDGE + 1)
    pixel = np.arange(edge)
    overlap = np.minimum(bounds[1:, None], pixel + 1) - np.maximum(bounds[:-1, None], pixel)
    return np.asarray(np.clip(overlap, 0, None) * (EDGE / edge))


def _pairs_above(reduced: FloatArray, mirrors: dict[Mirror, FloatArray], threshold: float) -> list[DuplicatePair]:
    """Every pair first < second whose correlation reaches the threshold, chunk by chunk."""
    flat = reduced.reshape(len(reduced), EDGE * EDGE)
    names = list(mirrors)
    mirrored = [np.ascontiguousarray(mirrors[name]).reshape(len(reduced), EDGE * EDGE) for name in names]
    # Rounding of float32 may leave exact copies a little below 1.
    lowest = np.float32(min(threshold, 1 - 1e-5))
    pairs = []
    for start in range(0, len(flat), CHUNK):
        # Mirroring both images changes nothing, so that the upper triangle is enough for mirrored pairs as well.
        found: dict[tuple[int, int], tuple[float, Mirror]] = {}
        for name, other in zip(names, mirrored, strict=True):
            correlation = flat[start : start + CHUNK] @ other[start:].T
            rows, columns = np.nonzero(correlation >= lowest)
            for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
                if column <= row:
                    continue
                pair, value = (start + row, start + column), float(correlation[row, column])
                if pair not in found or value > found[pair][0]:
                    found[pair] = (value, name)
        pairs += [
            DuplicatePair(first, second, min(value, 1.0), name)
            for (first, second), (value, name) in sorted(found.items())
        ]
    return pairs


def _components(count: int, pairs: list[DuplicatePair]) -> npt.NDArray[np.int64]:
    """Connected components by union-find with path halving, numbered by their first image."""
    parent = list(range(count))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for pair in pairs:
        low, high = sorted((root(pair.first), root(pair.second)))
        parent[high] = low
    roots = np.array([root(index) for index in range(count)], dtype=np.int64)
    return np.asarray(np.unique(roots, return_inverse=True)[1], dtype=np.int64)
