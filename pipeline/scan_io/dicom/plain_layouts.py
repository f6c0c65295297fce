"""Where the elements of plain headers lie: files of one series mostly agree, so that one look finds all values.

A layout is the heads (tag, VR, length) of all elements up to the pixels with their places. A file whose bytes at those
places are the same heads has the same elements at the same places, since each head tells where the next one begins.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from pipeline.scan_io.dicom.part10 import LONG_LENGTHS, META_OFFSET

_HEAD, _LONG = struct.Struct("<HH2sH"), struct.Struct("<L")
_MAGIC_PLACE, _LONG_HEAD, _PIXELS = META_OFFSET - 4, 12, 0x7FE0
_KEPT = 8
_PATIENCE, _PAUSE = 16, 256
"""Layouts learnt in a row that no file has shared, after which so many files pass before another one is learnt."""

Raw = tuple[bytes, bytes]
"""VR and bytes of one value; of a sequence only that it is there."""


class Found(NamedTuple):
    """Values by tag, and where the pixels lie: offset and length in bytes."""

    values: dict[int, Raw]
    offset: int
    length: int


class _Layout(NamedTuple):
    last_place: int
    last_head: bytes
    heads: struct.Struct
    told: tuple[bytes, ...]
    values: struct.Struct
    tags: tuple[int, ...]
    vrs: tuple[bytes, ...]
    length: int


class Layouts:
    """Layouts of the files walked last.

    Args:
        wanted: tags whose values are kept.
        fixed: tags whose values are a part of the layout: what they say decides how others are read.
    """

    def __init__(self, wanted: frozenset[int], fixed: frozenset[int]) -> None:
        self._wanted, self._fixed = wanted, fixed
        self._layouts: list[_Layout] = []
        self._in_vain = 0

    def read(self, content: bytes) -> Found | None:
        """Values of a file that is laid out like one before it.

        Args:
            content: its first bytes.
        """
        for number, layout in enumerate(self._layouts):
            place = layout.last_place
            if (
                content[place : place + _LONG_HEAD] != layout.last_head
                or layout.heads.unpack_from(content) != layout.told
            ):
                continue
            if number:
                self._layouts.insert(0, self._layouts.pop(number))
            self._in_vain = 0
            values = zip(layout.vrs, layout.values.unpack_from(content), strict=True)
            return Found(dict(zip(layout.tags, values, strict=True)), place + _LONG_HEAD, layout.length)
        return None

    def learn(self, content: bytes) -> None:
        """Keep the layout of a file, explicit VR little endian with native pixels, that has just been walked."""
        self._in_vain += 1
        if self._in_vain > _PATIENCE and self._in_vain % _PAUSE:
            return
        layout = self._of(content)
        if layout is not None:
            self._layouts = [layout, *self._layouts[: _KEPT - 1]]

    def _of(self, content: bytes) -> _Layout | None:
        heads, values = _Pieces(), _Pieces()
        heads.add(_MAGIC_PLACE, META_OFFSET)
        kept: list[tuple[int, bytes]] = []
        for tag, vr, place, start, length in _elements(content):
            if tag >> 16 == _PIXELS and start - place == _LONG_HEAD:
                heads.add(place, start)
                told = heads.packed().unpack_from(content)
                tags, vrs = tuple(tag for tag, _ in kept), tuple(vr for _, vr in kept)
                return _Layout(place, content[place:start], heads.packed(), told, values.packed(), tags, vrs, length)
            if length & 1:  # odd, or undefined
                return None
            heads.add(place, start + length if tag in self._fixed else start)
            if tag in self._wanted:
                values.add(start, start + length)
                kept.append((tag, vr))
        return None


class _Pieces:
    """Places of bytes, as a format that `struct` reads at once."""

    def __init__(self) -> None:
        self._format, self._end = ["="], 0

    def add(self, start: int, end: int) -> None:
        self._format.append(f"{start - self._end}x{end - start}s")
        self._end = end

    def packed(self) -> struct.Struct:
        return struct.Struct("".join(self._format))


def _elements(content: bytes) -> Iterator[tuple[int, bytes, int, int, int]]:
    """Tag, VR, place of head and value, and length, of each element whose head is in ``content``."""
    place = META_OFFSET
    while place + _LONG_HEAD <= len(content):
        group, number, vr, length = _HEAD.unpack_from(content, place)
        start = place + 8
        if vr in LONG_LENGTHS:
            (length,) = _LONG.unpack_from(content, start)
            start += 4
        yield group << 16 | number, vr, place, start, length
        place = start + length
