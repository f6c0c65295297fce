"""Structural similarity inside a mask, and the local statistics that MS-SSIM shares.

    SSIM = (2 μx μy + C1)(2 σxy + C2) / ((μx² + μy² + C1)(σx² + σy² + C2)),  C1 = (0.01 R)², C2 = (0.03 R)²

Wang et al., IEEE Trans Image Process 13:600, 2004, as scored by SynthRAD2023 (github.com/SynthRAD2023/metrics): both
images clipped to the range, set to its lower end outside the mask and shifted to start at 0; uniform window of 7³ with
sample covariance; a rim of 3 voxels, where windows leave the image, is dropped; mean over the mask. Single slices use
the same with 7², which is another number than the 3-D one.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from pipeline.errors import InputError
from pipeline.metrics.pairs import FloatArray, ValueRange, Volume, checked_mask, masked_pair

WINDOW = 7
"""Edge of the uniform window."""

RIM = WINDOW // 2
"""Voxels dropped at every side."""

FLOAT64_VOXELS = 30_000_000
"""Larger images are scored in float32, to halve some 3 GB of memory; the scores agree to about 1e-4."""


@dataclass(frozen=True)
class LocalStatistics:
    """Window means and sample (co)variances of two images, without the rim, same shape each."""

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
    local = local_statistics(x, y)
    c1, c2 = (0.01 * value_range.width) ** 2, (0.03 * value_range.width) ** 2
    mean_x, mean_y = local.mean_x[chosen], local.mean_y[chosen]
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * local.covariance[chosen] + c2) / (local.variance_x[chosen] + local.variance_y[chosen] + c2)
    return float((luminance * structure).mean(dtype=np.float64))


def prepare(
    ct: Volume, pseudo_ct: Volume, mask: Volume | None, value_range: ValueRange
) -> tuple[FloatArray, FloatArray, Volume]:
    """Clip, set the outside to the lower end, shift to start at 0; a last axis of 1 is dropped.

    Returns:
        Both images as float, and the mask as bool.

    Raises:
        InputError: shapes differ, the mask is empty, a value inside is not finite, or the image is not 2-D or 3-D.
    """
    masked_pair(ct, pseudo_ct, mask)
    inside = checked_mask(ct, pseudo_ct, mask)
    if inside.ndim == 3 and inside.shape[2] == 1:
        ct, pseudo_ct, inside = (np.asarray(image)[:, :, 0] for image in (ct, pseudo_ct, inside))
    if inside.ndim not in (2, 3):
        raise InputError(
            "SSIM compares slices or volumes.",
            found=f"shape {inside.shape}",
            allowed="(i, j), (i, j, 1) or (i, j, k)",
            change="Score one image at a time.",
        )
    dtype = np.float64 if inside.size <= FLOAT64_VOXELS else np.float32
    x, y = (
        np.where(inside, np.clip(np.asarray(image, dtype), value_range.low, value_range.high) - value_range.low, 0)
        for image in (ct, pseudo_ct)
    )
    return x.astype(dtype, copy=False), y.astype(dtype, copy=False), inside


def local_statistics(x: FloatArray, y: FloatArray) -> LocalStatistics:
    """Statistics of every full window; arrays shrink by the rim at every side."""
    inner = (slice(RIM, -RIM),) * x.ndim
    count = WINDOW**x.ndim

    def window_mean(image: FloatArray) -> FloatArray:
        return np.asarray(ndimage.uniform_filter(image, WINDOW)[inner])

    mean_x, mean_y = window_mean(x), window_mean(y)
    unbiased = count / (count - 1)
    return LocalStatistics(
        mean_x=mean_x,
        mean_y=mean_y,
        variance_x=unbiased * (window_mean(x * x) - mean_x**2),
        variance_y=unbiased * (window_mean(y * y) - mean_y**2),
        covariance=unbiased * (window_mean(x * y) - mean_x * mean_y),
    )


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
