"""Walks the elements of a data set without recursion and without values, before a recursive parser sees them.

Elements are told as PS3.5 7.1 to 7.5 lays them out, with the leniency that pydicom has: an element in explicit VR whose
VR is no two capitals is implicit; so is an item whose first element is.
"""

import mmap
import struct
from dataclasses import dataclass
from typing import NamedTuple

from pydicom.datadict import dictionary_VR

from pipeline.errors import QuarantineError
from pipeline.scan_io.dicom.part10 import COPY_AGAIN, LONG_LENGTHS, PIXEL_DATA, UNDEFINED, truncated

MAXIMUM_DEPTH = 64
"""Sequences within each other; real objects stay below 20."""

MAXIMUM_ELEMENTS = 1_000_000

_PIXELS = frozenset({PIXEL_DATA, 0x7FE00008, 0x7FE00009})
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_HOSTILE = "Treat the file as hostile or damaged."

Content = bytes | mmap.mmap


class Pixels(NamedTuple):
    """The element that holds pixels: its tag, where its value begins, and its length or `UNDEFINED`."""

    tag: int
    offset: int
    length: int


class _Element(NamedTuple):
    tag: int
    vr: bytes | None
    length: int
    start: int


@dataclass
class _Level:
    """A sequence or a data set that the walk is in; ``end`` is None where a delimiter ends it."""

    is_sequence: bool
    end: int | None
    implicit: bool


class _MalformedError(Exception):
    """Structure that cannot be followed."""


class Walk:
    """The walk through one data set.

    Args:
        content: bytes that hold the data set.
        big: big endian.
    """

    def __init__(self, content: Content, *, big: bool) -> None:
        self._content, self._size = content, len(content)
        order = ">" if big else "<"
        self._implicit = struct.Struct(order + "HHL")
        self._explicit = struct.Struct(order + "HH2sH")
        self._long = struct.Struct(order + "L")
        self._sequence_end = struct.pack(order + "HH", 0xFFFE, 0xE0DD)
        self._count = 0

    def pixels(self, start: int, *, implicit: bool) -> Pixels | None:
        """Walk from ``start`` up to the pixels and tell where they are, or None where there are none.

        Raises:
            QuarantineError: TOO_DEEP, EXPANSION_LIMIT (elements), TRUNCATED, UNREADABLE.
        """
        implicit = self._switched(start, implicit, top=True)
        try:
            return self._follow(start, self._size, [_Level(False, None, implicit)], eager=True)
        except _MalformedError:
            raise QuarantineError("UNREADABLE", "sequences whose items cannot be found", COPY_AGAIN) from None

    def _follow(self, place: int, limit: int, stack: list[_Level], *, eager: bool) -> Pixels | None:
        """Walk until ``limit`` or the pixels; sequences of defined length are bounded by it when ``eager``."""
        while place < limit:
            level = stack[-1]
            if level.end is not None and place >= level.end:
                stack.pop()
                place = level.end if level.is_sequence else place
                if not stack:
                    return None
                continue
            self._charge(len(stack))
            if level.is_sequence:
                place = self._item(place, limit, stack)
                continue
            element = self._element(place, limit, level.implicit)
            if len(stack) == 1 and eager and element.tag in _PIXELS:
                return Pixels(element.tag, element.start, element.length)
            place = self._value(element, limit, stack, eager=eager)
            if not stack:
                return None
        if eager and len([level for level in stack if level.end is None]) > 1:
            raise truncated(f"a sequence that does not end within {self._size} bytes")
        return None

    def _charge(self, depth: int) -> None:
        self._count += 1
        if self._count > MAXIMUM_ELEMENTS:
            raise QuarantineError("EXPANSION_LIMIT", f"more than {MAXIMUM_ELEMENTS} elements", _HOSTILE)
        if depth > 2 * MAXIMUM_DEPTH:
            raise QuarantineError("TOO_DEEP", f"sequences nested over {MAXIMUM_DEPTH} levels", _HOSTILE)

    def _item(self, place: int, limit: int, stack: list[_Level]) -> int:
        """Enter the item at a place, or leave its sequence."""
        if place + 8 > limit:
            raise truncated(f"{limit - place} bytes where an item begins")
        group, number, length = self._implicit.unpack_from(self._content, place)
        tag = group << 16 | number
        if tag == _SEQUENCE_END:
            stack.pop()
        elif tag == _ITEM:
            end = None if length == UNDEFINED else place + 8 + length
            if end is not None and end > limit:
                raise truncated(f"an item of {length} bytes where {limit - place - 8} are left")
            stack.append(_Level(False, end, self._switched(place + 8, stack[-1].implicit, top=False)))
        else:
            raise _MalformedError
        return place + 8

    def _element(self, place: int, limit: int, implicit: bool) -> _Element:
        if place + 8 > limit:
            raise truncated(f"{limit - place} bytes where an element begins")
        if not implicit:
            group, number, vr, length = self._explicit.unpack_from(self._content, place)
            if vr in LONG_LENGTHS:
                if place + 12 > limit:
                    raise truncated(f"{limit - place} bytes where an element begins")
                (length,) = self._long.unpack_from(self._content, place + 8)
                return _Element(group << 16 | number, vr, length, place + 12)
            if b"AA" <= vr <= b"ZZ":
                return _Element(group << 16 | number, vr, length, place + 8)
        group, number, length = self._implicit.unpack_from(self._content, place)
        return _Element(group << 16 | number, None, length, place + 8)

    def _value(self, element: _Element, limit: int, stack: list[_Level], *, eager: bool) -> int:
        """Enter or pass over a value; returns where to go on."""
        tag, _, length, start = element
        if tag == _ITEM_END:
            if len(stack) == 1:
                raise _MalformedError
            stack.pop()
            return start
        if length == UNDEFINED:
            return self._undefined(element, limit, stack)
        end = start + length
        if end > limit:
            raise truncated(f"an element of {length} bytes where {limit - start} are left")
        if length >= 8 and self._holds_items(element):
            if not eager:
                stack.append(_Level(True, end, stack[-1].implicit))
                return start
            try:
                self._follow(start, end, [_Level(True, end, stack[-1].implicit)], eager=False)
            except _MalformedError:
                return end  # parsed only when asked for, and refused then
            except QuarantineError as error:
                if error.reason != "TRUNCATED":
                    raise
        return end

    def _undefined(self, element: _Element, limit: int, stack: list[_Level]) -> int:
        """A sequence that a delimiter ends, or encapsulated bytes."""
        _, vr, _, start = element
        if vr in (b"SQ", b"UN") or (self._holds_items(element) and vr is None):
            stack.append(_Level(True, None, stack[-1].implicit))
            return start
        end = self._content.find(self._sequence_end, start, limit)
        if end < 0:
            raise truncated(f"encapsulated bytes without an end in {limit - start} bytes")
        return end + 8

    def _holds_items(self, element: _Element) -> bool:
        """Whether the value is a sequence of items: by its VR, or as it begins where none is told."""
        tag, vr, _, start = element
        if vr not in (b"SQ", b"UN", None) or start + 8 > self._size:
            return False
        group, number, _ = self._implicit.unpack_from(self._content, start)
        return (group << 16 | number) == _ITEM or (vr is None and _is_sequence(tag))

    def _switched(self, place: int, implicit: bool, *, top: bool) -> bool:
        """Whether the data set at a place is in implicit VR, whatever its surroundings say."""
        vr = self._content[place + 4 : place + 6]
        if len(vr) < 2 or (implicit and not top):
            return implicit
        return not all(0x41 <= letter <= 0x5A for letter in vr)


def _is_sequence(tag: int) -> bool:
    try:
        return str(dictionary_VR(tag)) == "SQ"
    except KeyError:
        return False
