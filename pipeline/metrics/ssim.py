"""Structural similarity inside a mask, and the local statistics that MS-SSIM shares.

    SSIM = (2 μx μy + C1)(2 σxy + C2) / ((μx² + μy² + C1)(σx² + σy² + C2)),  C1 = (0.01 R)², C2 = (0.03 R)²

Wang et al., IEEE Trans Image Process 13:600, 2004, as scored by SynthRAD2023 (github.com/SynthRAD2023/metrics): both
images clipped to the range, set to its lower end outside the mask and shifted to start at 0; uniform window of 7³ with
sample covariance; a rim of 3 voxels, where windows leave the image, is dropped; mean over the mask. Single slices use
the same with 7², which is another number than the 3-D one.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.errors import InputError
from pipeline.metrics.pairs import FloatArray, ValueRange, Volume, checked_mask, checked_values

WINDOW = 7
"""Edge of the uniform window."""

RIM = WINDOW // 2
"""Voxels dropped at every side."""

SLAB_VOXELS = 65_536
"""Windows are summed over slabs of about so many voxels, which stay in the cache of the processor."""


@dataclass(frozen=True)
class LocalStatistics:
    """Window means and sample (co)variances of a slab of two images, without the rim, same shape each.

    Args:
        planes: where the slab lies along the first axis of the image without its rim.
    """

    planes: slice

    mean_x: FloatArray
    mean_y: FloatArray
    variance_x: FloatArray
    variance_y: FloatArray
    covariance: FloatArray


def ssim(ct: Volume, pseudo_ct: Volume, mask: Volume | None, value_range: ValueRange) -> float:
    """SSIM inside the mask, in [-1, 1].

    Args:
        ct: reference (i, j, k) or (i, j) in the units of `value_range`; every axis at least 7, or a last axis of 1.
        pseudo_ct: prediction, same shape.
        mask: same shape, > 0 inside; None takes the whole image.
        value_range: clipping range, whose width is R.

    Raises:
        InputError: shapes differ, the image is too small, a value is not finite, or no voxel of the mask is left
            without the rim.
    """
    x, y, inside = prepare(ct, pseudo_ct, mask, value_range)
    if min(x.shape) < WINDOW:
        raise InputError(
            "The window of SSIM must fit into the image.",
            found=f"shape {x.shape}",
            allowed=f"at least {WINDOW} voxels along every axis, or a single slice",
            change="Score single slices, or use MS-SSIM, which pads.",
        )
    chosen = inside_rim(inside)
    c1, c2 = (0.01 * value_range.width) ** 2, (0.03 * value_range.width) ** 2
    total = 0.0
    for local in local_statistics(x, y):
        luminance = (2 * local.mean_x * local.mean_y + c1) / (local.mean_x**2 + local.mean_y**2 + c1)
        structure = (2 * local.covariance + c2) / (local.variance_x + local.variance_y + c2)
        total += float((luminance * structure)[chosen[local.planes]].sum())
    return total / int(np.count_nonzero(chosen))


def prepare(
    ct: Volume, pseudo_ct: Volume, mask: Volume | None, value_range: ValueRange
) -> tuple[FloatArray, FloatArray, Volume]:
    """Clip, set the outside to the lower end, shift to start at 0; a last axis of 1 is dropped.

    Returns:
        Both images as float64, and the mask as bool.

    Raises:
        InputError: shapes differ, the mask is empty, a value inside is not finite, or the image is not 2-D or 3-D.
    """
    inside = checked_mask(ct, pseudo_ct, mask)
    checked_values(ct, pseudo_ct, inside)
    if inside.ndim == 3 and inside.shape[2] == 1:
        ct, pseudo_ct, inside = (np.asarray(image)[:, :, 0] for image in (ct, pseudo_ct, inside))
    if inside.ndim not in (2, 3):
        raise InputError(
            "SSIM compares slices or volumes.",
            found=f"shape {inside.shape}",
            allowed="(i, j), (i, j, 1) or (i, j, k)",
            change="Score one image at a time.",
        )
    x, y = (_from_zero(np.asarray(image), inside, value_range) for image in (ct, pseudo_ct))
    return x, y, inside


def _from_zero(image: Volume, inside: Volume, value_range: ValueRange) -> FloatArray:
    values = image.astype(np.float64)
    np.clip(values, value_range.low, value_range.high, out=values)
    values -= value_range.low
    values[~inside] = 0
    return values


def local_statistics(x: FloatArray, y: FloatArray) -> Iterator[LocalStatistics]:
    """Statistics of every full window, slab by slab; images shrink by the rim at every side."""
    unbiased = WINDOW**x.ndim / (WINDOW**x.ndim - 1)
    first = 0
    for mean_x, mean_y, square_x, square_y, product in _window_means(x, y):
        planes = slice(first, first + len(mean_x))
        first += len(mean_x)
        yield LocalStatistics(
            planes=planes,
            mean_x=mean_x,
            mean_y=mean_y,
            variance_x=unbiased * (square_x - mean_x**2),
            variance_y=unbiased * (square_y - mean_y**2),
            covariance=unbiased * (product - mean_x * mean_y),
        )


def _window_means(x: FloatArray, y: FloatArray) -> Iterator[FloatArray]:
    """(5, planes, …) window means of x, y, x², y² and x · y, slab by slab along the first axis."""
    planes = max(1, SLAB_VOXELS // x[0].size)
    waiting = np.empty((5, 0, *(edge - 2 * RIM for edge in x.shape[1:])))
    for start in range(0, len(x), planes):
        part_x, part_y = x[start : start + planes], y[start : start + planes]
        sums = np.stack((part_x, part_y, part_x**2, part_y**2, part_x * part_y))
        for axis in range(2, sums.ndim):
            sums = _window_sums(sums, axis)
        sums = np.concatenate((waiting, sums), axis=1)
        if sums.shape[1] >= WINDOW:
            means = _window_sums(sums, 1)
            means /= WINDOW**x.ndim
            yield means
        waiting = sums[:, 1 - WINDOW :]


def _window_sums(image: FloatArray, axis: int) -> FloatArray:
    """Sums of seven neighbors along an axis, by sums of two and of four: four additions, and no rounding builds up."""
    first = np.moveaxis(image, axis, 0)
    count = len(first) - 2 * RIM
    twos = first[:-1] + first[1:]
    sums = twos[:count] + twos[2 : count + 2]
    sums += twos[4 : count + 4]
    sums += first[6:]
    return np.asarray(np.moveaxis(sums, 0, axis))


def inside_rim(inside: Volume) -> Volume:
    """The mask without the rim.

    Raises:
        InputError: nothing of the mask is left.
    """
    inner = np.asarray(inside[(slice(RIM, -RIM),) * inside.ndim])
    if inner.any():
        return inner
    raise InputError(
        "SSIM needs voxels of the mask away from the rim of the image, at every scale.",
        found=f"no voxel of the mask in the inner part of an image of {inside.shape}",
        allowed=f"at least one voxel {RIM} or more from every side",
        change="Use a larger field of view or mask, or leave the metric out for this case.",
    )
