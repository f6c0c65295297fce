"""Memory of volumes that is used again: on fresh memory the system spends more time than on copying into it."""

import math
import weakref
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

BLOCKS = 3
"""Volumes at a time: the one that is worked on, the one before it that is still held, and the next one."""


class VolumeMemory:
    """Blocks that are lent to arrays, and lent again when nothing of an array is held any more."""

    def __init__(self) -> None:
        self._blocks: list[NDArray[np.uint8]] = [np.empty(0, np.uint8)] * BLOCKS
        self._free = list(range(BLOCKS))

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array of no certain content; in memory of its own where all blocks are held."""
        dtype, count = np.dtype(dtype), math.prod(shape)
        if not self._free or not count:
            return np.empty(shape, dtype)
        number = self._free.pop()
        if self._blocks[number].nbytes < count * dtype.itemsize:
            self._blocks[number] = np.empty(count * dtype.itemsize, np.uint8)
        content = self._blocks[number][: count * dtype.itemsize]
        weakref.finalize(content, self._free.append, number).atexit = False
        return np.frombuffer(content.data, dtype, count).reshape(shape)  # its views hold the content, not the block
