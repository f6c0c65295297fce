"""The lesion in a synthetic crop, told from the tissue around it.

A crop shows one lesion in its middle. The tissue along the border of the crop gives the background; what differs from
it by more than Otsu's threshold, in one piece that reaches the middle, is the lesion.
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
    difference = ndimage.gaussian_filter(np.abs(image - np.median(image[~inside])), 1.0)
    threshold = max(float(threshold_otsu(difference)), LEAST_CONTRAST)
    parts, count = ndimage.label((difference > threshold) & inside)
    if not count:
        return None
    place = np.arange(side) - (side - 1) / 2
    middle = np.hypot(place[:, None], place) <= max(MIDDLE_SHARE * side, 1.0)
    sizes = np.bincount(parts[middle], minlength=count + 1)[1:]
    if not sizes.any():
        return None
    mask: Mask = ndimage.binary_fill_holes(parts == int(sizes.argmax()) + 1)
    return mask if LEAST_PIXELS <= mask.sum() <= LARGEST_SHARE * mask.size else None
