"""What a translator sees of a volume: neighboring slices and the position in the body.

A stack holds k neighboring slices (edge slices are repeated at the ends) and, where asked for, three coordinate
channels: slice height, row and column relative to the body's bounding box, -1 at its low end and 1 at its high end.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

COORDINATE_LIMIT = 1.5
"""Coordinates beyond the body are clipped here, so that a large field of view looks like a small one."""


@dataclass(frozen=True)
class BodyFrame:
    """Bounding box of a body mask.

    Attributes:
        low: first slice, row, column inside the body.
        high: last slice, row, column inside the body.
    """

    low: tuple[int, int, int]
    high: tuple[int, int, int]

    @classmethod
    def of(cls, mask: npt.NDArray[np.uint8]) -> "BodyFrame":
        """Frame of a mask (K, H, W); an empty mask gives the whole volume."""
        bounds = []
        for axis in range(3):
            others = tuple(other for other in range(3) if other != axis)
            filled = np.flatnonzero(mask.any(axis=others))
            bounds.append((int(filled[0]), int(filled[-1])) if len(filled) else (0, mask.shape[axis] - 1))
        return cls((bounds[0][0], bounds[1][0], bounds[2][0]), (bounds[0][1], bounds[1][1], bounds[2][1]))

    def coordinates(self, index: int, rows: npt.NDArray[Any], columns: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Coordinate channels (3, len(rows), len(columns)) of slice ``index`` at the given rows and columns."""
        channels = np.empty((3, len(rows), len(columns)), np.float32)
        channels[0] = self.relative(0, np.asarray(index))
        channels[1] = self.relative(1, rows)[:, None]
        channels[2] = self.relative(2, columns)[None, :]
        return channels

    def relative(self, axis: int, position: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Place along an axis of (K, H, W) relative to the body, -1 at its low end and 1 at its high end; any shape."""
        center = (self.low[axis] + self.high[axis]) / 2
        half = max((self.high[axis] - self.low[axis]) / 2, 0.5)
        return np.clip((position - center) / half, -COORDINATE_LIMIT, COORDINATE_LIMIT).astype(np.float32)


def neighbors(index: int, slices: int, depth: int) -> npt.NDArray[np.int64]:
    """Indices of ``slices`` neighboring slices around ``index`` in a volume of ``depth``, repeated at the ends.

    An even number of slices has the first of its upper half at ``index``.
    """
    first = index - slices // 2
    return np.clip(np.arange(first, first + slices), 0, depth - 1).astype(np.int64)


def middle_inside(index: int, slices: int, depth: int) -> int:
    """The place, for `neighbors`, of a stack that holds the slice ``index`` and stays inside the volume if it can."""
    free = depth - slices
    first = free // 2 if free < 0 else min(max(index - slices // 2, 0), free)
    return first + slices // 2


def window(
    volume: npt.NDArray[Any], indices: npt.NDArray[np.int64], top: int, left: int, side: int, fill: float
) -> npt.NDArray[Any]:
    """A patch (len(indices), side, side) of a volume (K, H, W), ``fill`` where it reaches beyond a slice."""
    rows, columns = volume.shape[1:]
    patch = np.full((len(indices), side, side), fill, dtype=volume.dtype)
    row_0, row_1 = max(top, 0), min(top + side, rows)
    column_0, column_1 = max(left, 0), min(left + side, columns)
    if row_0 < row_1 and column_0 < column_1:
        target = patch[:, row_0 - top : row_1 - top, column_0 - left : column_1 - left]
        target[...] = volume[indices, row_0:row_1, column_0:column_1]
    return patch
