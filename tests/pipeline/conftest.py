"""Damage to files, as a fixture: one mutant of a file's bytes at a time."""

import io
import random
import struct
from collections.abc import Callable

import pydicom
import pytest
from pydicom.dataelem import RawDataElement

_VRS = ["CS", "UI", "DS", "IS", "US", "SS", "OB", "OW", "SQ", "UN", "UT", "LO", "AT", "FD", "PN", "ZZ", "\0\0", "sq"]
_LENGTHS = [0, 1, 2, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]
_VALUES = [
    b"",
    b"\\",
    b"1e999",
    b"nan",
    b"-0",
    b"1\\",
    b"\\\\1",
    b"../../x",
    b"\x1b$B%\\",
    b"\xff\xfe",
    b"\0" * 4,
    b"1_0 ",
]


def _elements(content: bytes) -> list[tuple[int, int, int]]:
    """(begin, begin of value, end) of the top-level elements, as pydicom tells them."""
    try:
        parsed = pydicom.dcmread(io.BytesIO(content))
    except Exception:  # no DICOM, or broken already
        return []
    raw = [item for item in parsed._dict.values() if isinstance(item, RawDataElement) and item.length < 0xFFFFFFFF]
    longs = ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")
    heads = [12 if not item.is_implicit_VR and item.VR in longs else 8 for item in raw]
    return [
        (item.value_tell - head, item.value_tell, item.value_tell + item.length)
        for item, head in zip(raw, heads, strict=True)
    ]


def _flip(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    reach = min(len(content), 4096) if rng.random() < 0.8 else len(content)
    for _ in range(rng.randint(1, 8)):
        damaged[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _splice(content: bytes, rng: random.Random) -> bytes:
    size = rng.randint(1, 64)
    source, target = rng.randrange(len(content)), rng.randrange(min(len(content), 4096))
    piece = content[source : source + size]
    return content[:target] + piece + content[target + (size if rng.random() < 0.5 else 0) :]


def _cut(content: bytes, rng: random.Random) -> bytes:
    places = [begin for begin, _, _ in _elements(content)] + [rng.randrange(len(content))]
    return content[: rng.choice(places)]


def _length(content: bytes, rng: random.Random) -> bytes:
    begin, value, end = _element(content, rng)
    lie = rng.choice([*_LENGTHS, end - value + 1, max(end - value - 2, 0), end - value + 2, rng.getrandbits(32)])
    wide = value - begin == 12 or not content[begin + 4 : begin + 6].isalpha()
    packed = struct.pack("<L", lie) if wide else struct.pack("<H", lie & 0xFFFF)
    return content[: value - len(packed)] + packed + content[value:]


def _vr(content: bytes, rng: random.Random) -> bytes:
    begin, _, _ = _element(content, rng)
    return content[: begin + 4] + rng.choice(_VRS).encode() + content[begin + 6 :]


def _delete(content: bytes, rng: random.Random) -> bytes:
    begin, _, end = _element(content, rng)
    return content[:begin] + content[end:]


def _repeat(content: bytes, rng: random.Random) -> bytes:
    begin, _, end = _element(content, rng)
    target = end if rng.random() < 0.5 else _element(content, rng)[0]
    return content[:target] + content[begin:end] + content[target:]


def _value(content: bytes, rng: random.Random) -> bytes:
    begin, value, _ = _element(content, rng)
    other = rng.choice([*_VALUES, rng.randbytes(rng.randint(1, 20))])
    other += b" " * (len(other) % 2)
    end = next(end for start, _, end in _elements(content) if start == begin)
    if value - begin == 12 or not content[begin + 4 : begin + 6].isalpha():
        head = content[begin : value - 4] + struct.pack("<L", len(other))
    else:
        head = content[begin : value - 2] + struct.pack("<H", len(other))
    return content[:begin] + head + other + content[end:]


def _element(content: bytes, rng: random.Random) -> tuple[int, int, int]:
    return rng.choice(_elements(content))


_DICOM_WAYS = (_flip, _splice, _cut, _length, _vr, _delete, _repeat, _value)
_OTHER_WAYS = (_flip, _splice, _cut)


def _mutant(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    """Name of the damage and the damaged bytes."""
    way = rng.choice(_DICOM_WAYS if _elements(content) else _OTHER_WAYS)
    return way.__name__[1:], way(content, rng)


@pytest.fixture(scope="session")
def mutant() -> Callable[[bytes, random.Random], tuple[str, bytes]]:
    """Damages a file: bits, splices, cuts, and for DICOM lengths, VRs, values, deleted and repeated elements."""
    return _mutant
