"""Opens a DICOM file with pydicom, behind a guard: whatever the quick walk through plain files leaves to it."""

import io
import warnings
from pathlib import Path
from typing import BinaryIO

import pydicom
from pydicom.filereader import read_dataset

from pipeline.errors import QuarantineError
from pipeline.scan_io.dicom import part10
from pipeline.scan_io.dicom.dataset_attributes import DatasetAttributes
from pipeline.scan_io.dicom.open_file import OpenedFile, of_plain_pixels
from pipeline.scan_io.dicom.part10 import COPY_AGAIN, PIXEL_DATA, UNDEFINED, FileMeta
from pipeline.scan_io.dicom.structure import Content, Pixels, Walk
from pipeline.scan_io.dicom.transfer_syntaxes import BIG_ENDIAN, PLAIN


def open_with_pydicom(path: Path) -> OpenedFile:
    """`open_file` without the quick way.

    Raises:
        QuarantineError: as `open_file`.
    """
    with part10.regular_file(path) as stream:
        parsed, meta, pixels, size = _parse(stream, stop_before_pixels=True)
    lies_plain = meta.transfer_syntax_uid in PLAIN and pixels is not None and pixels.tag == PIXEL_DATA
    if pixels is None or not lies_plain or pixels.length == UNDEFINED:
        return OpenedFile(DatasetAttributes(parsed), meta.transfer_syntax_uid, None, None, size)
    return of_plain_pixels(DatasetAttributes(parsed), meta.transfer_syntax_uid, pixels.offset, pixels.length, size)


def dataset(path: Path) -> pydicom.Dataset:
    """Parse a whole file with pydicom, behind the same guard; for decoders, segmentations and structure sets.

    Deflated files come inflated, with their own transfer syntax.

    Raises:
        QuarantineError: as `open_file`.
    """
    with part10.regular_file(path) as stream:
        return _parse(stream, stop_before_pixels=False)[0]


def _parse(stream: BinaryIO, *, stop_before_pixels: bool) -> tuple[pydicom.FileDataset, FileMeta, Pixels | None, int]:
    with part10.mapped(stream) as content:
        size = len(content)
        meta = part10.read_meta(content)
        syntax = meta.transfer_syntax_uid
        if syntax == part10.DEFLATED:
            inflated = part10.inflate(content, meta.end)
            pixels = _checked(inflated, 0, syntax)
        else:
            pixels = _checked(content, meta.end, syntax)
    try:
        with warnings.catch_warnings(action="ignore"):  # values that only look odd are judged where they are used
            if syntax == part10.DEFLATED:
                return _inflated(stream, inflated, stop_before_pixels=stop_before_pixels), meta, pixels, size
            stream.seek(0)
            buffered = io.BufferedReader(stream)  # type: ignore[type-var]
            try:
                return pydicom.dcmread(buffered, stop_before_pixels=stop_before_pixels), meta, pixels, size
            finally:
                buffered.detach()
    except (QuarantineError, MemoryError):
        raise
    except Exception as error:  # pydicom raises many unrelated types on malformed files
        raise QuarantineError("UNREADABLE", f"{type(error).__name__} while parsing", COPY_AGAIN) from None


def _checked(content: Content, start: int, syntax: str) -> Pixels | None:
    walk = Walk(content, big=syntax == BIG_ENDIAN)
    return walk.pixels(start, implicit=syntax == part10.IMPLICIT_LITTLE_ENDIAN)


def _inflated(stream: BinaryIO, content: bytes, *, stop_before_pixels: bool) -> pydicom.FileDataset:
    """The data set of a deflated file from bytes inflated already."""
    stream.seek(part10.META_OFFSET)
    buffered = io.BufferedReader(stream)  # type: ignore[type-var]
    try:
        meta = read_dataset(buffered, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    finally:
        buffered.detach()
    body = io.BytesIO(content)
    stop = (lambda tag, vr, length: tag >> 16 == 0x7FE0) if stop_before_pixels else None
    parsed = read_dataset(body, False, True, stop_when=stop)
    return pydicom.FileDataset(body, parsed, None, pydicom.dataset.FileMetaDataset(meta), False, True)
