"""Stored values of one frame: native ones straight from the file, all else through pydicom's decoders.

A sample may share its 8, 16 or 32 bits with other data (overlays in the high bits): only BitsStored bits up to HighBit
count, and the sign is that of the highest of them (PS3.5 8.1.1, C.7.6.3.1).
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import QuarantineError
from pipeline.scan_io.dicom.codestream import image_size
from pipeline.scan_io.dicom.guard import check_pixel_claims
from pipeline.scan_io.dicom.header import DicomHeader, FrameHeader, PixelFormat
from pipeline.scan_io.dicom.transfer_syntaxes import BIG_ENDIAN, NATIVE

Pixels = NDArray[Any]


@dataclass
class FrameSource:
    """Reads frames of files, one after another; keeps the last data set, for files of many frames."""

    _path: Path | None = None
    _dataset: Any = None
    _sheets: dict[tuple[Path, int], Pixels] = field(default_factory=dict)

    def stored(self, path: Path, header: DicomHeader, frame: FrameHeader) -> tuple[Pixels, Pixels]:
        """Stored values of a frame or tile, (rows, columns), and the same before other data was masked out.

        Raises:
            QuarantineError: TRUNCATED, DECODE_FAILED, NO_PIXEL_DATA, and what the guard refuses.
        """
        if header.pixels is None:
            raise QuarantineError("NO_PIXEL_DATA", "no image in the file", "Leave non-image objects out.")
        raw = self._raw(path, header, header.pixels, frame.frame)
        if frame.tile >= 0:
            raw = tile_of(raw, frame.tile, header.tiles_across)
        return sample_values(raw, header.pixels), raw

    def modality_table(self, path: Path) -> Any:
        """Data set that holds the Modality LUT of a file."""
        return self._opened(path)

    def _raw(self, path: Path, header: DicomHeader, pixels: PixelFormat, number: int) -> Pixels:
        if header.tiles_across > 1 and (path, number) in self._sheets:
            return self._sheets[path, number]
        if header.pixel_offset is not None:
            raw = _native(path, header.pixel_offset, pixels, number)
        elif header.transfer_syntax_uid in NATIVE:
            raw = self._parsed(path, pixels, number, header.transfer_syntax_uid == BIG_ENDIAN)
        else:
            raw = self._decoded(path, header, pixels, number)
        if header.tiles_across > 1:
            self._sheets = {(path, number): raw}
        return raw

    def _opened(self, path: Path) -> Any:
        from pipeline.scan_io.dicom.parsed_file import dataset

        if self._path != path:
            self._dataset = None
            self._dataset, self._path = dataset(path), path
        return self._dataset

    def _parsed(self, path: Path, pixels: PixelFormat, number: int, big: bool) -> Pixels:
        """Native pixels of a file whose bytes do not lie as they are needed: deflated, big endian, oddly encoded."""
        content = self._opened(path).get("PixelData")
        if content is None:
            raise QuarantineError("NO_PIXEL_DATA", "no image in the file", "Leave non-image objects out.")
        size = _frame_bytes(pixels)
        part = content[number * size : (number + 1) * size]
        if len(part) < size:
            raise _truncated(len(part), size)
        return np.frombuffer(part, dtype=_dtype(pixels, ">" if big else "<")).reshape(pixels.rows, pixels.columns)

    def _decoded(self, path: Path, header: DicomHeader, pixels: PixelFormat, number: int) -> Pixels:
        opened = self._opened(path)
        content = opened.get("PixelData")
        if content is None:
            raise QuarantineError("TRUNCATED", "an image without its pixel data", "Copy the file again.")
        frames = int(opened.get("NumberOfFrames") or 1)
        syntax = header.transfer_syntax_uid
        check_pixel_claims(pixels.rows, pixels.columns, frames, 1, pixels.bits_allocated, len(content), syntax)
        from pydicom.encaps import get_frame
        from pydicom.pixels import get_decoder
        from pydicom.uid import UID

        try:
            told = image_size(get_frame(content, number, number_of_frames=frames))
            decoded, _ = get_decoder(UID(syntax)).as_array(opened, index=number, raw=True)
        except MemoryError:
            raise
        except Exception as error:  # decoders raise their own types
            raise QuarantineError("DECODE_FAILED", type(error).__name__, "Export without compression.") from error
        _check_size(told, pixels)
        _check_size(decoded.shape, pixels)
        return np.asarray(decoded).astype(_dtype(pixels, "="), copy=False)


def sample_values(raw: Pixels, pixels: PixelFormat) -> Pixels:
    """Values of the bits that count.

    Args:
        raw: as allocated, any shape, in the byte order of the file.
        pixels: how they are stored.
    """
    spare = pixels.bits_allocated - pixels.bits_stored
    if not spare:
        return raw
    shifted = np.left_shift(raw, pixels.bits_allocated - 1 - pixels.high_bit)
    return np.asarray(np.right_shift(shifted, spare, out=shifted))


def tile_of(sheet: Pixels, number: int, across: int) -> Pixels:
    """Tile of a sheet, row by row from 0."""
    rows, columns = (size // across for size in sheet.shape)
    down, right = divmod(number, across)
    return sheet[down * rows : (down + 1) * rows, right * columns : (right + 1) * columns]


def _native(path: Path, offset: int, pixels: PixelFormat, number: int) -> Pixels:
    size = _frame_bytes(pixels)
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        content = os.pread(descriptor, size, offset + number * size)
    finally:
        os.close(descriptor)
    if len(content) < size:
        raise _truncated(len(content), size)
    return np.frombuffer(content, dtype=_dtype(pixels, "<")).reshape(pixels.rows, pixels.columns)


def _check_size(size: tuple[int, ...] | None, pixels: PixelFormat) -> None:
    """Refuse an image of another size than the header claims, even where the number of pixels is the same."""
    if size is not None and size != (pixels.rows, pixels.columns):
        found = f"an image of {' x '.join(map(str, size))} pixels instead of {pixels.rows} x {pixels.columns}"
        raise QuarantineError("DECODE_FAILED", found, "Export without compression.")


def _frame_bytes(pixels: PixelFormat) -> int:
    return pixels.rows * pixels.columns * pixels.bits_allocated // 8


def _dtype(pixels: PixelFormat, order: str) -> np.dtype[Any]:
    return np.dtype(f"{order}{'i' if pixels.signed else 'u'}{pixels.bits_allocated // 8}")


def _truncated(held: int, expected: int) -> QuarantineError:
    found = f"{held} of {expected} bytes of pixel data"
    return QuarantineError("TRUNCATED", found, "Copy the file again from its source.")
