"""Native 16-bit slices of plain files, read straight into the volume and scaled in place.

Most series are such; a slice that is anything else is left to `pixels` and `modality`, which give the same values.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.scan_io.dicom.header import DicomHeader, FrameHeader

_INT16 = np.iinfo(np.int16)


def is_plain(header: DicomHeader, frame: FrameHeader, modality: str) -> bool:
    """Whether a slice needs no more than shifts and the addition of a whole number, as far as its header tells."""
    pixels, intercept = header.pixels, frame.intercept or 0.0
    return (
        pixels is not None
        and header.pixel_offset is not None
        and pixels.bits_allocated == 16
        and pixels.padding is None
        and not (pixels.inverted and modality == "MR")
        and frame.tile < 0
        and not frame.lookup
        and frame.slope in (None, 0.0, 1.0)
        and intercept.is_integer()
        and abs(intercept) <= _INT16.max
    )


def read_direct(path: Path, header: DicomHeader, frame: FrameHeader, modality: str, target: NDArray[np.int16]) -> bool:
    """Read a plain slice.

    Args:
        path: the file.
        header: its header.
        frame: the image in it.
        modality: MR or CT.
        target: (rows, columns), contiguous; holds the values afterwards, or anything where the answer is no.

    Returns:
        Whether ``target`` holds the values.
    """
    pixels, intercept = header.pixels, frame.intercept or 0.0
    if not is_plain(header, frame, modality):
        return False
    assert pixels is not None  # noqa: S101  # as just seen
    assert header.pixel_offset is not None  # noqa: S101
    if target.shape != (pixels.rows, pixels.columns):
        return False
    if not _fill(path, header.pixel_offset + frame.frame * target.nbytes, target):
        return False
    values: NDArray[Any] = target.view(np.dtype("<i2" if pixels.signed else "<u2"))
    spare = 16 - pixels.bits_stored
    if spare:
        np.left_shift(values, 15 - pixels.high_bit, out=values)
        np.right_shift(values, spare, out=values)
    added = int(intercept)
    if int(values.min()) + added < _INT16.min or int(values.max()) + added > _INT16.max:
        return False
    if added:
        words = target.view(np.uint16)  # the sum fits, so that arithmetic modulo 2¹⁶ is exact
        np.add(words, np.uint16(added % 65536), out=words)
    return True


def _fill(path: Path, offset: int, target: NDArray[np.int16]) -> bool:
    """Read bytes into an array; whether there were as many."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.preadv(descriptor, [target.data], offset) == target.nbytes
    except OSError:
        return False
    finally:
        os.close(descriptor)
