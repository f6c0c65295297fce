"""Small gray versions of images, kept in memory for the search of near-copies while the images themselves are not.

Area averaging by cumulative sums: the sum over a cell is the difference of the integral of the image (piecewise linear
along an axis) at the cell's bounds. Exact for any size, one pass over the pixels, no matrix product.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

EDGE = 32
"""Edge of a thumbnail, the size at which `pipeline.near_duplicates` compares."""


def thumbnail(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Gray thumbnail of (rows, columns[, channels]), at most 32 × 32; a smaller edge is kept as it is."""
    gray = pixels if pixels.ndim == 2 else pixels.mean(axis=2)
    return np.ascontiguousarray(_shrunk(_shrunk(gray.astype(np.float64)).T).T, dtype=np.float32)


def _shrunk(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average along the first axis into 32 cells of equal width."""
    size = values.shape[0]
    if size <= EDGE:
        return values
    integral = np.zeros((size + 1, values.shape[1]))
    np.cumsum(values, axis=0, out=integral[1:])
    bounds = np.arange(EDGE + 1) * (size / EDGE)
    below = np.minimum(bounds.astype(int), size - 1)
    share = (bounds - below)[:, None]
    at_bounds = integral[below] * (1 - share) + integral[below + 1] * share
    return np.asarray(np.diff(at_bounds, axis=0) * (EDGE / size))
