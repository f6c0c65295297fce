"""Peak signal-to-noise ratio.

    PSNR = 10 · log10(R² / MSE), both images clipped to the value range of width R, masked voxels only.

Definition of SynthRAD2023 and SynthRAD2025; their ranges differ, see `pairs.DIALECTS`.
"""

import math

import numpy as np

from pipeline.metrics.pairs import ValueRange, Volume, masked_pair


def psnr(ct: Volume, pseudo_ct: Volume, mask: Volume | None, value_range: ValueRange) -> float:
    """PSNR in dB inside the mask; infinite when the clipped images are equal.

    Args:
        ct: reference in the units of `value_range`, any shape.
        pseudo_ct: prediction, same shape.
        mask: same shape, > 0 inside; None takes the whole image.
        value_range: clipping range, whose width is R.

    Raises:
        InputError: shapes differ, the mask is empty, or a value is not finite.
    """
    reference, prediction = (
        np.clip(values, value_range.low, value_range.high) for values in masked_pair(ct, pseudo_ct, mask)
    )
    squared_error = float(np.square(reference - prediction).mean())
    return 10 * math.log10(value_range.width**2 / squared_error) if squared_error > 0 else math.inf
