"""Multi-scale structural similarity inside a mask, as scored by SynthRAD2025.

    MS-SSIM = Π_s clip(mean_mask(L^(w_s) · C^(w_s) · S^(w_s)), 0, 1),  w = .0448 .2856 .3001 .2363 .1333
    L = (2 μx μy + C1)/(μx² + μy² + C1),  C = (2 σx σy + C2)/(σx² + σy² + C2),  S = (σxy + C2/2)/(σx σy + C2/2)

each of L, C, S cut off at 0 per voxel. Wang, Simonyan and Bovik, Asilomar 2003, with the details of
github.com/SynthRAD2025/evaluation: preparation, window and rim as in `ssim`; image and mask edge-padded evenly to at
least 97 along every axis; between scales a box of 2³ that ends at every other voxel, zero before the first; mask taken
at every other voxel.

Two variants, because the code as shipped raises the luminance at every scale, while the paper counts it at the coarsest
scale only (`Luminance`). Single slices use 7² windows and 2² boxes.
"""

from typing import Literal

import numpy as np

from pipeline.metrics.pairs import FloatArray, ValueRange, Volume
from pipeline.metrics.ssim import inside_rim, local_statistics, prepare

Luminance = Literal["every_scale", "coarsest_only"]

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales, finest first (Wang 2003, section 3.2)."""

SMALLEST_EDGE = 97
"""6 · 2⁴ + 1: the window of 7 then still fits at the fifth scale."""


def ms_ssim(
    ct: Volume,
    pseudo_ct: Volume,
    mask: Volume | None,
    value_range: ValueRange,
    luminance: Luminance = "every_scale",
) -> float:
    """MS-SSIM inside the mask, in [0, 1].

    Args:
        ct: reference (i, j, k), (i, j, 1) or (i, j) in the units of `value_range`.
        pseudo_ct: prediction, same shape.
        mask: same shape, > 0 inside; None takes the whole image.
        value_range: clipping range, whose width is R.
        luminance: ``every_scale`` as SynthRAD2025 ships it, or ``coarsest_only`` as the paper has it.

    Raises:
        InputError: shapes differ, a value is not finite, or the mask vanishes at a scale.
    """
    x, y, inside = prepare(ct, pseudo_ct, mask, value_range)
    padding = [((short := max(0, SMALLEST_EDGE - edge)) // 2, short - short // 2) for edge in x.shape]
    x, y, inside = (np.pad(image, padding, mode="edge") for image in (x, y, inside))
    score = 1.0
    for scale, weight in enumerate(SCALE_WEIGHTS):
        if scale:
            x, y, inside = _halve(x), _halve(y), inside[(slice(None, None, 2),) * inside.ndim]
        counts = luminance == "every_scale" or scale == len(SCALE_WEIGHTS) - 1
        similarity = _similarity(x, y, inside, value_range.width, weight if counts else 0.0, weight)
        score *= float(np.clip(similarity, 0, 1))
    return score


def _similarity(
    x: FloatArray, y: FloatArray, inside: Volume, width: float, luminance_weight: float, weight: float
) -> float:
    """Masked mean of L^a · C^w · S^w at one scale."""
    chosen = inside_rim(inside)
    c1, c2 = (0.01 * width) ** 2, (0.03 * width) ** 2
    total = 0.0
    for local in local_statistics(x, y):
        kept = chosen[local.planes]
        mean_x, mean_y = local.mean_x[kept], local.mean_y[kept]
        variance_x, variance_y = local.variance_x[kept], local.variance_y[kept]
        # Rounding can leave a variance a little below 0.
        deviations = np.sqrt(np.clip(variance_x, 0, None)) * np.sqrt(np.clip(variance_y, 0, None))
        contrast = np.clip((2 * deviations + c2) / (variance_x + variance_y + c2), 0, None)
        structure = np.clip((local.covariance[kept] + c2 / 2) / (deviations + c2 / 2), 0, None)
        similarity = (contrast * structure) ** weight
        if luminance_weight:
            luminance = np.clip((2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1), 0, None)
            similarity *= luminance**luminance_weight
        total += float(similarity.sum())
    return total / int(np.count_nonzero(chosen))


def _halve(image: FloatArray) -> FloatArray:
    """Along every axis (x[2m − 1] + x[2m]) / 2 with x[−1] = 0: the phase and border of the reference scorer."""
    for axis in range(image.ndim):
        current = np.moveaxis(image, axis, 0)
        halved = current[::2] * 0.5
        halved[1:] += current[1:-1:2][: len(halved) - 1] * 0.5
        image = np.moveaxis(halved, 0, axis)
    return image
