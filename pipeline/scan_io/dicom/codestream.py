"""Size of an image as its own codestream tells it; decoders may fold pixels into whatever size the header claims."""

import struct

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
"""SOF markers of JPEG (ITU-T T.81 table B.1) and JPEG-LS (T.87 C.1.1)."""

_JPEG_2000 = b"\xff\x4f\xff\x51"
"""Start of a codestream and its SIZ marker (ITU-T T.800 A.5.1)."""


def image_size(stream: bytes) -> tuple[int, int] | None:
    """Rows and columns of a JPEG, JPEG-LS or JPEG 2000 stream; None where it does not tell.

    Args:
        stream: one frame, without encapsulation.
    """
    start = stream.find(_JPEG_2000, 0, 4096)  # a JP2 file header may come first
    if start >= 0 and start + 24 <= len(stream):
        right, bottom, left, top = struct.unpack_from(">4I", stream, start + 8)
        return bottom - top, right - left
    return _jpeg_size(stream) if stream[:2] == b"\xff\xd8" else None


def _jpeg_size(stream: bytes) -> tuple[int, int] | None:
    place = 2
    while place + 9 <= len(stream) and stream[place] == 0xFF:
        marker = stream[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
        elif marker in _START_OF_FRAME:
            rows, columns = struct.unpack_from(">2H", stream, place + 5)
            return rows, columns
        else:
            place += 2 + int.from_bytes(stream[place + 2 : place + 4], "big")
    return None
