"""What a DICOM file may claim, checked before any parser or decoder is given it."""

import math

from pipeline.errors import QuarantineError
from pipeline.scan_io.dicom.part10 import DEFLATED
from pipeline.scan_io.dicom.transfer_syntaxes import NATIVE

_MIB = 1 << 20
MAXIMUM_PIXEL_BYTES = 1024 * _MIB
"""Decoded pixels of one file."""

_RLE = "1.2.840.10008.1.2.5"
_RLE_RATIO = 64
"""A run of 128 equal bytes takes two (PS3.5 G.3)."""

_JPEG_RATIO, _JPEG_FLOOR = 4000, 32 * _MIB
"""JPEG-LS and JPEG 2000 store an empty 512² image of 16 bits in about 150 bytes."""


def check_pixel_claims(
    rows: int,
    columns: int,
    frames: int,
    samples: int,
    bits_allocated: int,
    pixel_bytes: int,
    transfer_syntax_uid: str,
) -> None:
    """Refuse pixels that the bytes of a file cannot hold.

    Args:
        rows: height of a frame as the header claims it.
        columns: width of a frame.
        frames: number of frames.
        samples: values a pixel.
        bits_allocated: bits a value.
        pixel_bytes: bytes of pixel data, or of the file where that is not known.
        transfer_syntax_uid: how they are stored.

    Raises:
        QuarantineError: PIXEL_CLAIM for counts that are not positive, or more native pixels than bytes;
            EXPANSION_LIMIT for more than 1 GiB, or more than the compression can hold in these bytes.
    """
    shape = f"{frames} frames of {rows} x {columns} pixels with {samples} x {bits_allocated} bits"
    if min(rows, columns, frames, samples, bits_allocated) < 1:
        raise QuarantineError("PIXEL_CLAIM", shape, "Export the images again.")
    claim = math.ceil(rows * columns * frames * samples * bits_allocated / 8)
    found = f"{shape}, {claim} bytes, in {pixel_bytes} bytes"
    if transfer_syntax_uid in NATIVE - {DEFLATED} and claim > pixel_bytes:
        raise QuarantineError("PIXEL_CLAIM", found, "Copy the file again from its source.")
    if claim > min(MAXIMUM_PIXEL_BYTES, _reach(transfer_syntax_uid, pixel_bytes)):
        raise QuarantineError("EXPANSION_LIMIT", found, "Treat the file as hostile; split it if it is merely large.")


def _reach(transfer_syntax_uid: str, pixel_bytes: int) -> int:
    """Most bytes that compressed ones can stand for."""
    if transfer_syntax_uid in NATIVE:
        return MAXIMUM_PIXEL_BYTES
    if transfer_syntax_uid == _RLE:
        return _RLE_RATIO * pixel_bytes
    return max(_JPEG_FLOOR, _JPEG_RATIO * pixel_bytes)
