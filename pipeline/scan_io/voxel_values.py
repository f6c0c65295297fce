"""Collects the voxels of one volume as they are read, in the smallest of the two types that scans have.

Memory is that of the result and of one piece.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import QuarantineError

_INT16 = np.iinfo(np.int16)
_LARGEST = float(np.finfo(np.float32).max)


class VoxelValues:
    """Values in the order in which they come; int16 while int16 holds them exactly, float32 from then on.

    Args:
        count: number of values to come.
        in_hounsfield: round to int16, and limit to what it holds.
    """

    def __init__(self, count: int, *, in_hounsfield: bool) -> None:
        self._values: NDArray[Any] = np.empty(count, dtype=np.int16)
        self._in_hounsfield = in_hounsfield
        self._done = 0
        self._wrong: list[tuple[int, int, NDArray[np.uint8]]] = []
        self._smallest = math.inf
        self.non_finite = 0

    def add(self, piece: NDArray[Any]) -> None:
        """Take the next values: integers or floats, one axis."""
        if not piece.size:
            return
        smallest, largest = piece.min(), piece.max()
        if piece.dtype.kind == "f":
            if not (abs(smallest) <= _LARGEST and abs(largest) <= _LARGEST):  # false for NaN, too
                piece = self._without_non_finite(piece)
                smallest, largest = piece.min(), piece.max()
            else:
                self._smallest = min(self._smallest, float(smallest))
        if self._in_hounsfield:
            piece = np.clip(np.rint(piece), _INT16.min, _INT16.max) if piece.dtype != np.int16 else piece
        elif self._values.dtype == np.int16 and not _fits(piece, smallest, largest):
            self._widen()
        self._values[self._done : self._done + piece.size] = piece
        self._done += piece.size

    def finish(self, largest_share: float) -> NDArray[Any]:
        """All values, with non-finite ones replaced by the smallest finite one.

        Args:
            largest_share: of values that may be NaN, infinite or beyond float32.

        Raises:
            QuarantineError: NON_FINITE.
        """
        total = self._values.size
        if self.non_finite > largest_share * total or self.non_finite == total:
            found = f"{self.non_finite} of {total} voxels are NaN or infinite"
            advice = "Replace them by a background value at the source, or raise ingest.max_non_finite."
            raise QuarantineError("NON_FINITE", found, advice)
        filling = self._smallest
        if self._wrong and self._in_hounsfield:
            filling = float(np.clip(np.rint(filling), _INT16.min, _INT16.max))
        for start, size, packed in self._wrong:
            self._values[start : start + size][np.unpackbits(packed, count=size).view(bool)] = filling
        return self._values

    def _without_non_finite(self, piece: NDArray[Any]) -> NDArray[Any]:
        """The piece with its smallest finite value in place of others, whose places are remembered."""
        with np.errstate(invalid="ignore"):
            finite = np.abs(piece) <= _LARGEST
        values = piece[finite]
        smallest = float(values.min()) if values.size else 0.0
        if values.size:
            self._smallest = min(self._smallest, smallest)
        self._wrong.append((self._done, piece.size, np.packbits(~finite)))
        self.non_finite += piece.size - values.size
        return np.where(finite, piece, np.asarray(smallest, dtype=piece.dtype))

    def _widen(self) -> None:
        wider = np.empty(self._values.size, dtype=np.float32)
        wider[: self._done] = self._values[: self._done]
        self._values = wider


def _fits(piece: NDArray[Any], smallest: Any, largest: Any) -> bool:
    if not (_INT16.min <= smallest and largest <= _INT16.max):
        return False
    return piece.dtype.kind != "f" or bool(np.array_equal(piece, np.rint(piece)))
