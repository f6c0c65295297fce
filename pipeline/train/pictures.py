"""Grids of network images as 8-bit pictures, for people to look at while training."""

import numpy as np
import numpy.typing as npt
from skimage.util import montage


def to_picture(units: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Units [-1, 1] to grey levels 0 to 255; what is not a number is black."""
    return np.asarray(np.rint((np.clip(np.nan_to_num(units, nan=-1.0), -1, 1) + 1) * 127.5), dtype=np.uint8)


def tile(images: npt.NDArray[np.float32], columns: int) -> npt.NDArray[np.uint8]:
    """Tile images (N, H, W) in units row by row, ``columns`` a row, one pixel apart."""
    rows = -(-len(images) // columns)
    tiled = montage(to_picture(images), grid_shape=(rows, columns), padding_width=1, fill=255)
    return np.asarray(tiled, dtype=np.uint8)
