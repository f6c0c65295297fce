"""Memory that the two processes share, so that the voxels of a result are neither copied nor paged in twice.

The parent makes a few areas of anonymous memory (memfd_create(2)), seals their sizes, so that the parsing process
cannot make a touch of one fail, and lends one with each task. What lies in it crosses by its place alone. An area is
lent again when nothing of its last result is held any more. Bytes in it are not trusted, like all that comes from the
parsing process: they are voxels, whatever they hold.
"""

import fcntl
import math
import mmap
import os
import weakref
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

ARENA_BYTES = 256 << 20
"""Size of one area; memory is taken only as it is written to. Larger results cross through the pipe."""

ARENAS = 3
"""One for the result that is worked on, one for the next one, and one for the task that is sent ahead."""

NONE = (1 << 64) - 1
"""In a message: no area, or bytes that follow in the message itself."""

_POPULATE_READ, _POPULATE_WRITE = 22, 23
"""madvise(2), Linux 5.14 and later: enter the pages of a range at once, not with a fault each."""

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


class Arenas:
    """The parent's side.

    Attributes:
        descriptors: of the areas, for the parsing process.
    """

    def __init__(self) -> None:
        self.descriptors = Descriptors([_sealed() for _ in range(ARENAS)])
        self._memory = [mmap.mmap(descriptor, ARENA_BYTES) for descriptor in self.descriptors.numbers]
        self._lent = [False] * ARENAS
        self._held = [0] * ARENAS
        self._entered = [0] * ARENAS

    def lend(self) -> int:
        """Number of a free area, or `NONE`; it counts as lent until `settle`."""
        for number, lent in enumerate(self._lent):
            if not lent and not self._held[number]:
                self._lent[number] = True
                return number
        return NONE

    def part(self, number: int, place: int, size: int) -> memoryview:
        """Bytes of an area, which is not lent again while they are held.

        Raises:
            ValueError: there are no such bytes.
        """
        if not 0 <= number < ARENAS or place > ARENA_BYTES or size > ARENA_BYTES - place:
            raise ValueError("bytes outside of the area")
        start, end = max(place, self._entered[number]), place + size
        if end > start:
            _populate(self._memory[number], start, end - start, _POPULATE_READ)
            self._entered[number] = end
        content = np.frombuffer(self._memory[number], np.uint8, size, place)
        self._held[number] += 1
        weakref.finalize(content, self._release, number).atexit = False
        return content.data

    def settle(self, number: int) -> None:
        """Take an area back once its task has been answered."""
        if number != NONE:
            self._lent[number] = False

    def _release(self, number: int) -> None:
        self._held[number] -= 1


class Descriptors:
    """Descriptors that another process gets copies of when they are pickled for its start.

    Attributes:
        numbers: as this process knows them.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        self.numbers = numbers

    def close(self) -> None:
        """Close them; maps of them stay."""
        for number in self.numbers:
            os.close(number)
        self.numbers = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, ([DupFd(number) for number in self.numbers],)


def _received(copies: Sequence[Any]) -> Descriptors:
    return Descriptors([copy.detach() for copy in copies])


def _sealed() -> int:
    descriptor = os.memfd_create("results", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, ARENA_BYTES)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    return descriptor


class LentArenas:
    """The parsing process's side. Its address space is limited: no more of the areas is mapped than results need.

    Args:
        descriptors: of the areas.
    """

    def __init__(self, descriptors: Sequence[int]) -> None:
        self._descriptors = descriptors
        self._memory: dict[int, mmap.mmap] = {}
        self._number, self._taken = NONE, False

    def begin(self, number: int) -> None:
        """Use an area for an array of the next task; `NONE` for none."""
        self._number, self._taken = number, False

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array of no certain content; the first one of a task lies in its area if it fits."""
        dtype, count = np.dtype(dtype), math.prod(shape)
        if self._taken:
            return np.empty(shape, dtype)
        if self._number == NONE or not 0 < count * dtype.itemsize <= ARENA_BYTES:
            self._memory.clear()
            return np.empty(shape, dtype)
        self._taken = True
        return np.frombuffer(self._mapped(count * dtype.itemsize), dtype, count).reshape(shape)

    def place_of(self, content: memoryview) -> int:
        """Where bytes lie in the area of this task, or `NONE`."""
        memory = self._memory.get(self._number) if self._taken else None
        if memory is None or not len(content):
            return NONE
        place = _address(content) - _address(memory)
        return place if 0 <= place <= len(memory) - len(content) else NONE

    def _mapped(self, size: int) -> mmap.mmap:
        memory = self._memory.pop(self._number, None)
        if memory is None or len(memory) < size:
            memory = mmap.mmap(self._descriptors[self._number], size)
            _populate(memory, 0, size, _POPULATE_WRITE)
        if sum(map(len, self._memory.values())) + len(memory) > ARENA_BYTES:
            self._memory.clear()
        self._memory[self._number] = memory
        return memory


def _populate(memory: mmap.mmap, place: int, size: int, advice: int) -> None:
    """Enter pages ahead where the kernel can; without it they fault in one by one, with the same content."""
    start = place - place % mmap.PAGESIZE
    with suppress(OSError):
        memory.madvise(advice, start, place + size - start)


def _address(content: Any) -> int:
    return int(np.frombuffer(content, np.uint8).__array_interface__["data"][0])


_LENT = LentArenas(())


def lent() -> LentArenas:
    """The areas of this process; none where it is no parsing process."""
    return _LENT


def take(descriptors: Sequence[int]) -> LentArenas:
    """Make areas those of this process."""
    global _LENT  # parsers are plain functions; this is the process they run in
    _LENT = LentArenas(descriptors)
    return _LENT
