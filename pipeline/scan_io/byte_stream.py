"""Bytes of a file that may be compressed, piece by piece, so that nothing is inflated that nobody asked for."""

import io
import zlib
from typing import BinaryIO

from pipeline.errors import QuarantineError

GZIP_MAGIC = b"\x1f\x8b"
GZIP_WINDOW, ZLIB_WINDOW = 31, 15
"""`zlib.decompressobj` arguments for gzip members (RFC 1952) and for zlib streams (RFC 1950)."""

EXPANSION_RATIO = 200
"""Inflated bytes a compressed byte; above it, and above `EXPANSION_BYTES`, a claim is not believed."""

EXPANSION_BYTES = 512 << 20
"""Claims up to this size are believed whatever the ratio: sparse masks reach what deflate can do."""

DEFLATE_RATIO = 1032
"""Most bytes that one byte of a deflate stream can stand for (258 bytes for two bits)."""

SLACK_BYTES = 1 << 20
"""Bytes behind the last voxel that are passed over; a stream that goes on is refused."""

PIECE_BYTES = 1 << 20


class InflatedBytes(io.RawIOBase):
    """Inflates what a file holds, as it is read.

    Members of a gzip file are read one after another; their checksums are verified where a member ends. What follows
    the last member and is no gzip is not read.

    Args:
        file: at the first compressed byte.
        window: `GZIP_WINDOW` or `ZLIB_WINDOW`.

    Attributes:
        trailing: something followed the last member.
    """

    def __init__(self, file: BinaryIO, window: int = GZIP_WINDOW) -> None:
        super().__init__()
        self._file, self._window = file, window
        self._inflater = zlib.decompressobj(window)
        self._waiting = b""
        self._ended = False
        self.trailing = False

    def readable(self) -> bool:
        """See `io.IOBase`."""
        return True

    def readinto(self, buffer: "memoryview[int]") -> int:  # type: ignore[override]
        """Fill at most the buffer; 0 at the end. Raises EOFError where a member is cut off, zlib.error on damage."""
        piece = self._next_piece(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def _next_piece(self, size: int) -> bytes:
        while not self._ended:
            compressed = self._waiting or self._file.read(PIECE_BYTES)
            piece = self._inflater.decompress(compressed, size)
            self._waiting = self._inflater.unconsumed_tail
            if self._inflater.eof:
                self._next_member()
            if piece:
                return piece
            if not compressed and not self._ended:
                raise EOFError
        return b""

    def _next_member(self) -> None:
        """Go on with the member that follows; zeros between members are padding, as gzip itself reads it."""
        rest = self._inflater.unused_data
        self._ended = self._window != GZIP_WINDOW
        while not self._ended and not (rest := rest.lstrip(b"\0")):
            rest = self._file.read(PIECE_BYTES)
            self._ended = not rest
        if not self._ended and rest[:1] == GZIP_MAGIC[:1] and len(rest) == 1:
            rest += self._file.read(PIECE_BYTES)
        if self._ended or rest[:2] != GZIP_MAGIC:
            self._ended, self.trailing = True, bool(rest)
            return
        self._inflater, self._waiting = zlib.decompressobj(self._window), rest


def fill(stream: io.RawIOBase | BinaryIO, buffer: "memoryview[int]") -> None:
    """Fill the whole buffer; raises EOFError where the stream is shorter."""
    done = 0
    while done < len(buffer):
        count = stream.readinto(buffer[done:])  # type: ignore[union-attr]
        if not count:
            raise EOFError
        done += count


def skip(stream: io.RawIOBase | BinaryIO, count: int) -> None:
    """Pass over bytes of a stream; raises EOFError where it is shorter."""
    waste = memoryview(bytearray(min(count, PIECE_BYTES)))
    while count > 0:
        fill(stream, waste[:count])
        count -= len(waste[:count])


def drain(stream: io.RawIOBase | BinaryIO) -> int:
    """Read a stream to its end, which checks its checksum, and count the bytes.

    Raises:
        QuarantineError: EXPANSION_LIMIT after `SLACK_BYTES`.
    """
    waste = memoryview(bytearray(64 << 10))
    total = 0
    while count := stream.readinto(waste):  # type: ignore[union-attr]
        total += count
        if total > SLACK_BYTES:
            found = f"a stream that goes on {total} bytes behind the last voxel, allowed {SLACK_BYTES}"
            raise QuarantineError("EXPANSION_LIMIT", found, "Treat it as hostile, or write the image again.")
    return total


def check_claim(claimed: int, held: int, *, compressed: bool) -> None:
    """Compare what a header claims with the bytes that are there, before anything is allocated.

    Args:
        claimed: bytes of header and voxels after inflation.
        held: bytes of the file.
        compressed: whether they are deflated.

    Raises:
        QuarantineError: TRUNCATED, EXPANSION_LIMIT.
    """
    found = f"{claimed} bytes promised by the header, {held} {'compressed ' if compressed else ''}bytes in the file"
    if compressed and claimed > EXPANSION_BYTES and claimed > EXPANSION_RATIO * held:
        raise QuarantineError("EXPANSION_LIMIT", found, "Treat it as hostile; if it is sound, store it uncompressed.")
    if claimed > (DEFLATE_RATIO * held if compressed else held):
        raise QuarantineError("TRUNCATED", found, "Copy the file again from its source.")
