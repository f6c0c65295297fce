"""The outside of a DICOM file (PS3.10 7.1): a regular file, a preamble, the magic, the file meta information."""

import mmap
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import QuarantineError

MAGIC_OFFSET, META_OFFSET = 128, 132

IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"

UNDEFINED = 0xFFFFFFFF
"""A length that a delimiter tells (PS3.5 7.1)."""

PIXEL_DATA = 0x7FE00010

COPY_AGAIN = "Copy the file again from its source."
LONG_LENGTHS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
"""Value representations whose length takes four bytes, after two that are reserved (PS3.5 7.1.2)."""

_MIB = 1 << 20
_INFLATED_FLOOR, _INFLATED_CAP, _INFLATED_RATIO = 16 * _MIB, 512 * _MIB, 100
_META_CAP = _MIB
_OTHER_KINDS = (
    (b"\x1f\x8b", "a gzip file"),
    (b"PK\x03\x04", "a zip archive"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a zstandard file"),
    (b"7z\xbc\xaf", "a 7-zip archive"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"%PDF", "a PDF document"),
)


@dataclass(frozen=True)
class FileMeta:
    """What the file meta information says.

    Attributes:
        transfer_syntax_uid: (0002,0010).
        end: offset of the data set.
    """

    transfer_syntax_uid: str
    end: int


@contextmanager
def regular_file(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading; neither a link in its last part nor a pipe or device.

    Raises:
        QuarantineError: NOT_DICOM for anything but a regular file, UNREADABLE where the system refuses.
    """
    try:
        stream = open(path, "rb", buffering=0, opener=_no_follow)  # noqa: SIM115
    except OSError as error:
        raise QuarantineError("UNREADABLE", _system_error(error), COPY_AGAIN) from None
    with stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise QuarantineError("NOT_DICOM", "no regular file", "Leave links, pipes and devices out.")
        yield stream


def _no_follow(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _system_error(error: OSError) -> str:
    return f"the system says {os.strerror(error.errno)}" if error.errno else "the system refuses to open it"


@contextmanager
def mapped(stream: BinaryIO) -> Iterator[mmap.mmap]:
    """Map a file's bytes; closes the map.

    Raises:
        QuarantineError: NOT_DICOM for an empty file.
    """
    if os.fstat(stream.fileno()).st_size == 0:
        raise not_dicom(b"")
    with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content


def not_dicom(beginning: bytes) -> QuarantineError:
    """The refusal of a file without the DICOM magic, which names what its first bytes tell."""
    advice = "Convert it to DICOM Part 10 if it is an image; it is never read by force."
    if not beginning:
        return QuarantineError("NOT_DICOM", "an empty file", advice)
    for magic, name in _OTHER_KINDS:
        if beginning.startswith(magic):
            return QuarantineError("NOT_DICOM", name, "Unpack or convert it first; packed files are never unpacked.")
    return QuarantineError("NOT_DICOM", "no DICOM magic after the preamble", advice)


def truncated(found: str) -> QuarantineError:
    """The refusal of a file that ends early."""
    return QuarantineError("TRUNCATED", found, COPY_AGAIN)


def read_meta(content: "bytes | mmap.mmap") -> FileMeta:
    """Walk the file meta information: explicit VR little endian, group 2 (PS3.10 7.1).

    Raises:
        QuarantineError: NOT_DICOM, TRUNCATED, MISSING_SYNTAX.
    """
    if content[MAGIC_OFFSET:META_OFFSET] != b"DICM":
        raise not_dicom(content[:MAGIC_OFFSET])
    place, size, syntax = META_OFFSET, len(content), ""
    while place + 8 <= min(size, _META_CAP) and content[place : place + 2] == b"\x02\0":
        element, vr, length = struct.unpack_from("<H2sH", content, place + 2)
        start = place + 8
        if vr in LONG_LENGTHS:
            if start + 4 > size:
                break
            (length,) = struct.unpack_from("<L", content, start)
            start += 4
        place = start + length
        if place > size:
            raise truncated(f"a file header that claims {length} bytes where {size - start} are left")
        if element == 0x0010:
            syntax = content[start:place].rstrip(b"\0 ").decode("ascii", "replace")
    if not syntax:
        if place + 12 > size:
            raise truncated(f"a file header that ends after {size} bytes")
        raise QuarantineError(
            "MISSING_SYNTAX",
            "a file header without a transfer syntax",
            "Export it with complete file meta information.",
        )
    return FileMeta(syntax, place)


def inflate(content: "bytes | mmap.mmap", start: int) -> bytes:
    """Undo the deflated transfer syntax (PS3.5 A.5) as a stream, up to a cap.

    Args:
        content: the file.
        start: where its data set begins.

    Raises:
        QuarantineError: EXPANSION_LIMIT over 512 MiB, or over 100 times the size of the file where that is more than
            16 MiB; TRUNCATED, UNREADABLE.
    """
    packed = len(content) - start
    cap = min(_INFLATED_CAP, max(_INFLATED_FLOOR, _INFLATED_RATIO * packed))
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    parts: list[bytes] = []
    held = 0
    try:
        for place in range(start, len(content), _MIB):
            waiting = content[place : place + _MIB]
            while waiting and not stream.eof:
                parts.append(stream.decompress(waiting, _MIB))
                held += len(parts[-1])
                waiting = stream.unconsumed_tail
                if held > cap:
                    found = f"{packed} deflated bytes that inflate to more than {cap}"
                    raise QuarantineError("EXPANSION_LIMIT", found, "Treat the file as hostile.")
    except zlib.error:
        raise QuarantineError("UNREADABLE", "deflated bytes that cannot be inflated", COPY_AGAIN) from None
    if not stream.eof:
        raise truncated(f"{packed} deflated bytes without an end")
    return b"".join(parts)
