"""A quick walk through the headers of plain DICOM files: little endian, without anything odd.

pydicom turns every element into objects; most files need about seventy values. This walk reads the first bytes of a
file, follows the elements by their lengths up to the pixels (PS3.5 7.1), and keeps the bytes of those values. What it
cannot follow with certainty, or convert just as pydicom would, it leaves to pydicom: `NotPlain`.
"""

import os
import stat
import struct
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pipeline.scan_io.dicom.part10 import DEFLATED, IMPLICIT_LITTLE_ENDIAN, LONG_LENGTHS, PIXEL_DATA, UNDEFINED
from pipeline.scan_io.dicom.plain_keys import CHARACTER_SETS, PRIVATE, TAGS
from pipeline.scan_io.dicom.plain_layouts import Layouts, Raw
from pipeline.scan_io.dicom.transfer_syntaxes import BIG_ENDIAN, DECODED, PLAIN

_OTHERWISE_ENCODED = frozenset({DEFLATED, BIG_ENDIAN})
_FIRST_BYTES, _MORE_BYTES, _HEADER_CAP = 1 << 14, 1 << 16, 1 << 23
_MAXIMUM_ELEMENTS, _MAXIMUM_DEPTH = 20_000, 16
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD

_SHORT_LENGTHS = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS"}
    | {b"ST", b"TM", b"UI", b"UL", b"US"}
)
_LONG_LENGTH = {**dict.fromkeys(LONG_LENGTHS, True), **dict.fromkeys(_SHORT_LENGTHS, False)}
"""VR → whether its length takes four bytes."""

_EXPLICIT, _IMPLICIT, _LONG = struct.Struct("<HH2sH"), struct.Struct("<HHL"), struct.Struct("<L")
_FIRST_PIXELS = 0x7FE00008
"""FloatPixelData; what comes from here on holds pixels or follows them."""

_CREATORS = {group << 16 | block for group, _ in PRIVATE for block in (0, *range(0x10, 0x100))}
_BLOCKS = {group << 16 | block << 8 | offset for group, offset in PRIVATE for block in range(0x10, 0x100)}
_WANTED = frozenset({*TAGS.values(), *_CREATORS, *_BLOCKS})


@cache
def _standard_vrs() -> dict[int, bytes]:
    """VRs by tag (PS3.6), which implicit files leave out."""
    from pydicom.datadict import DicomDictionary

    return {tag: str(entry[0]).encode() for tag, entry in DicomDictionary.items()}


_SYNTAX = 0x00020010
_LAYOUTS = Layouts(_WANTED | {_SYNTAX}, frozenset({_SYNTAX, TAGS["SpecificCharacterSet"]}))


class NotPlain(Exception):  # noqa: N818  # no error: the file goes to pydicom
    """The walk cannot be certain of this file."""


class PlainFile(NamedTuple):
    """What the walk found.

    Attributes:
        values: by tag.
        transfer_syntax_uid: little endian and not deflated.
        pixel_offset: where PixelData begins in the file; None where it is compressed.
        pixel_length: its bytes, or None.
        size: bytes of the file.
    """

    values: dict[int, Raw]
    transfer_syntax_uid: str
    pixel_offset: int | None
    pixel_length: int | None
    size: int


def walk(path: Path) -> PlainFile:
    """Read the values up to the pixels.

    Raises:
        NotPlain: the file is odd in any way, or is none.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        raise NotPlain from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotPlain
        return _Walk(descriptor, status.st_size).file()
    except (OSError, KeyError, struct.error):  # KeyError: an unknown VR
        raise NotPlain from None
    finally:
        os.close(descriptor)


class _Walk:
    """The bytes of a file read so far, and the values found in them."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor, self._size = descriptor, size
        self._content = os.pread(descriptor, _FIRST_BYTES, 0)
        self._values: dict[int, Raw] = {}

    def file(self) -> PlainFile:
        """Everything that is wanted, up to the pixels."""
        known = _LAYOUTS.read(self._content)
        if known is not None and known.offset + known.length <= self._size:
            syntax = known.values.pop(_SYNTAX)[1].rstrip(b"\0 ").decode("latin-1")
            return PlainFile(known.values, syntax, known.offset, known.length, self._size)
        syntax, place = self._meta()
        if syntax not in DECODED or syntax in _OTHERWISE_ENCODED:
            raise NotPlain
        start, length = self._implicit(place) if syntax == IMPLICIT_LITTLE_ENDIAN else self._explicit(place)
        vr, charset = self._values.get(TAGS["SpecificCharacterSet"], (b"CS", b""))
        if vr != b"CS" or not CHARACTER_SETS.issuperset(charset.decode("latin-1").rstrip().split("\\")):
            raise NotPlain
        if syntax not in PLAIN and length == UNDEFINED:
            return PlainFile(self._values, syntax, None, None, self._size)
        if syntax not in PLAIN or start + length > self._size:
            raise NotPlain
        if syntax != IMPLICIT_LITTLE_ENDIAN:
            _LAYOUTS.learn(self._content)
        return PlainFile(self._values, syntax, start, length, self._size)

    def _meta(self) -> tuple[str, int]:
        """Transfer syntax, and where the data set begins (PS3.10 7.1)."""
        content = self._content
        if content[128:132] != b"DICM":
            raise NotPlain
        place, last, syntax = 132, -1, ""
        while content[place : place + 2] == b"\x02\0":
            _, element, vr, length = _EXPLICIT.unpack_from(content, place)
            if element <= last or vr == b"SQ":
                raise NotPlain
            place += 8
            if _LONG_LENGTH[vr]:
                (length,) = _LONG.unpack_from(content, place)
                place += 4
            if length & 1 or place + length + 8 > len(content):
                raise NotPlain
            if element == 0x0010:
                syntax = content[place : place + length].rstrip(b"\0 ").decode("latin-1")
            last, place = element, place + length
        return syntax, place

    def _explicit(self, place: int) -> tuple[int, int]:
        """Walk elements in explicit VR; returns offset and length of the pixels."""
        content, held, last = self._content, len(self._content), 0x0007FFFF
        wanted, unpack, long_length, values = _WANTED, _EXPLICIT.unpack_from, _LONG_LENGTH, self._values
        for _ in range(_MAXIMUM_ELEMENTS):
            if place + 12 > held:
                content = self._reach(place + 12)
                held = len(content)
            group, number, vr, length = unpack(content, place)
            tag = group << 16 | number
            if tag <= last:
                raise NotPlain
            last = tag
            if long_length[vr]:
                (length,) = _LONG.unpack_from(content, place + 8)
                place += 12
            else:
                place += 8
            if tag >= _FIRST_PIXELS:
                return self._pixels(tag, vr, place, length)
            if length & 1:  # odd, or undefined
                if tag in wanted:
                    values[tag] = (vr, b"")
                place = self._sequence(vr, place, length, implicit=False)
                continue
            end = place + length
            if tag in wanted:
                if end > held:
                    content = self._reach(end)
                    held = len(content)
                values[tag] = (vr, content[place:end])
            place = end
        raise NotPlain

    def _implicit(self, place: int) -> tuple[int, int]:
        """Walk elements in implicit VR; their VRs are those of PS3.6."""
        last, vrs = 0x0007FFFF, _standard_vrs()
        if self._content[place + 4 : place + 6].isalpha():  # begins like explicit VR
            raise NotPlain
        for _ in range(_MAXIMUM_ELEMENTS):
            group, number, length = _IMPLICIT.unpack_from(self._reach(place + 8), place)
            tag = group << 16 | number
            if tag <= last:
                raise NotPlain
            last, vr = tag, vrs.get(tag, b"UN")
            place += 8
            if tag >= _FIRST_PIXELS:
                return self._pixels(tag, b"OW", place, length)
            end = self._sequence(vr, place, length, implicit=True) if length & 1 else place + length
            if tag in _WANTED:
                self._values[tag] = (vr, b"" if length & 1 else self._reach(end)[place:end])
            place = end
        raise NotPlain

    def _pixels(self, tag: int, vr: bytes, start: int, length: int) -> tuple[int, int]:
        if tag != PIXEL_DATA or vr not in (b"OW", b"OB"):
            raise NotPlain
        return start, length

    def _reach(self, end: int) -> bytes:
        """The file, at least up to ``end``."""
        if end <= len(self._content):
            return self._content
        if end > min(self._size, _HEADER_CAP):
            raise NotPlain
        target = min(self._size, max(2 * len(self._content), end + _MORE_BYTES))
        self._content += os.pread(self._descriptor, target - len(self._content), len(self._content))
        if len(self._content) < end:
            raise NotPlain
        return self._content

    def _sequence(self, vr: bytes, place: int, length: int, *, implicit: bool) -> int:
        """Walk a sequence of undefined length; returns where it ends.

        The stack holds the end of each item, and None for a sequence or an item that a delimiter ends.
        """
        if length != UNDEFINED or vr != b"SQ":
            raise NotPlain
        stack: list[tuple[bool, int | None]] = [(True, None)]
        for _ in range(_MAXIMUM_ELEMENTS):
            while stack and stack[-1][1] is not None and place >= (stack[-1][1] or 0):
                if place != stack.pop()[1]:
                    raise NotPlain
            if len(stack) > 2 * _MAXIMUM_DEPTH:
                raise NotPlain
            is_sequence = stack[-1][0]
            place = self._in_sequence(place, stack) if is_sequence else self._in_item(place, stack, implicit=implicit)
            if not stack:
                return place
        raise NotPlain

    def _in_sequence(self, place: int, stack: list[tuple[bool, int | None]]) -> int:
        """Pass the head of an item, or the end of the sequence."""
        group, number, length = _IMPLICIT.unpack_from(self._reach(place + 8), place)
        tag = group << 16 | number
        place += 8
        if tag == _SEQUENCE_END and length == 0:
            stack.pop()
        elif tag == _ITEM:
            stack.append((False, None if length == UNDEFINED else place + length))
        else:
            raise NotPlain
        return place

    def _in_item(self, place: int, stack: list[tuple[bool, int | None]], *, implicit: bool) -> int:
        """Pass an element of an item, or the end of the item."""
        content = self._reach(place + 12) if place + 12 <= self._size else self._reach(place + 8)
        group, number, length = _IMPLICIT.unpack_from(content, place)
        tag = group << 16 | number
        place += 8
        if group == 0xFFFE:
            if tag != _ITEM_END or length != 0 or stack[-1][1] is not None:
                raise NotPlain
            stack.pop()
            return place
        if implicit:
            vr = _standard_vrs().get(tag, b"UN")
        else:
            _, _, vr, length = _EXPLICIT.unpack_from(content, place - 8)
            if _LONG_LENGTH[vr]:
                (length,) = _LONG.unpack_from(content, place)
                place += 4
        if length == UNDEFINED:
            if vr != b"SQ":
                raise NotPlain
            stack.append((True, None))
            return place
        if length & 1 or place + length > self._size:
            raise NotPlain
        return int(place + length)
