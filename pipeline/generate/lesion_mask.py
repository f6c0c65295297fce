"""The lesion in a synthetic crop, told from the tissue around it.

A crop shows one lesion in its middle. The tissue along the border of the crop gives the background; what is brighter or
what is darker, by more than Otsu's threshold, in one piece that reaches the middle, is the lesion. Thin tails, by which
vessels and edges hang on to it, are cut off.
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.filters import threshold_otsu

Mask = npt.NDArray[np.bool_]
Image = npt.NDArray[np.float32]

BORDER_SHARE = 0.125
"""Width of the border that holds background, as a share of the side."""

MIDDLE_SHARE = 1 / 6
"""A lesion reaches into the disk of this radius around the middle, as a share of the side."""

TAILS = 20
"""Tails thinner than a tenth of the side, twice a part of this number, are cut off."""

LEAST_PIXELS = 12
"""A smaller lesion is none."""

LARGEST_SHARE = 0.5
"""A lesion that covers more of the crop leaves no background to compare with."""

LEAST_CONTRAST = 0.08
"""Difference from the background, in units of [-1, 1], below which nothing is told apart."""


def lesion_mask(image: Image) -> Mask | None:
    """Pixels of the lesion, (S, S); None where none can be told from the background.

    Args:
        image: (S, S) crop in [-1, 1], the lesion in its middle.
    """
    side = len(image)
    border = max(1, round(BORDER_SHARE * side))
    inside = np.zeros(image.shape, bool)
    inside[border:-border, border:-border] = True
    difference = ndimage.gaussian_filter(image - np.median(image[~inside]), 1.0)
    threshold = max(float(threshold_otsu(np.abs(difference))), LEAST_CONTRAST)
    place = np.arange(side) - (side - 1) / 2
    middle = np.hypot(place[:, None], place) <= max(MIDDLE_SHARE * side, 1.0)
    # A ring is bright with a dark middle, and what lies beside a lesion may differ the other way: signs are told apart.
    found = [_part((sign * difference > threshold) & inside, middle) for sign in (1, -1)]
    mask = max(found, key=lambda part: int((part & middle).sum()))
    if not (mask & middle).any():
        return None
    return mask if LEAST_PIXELS <= mask.sum() <= LARGEST_SHARE * mask.size else None


def _part(different: Mask, middle: Mask) -> Mask:
    """The filled part that shares most with the middle, without the thin tails that tie it to its neighbors."""
    filled = ndimage.binary_fill_holes(different)
    cut = max(1, round(len(filled) / TAILS))
    opened = ndimage.binary_opening(filled, iterations=cut)
    parts, count = ndimage.label(opened if (opened & middle).any() else filled)
    sizes = np.bincount(parts[middle], minlength=count + 1)[1:]
    if not count or not sizes.any():
        return np.zeros(filled.shape, bool)
    core = parts == int(sizes.argmax()) + 1
    return np.asarray(ndimage.binary_dilation(core) & filled)
