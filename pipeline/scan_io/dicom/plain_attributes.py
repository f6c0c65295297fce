"""`Attributes` of a plain file: values converted as pydicom converts them, or by pydicom where that is not certain."""

import re
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from pipeline.scan_io.dicom.attributes import (
    BY_REPRESENTATION,
    Attributes,
    as_numbers,
    as_private,
    as_texts,
    as_whole,
    by_representation,
)
from pipeline.scan_io.dicom.plain import NotPlain
from pipeline.scan_io.dicom.plain_keys import PRIVATE, TAGS
from pipeline.scan_io.dicom.plain_layouts import Raw

_DECIMAL = re.compile(r" *[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[Ee][+-]?[0-9]{1,3})? *")
_INTEGER = re.compile(r" *[+-]?[0-9]{1,9} *")
_CODES = {b"US": "H", b"SS": "h", b"UL": "L", b"SL": "l", b"FL": "f", b"FD": "d"}
_FIXED_CHARSET = frozenset({b"AE", b"AS", b"CS", b"DA", b"DT", b"TM", b"UI"})
_FIXED = _FIXED_CHARSET | {b"DS", b"IS"} | frozenset(_CODES)
_REMEMBERED = 4096
_CHARSETS = {b"": "latin-1", b"ISO_IR 6": "latin-1", b"ISO_IR 100": "latin-1", b"ISO_IR 192": "utf-8"}
_ASCII_CHARSETS = frozenset({b"ISO_IR 101", b"ISO_IR 109", b"ISO_IR 110", b"ISO_IR 126", b"ISO_IR 127", b"ISO_IR 138"})
_ASCII_CHARSETS |= frozenset({b"ISO_IR 144", b"ISO_IR 148", b"ISO_IR 166", b"GB18030", b"GBK"})
_ASCII_CHARSETS |= frozenset({b"\\ISO 2022 IR 87", b"ISO 2022 IR 6\\ISO 2022 IR 87"})
_CHARSET = TAGS["SpecificCharacterSet"]


class PlainAttributes:
    """`Attributes` over the bytes that `plain.walk` kept.

    Args:
        values: by tag.
        fallback: parses the same file with pydicom; called once, if ever.
    """

    __slots__ = ("_fallback", "_parsed", "_values")

    def __init__(self, values: dict[int, Raw], fallback: Callable[[], Attributes]) -> None:
        self._values, self._fallback = values, fallback
        self._parsed: Attributes | None = None

    def has(self, keyword: str) -> bool:
        """See `Attributes.has`."""
        tag = TAGS.get(keyword)
        return self._slow().has(keyword) if tag is None else tag in self._values

    def text(self, keyword: str) -> str | None:
        """See `Attributes.text`."""
        return (self.texts(keyword) or ("",))[0] or None

    def texts(self, keyword: str) -> tuple[str, ...]:
        """See `Attributes.texts`."""
        try:
            raw = self._raw(keyword)
            if raw is None:
                return ()
            return _fixed_texts(*raw) if raw[0] in _FIXED else as_texts(keyword, self._values_of(raw))
        except NotPlain:
            return self._slow().texts(keyword)

    def number(self, keyword: str) -> float | None:
        """See `Attributes.number`."""
        try:
            return (self._numbers(keyword, first=True) or (None,))[0]
        except NotPlain:
            return self._slow().number(keyword)

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """See `Attributes.numbers`."""
        try:
            return self._numbers(keyword, first=False)
        except NotPlain:
            return self._slow().numbers(keyword)

    def whole(self, keyword: str) -> int | None:
        """See `Attributes.whole`."""
        try:
            raw = self._raw(keyword)
            if raw is None:
                return None
            number = _fixed_whole(keyword, *raw) if raw[0] in _FIXED else as_whole(keyword, self._values_of(raw))
        except NotPlain:
            return self._slow().whole(keyword)
        if number is None or keyword not in BY_REPRESENTATION:
            return number
        return by_representation(number, signed=self.whole("PixelRepresentation") == 1)

    def items(self, keyword: str) -> tuple[Attributes, ...]:
        """See `Attributes.items`."""
        tag = TAGS.get(keyword)
        return () if tag is not None and tag not in self._values else self._slow().items(keyword)

    def private(self, creator: str, group: int, offset: int) -> bytes | str | int | float | None:
        """See `Attributes.private`."""
        try:
            return self._private(creator, group, offset)
        except NotPlain:
            return self._slow().private(creator, group, offset)

    def _private(self, creator: str, group: int, offset: int) -> bytes | str | int | float | None:
        if (group, offset) not in PRIVATE:
            raise NotPlain
        name, first = creator.encode("latin-1"), group << 16
        vr, content = self._values.get(first, (b"UL", b"\0\0\0\0"))
        if vr != b"UL" or len(content) != 4:  # a group length that pydicom stumbles over
            raise NotPlain
        for tag, told in self._values.items():
            if not first + 0x10 <= tag <= first + 0xFF:
                continue
            if told[0] != b"LO":
                raise NotPlain
            if told[1].rstrip(b" \0") == name:
                raw = self._values.get(tag << 8 & 0xFF00 | first | offset)
                return None if raw is None else self._private_value(raw)
        return None

    def _private_value(self, raw: Raw) -> bytes | str | int | float | None:
        vr, content = raw
        if vr == b"OB":
            return content
        values = self._values_of(raw)
        if not values:
            raise NotPlain
        if vr in (b"DS", b"IS"):
            return int(values[0]) if vr == b"IS" else float(values[0])
        return as_private(values[0])

    def _slow(self) -> Attributes:
        if self._parsed is None:
            self._parsed = self._fallback()
        return self._parsed

    def _raw(self, keyword: str) -> Raw | None:
        tag = TAGS.get(keyword)
        if tag is None:
            raise NotPlain
        return self._values.get(tag)

    def _numbers(self, keyword: str, *, first: bool) -> tuple[float, ...]:
        raw = self._raw(keyword)
        if raw is None:
            return ()
        if raw[0] in _FIXED:
            return _fixed_numbers(keyword, *raw, first=first)
        return as_numbers(keyword, self._values_of(raw)[: 1 if first else None])

    def _values_of(self, raw: Raw) -> Sequence[Any]:
        """Numbers where the VR is binary, else texts; those of DS and IS are numbers.

        Raises:
            NotPlain: pydicom might see it otherwise.
        """
        vr, content = raw
        if vr in _FIXED:
            return _fixed_values(vr, content)
        if vr in (b"LO", b"SH"):
            return [part.rstrip(" \0") for part in self._decoded(content).split("\\")]
        raise NotPlain

    def _decoded(self, content: bytes) -> str:
        """Text in the character set of the file (PS3.5 6.1), where that is certain."""
        if b"\x1b" in content:
            raise NotPlain
        raw = self._values.get(_CHARSET)
        name = raw[1].rstrip(b" \0") if raw is not None else b""
        codec = _CHARSETS.get(name)
        if content.isascii() and (codec is not None or name in _ASCII_CHARSETS):
            return content.decode("ascii")
        if codec is None:
            raise NotPlain
        try:
            return content.decode(codec)
        except UnicodeDecodeError:
            raise NotPlain from None


@lru_cache(_REMEMBERED)
def _fixed_values(vr: bytes, content: bytes) -> tuple[Any, ...]:
    """Values that no character set can change; the slices of a series share most of them."""
    if vr in (b"DS", b"IS"):
        return tuple(_decimals(vr, content))
    code = _CODES.get(vr)
    if code is not None:
        return tuple(_binary(code, content))
    return tuple(content.decode("latin-1").rstrip(" \0").split("\\"))


@lru_cache(_REMEMBERED)
def _fixed_texts(vr: bytes, content: bytes) -> tuple[str, ...]:
    return as_texts("", _fixed_values(vr, content))


@lru_cache(_REMEMBERED)
def _fixed_numbers(keyword: str, vr: bytes, content: bytes, *, first: bool) -> tuple[float, ...]:
    return as_numbers(keyword, _fixed_values(vr, content)[: 1 if first else None])


@lru_cache(_REMEMBERED)
def _fixed_whole(keyword: str, vr: bytes, content: bytes) -> int | None:
    return as_whole(keyword, _fixed_values(vr, content))


def _decimals(vr: bytes, content: bytes) -> list[Any]:
    pattern = _DECIMAL if vr == b"DS" else _INTEGER
    values = content.decode("latin-1").rstrip(" \0").split("\\")
    if values == [""]:
        return []
    if not all(map(pattern.fullmatch, values)):
        raise NotPlain
    return list(values)


def _binary(code: str, content: bytes) -> list[Any]:
    if not content:
        return []
    count, rest = divmod(len(content), struct.calcsize("<" + code))
    if rest:
        raise NotPlain
    return list(struct.unpack(f"<{count}{code}", content))
