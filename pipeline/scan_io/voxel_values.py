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
        self._wrong: list[tuple[int, NDArray[np.bool_]]] = []
        self.non_finite = 0

    def room(self, count: int, dtype: np.dtype[Any]) -> NDArray[Any] | None:
        """Where the next values belong if they are of that type already, to be filled and then given to `add`."""
        if self._values.dtype != dtype:
            return None
        return self._values[self._done : self._done + count]

    def add(self, piece: NDArray[Any]) -> None:
        """Take the next values: integers or floats, one axis, at least one."""
        if piece.dtype.kind == "f" and not _all_finite(piece):
            piece = self._without_non_finite(piece)
        if self._in_hounsfield:
            piece = np.clip(np.rint(piece), _INT16.min, _INT16.max)
        elif self._values.dtype == np.int16 and not _fits(piece):
            self._widen()
        place = self._values[self._done : self._done + piece.size]
        if piece.ctypes.data != place.ctypes.data:
            place[:] = piece
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
        if self._wrong:
            wrong = np.zeros(total, dtype=bool)
            for start, places in self._wrong:
                wrong[start : start + places.size] = places
            largest = _INT16.max if self._values.dtype == np.int16 else math.inf
            self._values[wrong] = self._values.min(where=~wrong, initial=largest)
        return self._values

    def _without_non_finite(self, piece: NDArray[Any]) -> NDArray[Any]:
        """The piece with 0 in place of values that are no numbers, whose places are remembered."""
        with np.errstate(invalid="ignore"):
            finite = np.abs(piece) <= _LARGEST
        if finite.all():
            return piece
        self._wrong.append((self._done, ~finite))
        self.non_finite += piece.size - int(np.count_nonzero(finite))
        return np.where(finite, piece, np.zeros((), dtype=piece.dtype))

    def _widen(self) -> None:
        wider = np.empty(self._values.size, dtype=np.float32)
        wider[: self._done] = self._values[: self._done]
        self._values = wider


def _all_finite(piece: NDArray[Any]) -> bool:
    """Tell in one pass that every value is finite; False where that is not certain."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.dot(piece, piece) < _LARGEST)


def _fits(piece: NDArray[Any]) -> bool:
    if np.can_cast(piece.dtype, np.int16):
        return True
    if not (_INT16.min <= piece.min() and piece.max() <= _INT16.max):
        return False
    return piece.dtype.kind != "f" or bool(np.array_equal(piece, np.rint(piece)))
