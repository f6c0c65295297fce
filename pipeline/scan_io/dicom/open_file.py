"""Opens a DICOM file up to its pixels: quickly where it is plain, through pydicom behind a guard otherwise."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.scan_io.dicom import plain
from pipeline.scan_io.dicom.attributes import Attributes
from pipeline.scan_io.dicom.plain_attributes import PlainAttributes
from pipeline.scan_io.dicom.plain_layouts import Raw


@dataclass(frozen=True)
class OpenedFile:
    """A file's header.

    Attributes:
        attributes: its data set, without pixels.
        transfer_syntax_uid: how it is encoded.
        pixel_offset: where native little-endian pixels of 8 or 16 bits begin in the file, in bytes; None otherwise.
        pixel_length: bytes that the file claims for them, maybe more than it holds.
        size: bytes of the file.
        plain: what the quick walk found, by tag; None where pydicom parsed it.
    """

    attributes: Attributes
    transfer_syntax_uid: str
    pixel_offset: int | None
    pixel_length: int | None
    size: int
    plain: dict[int, Raw] | None = None


def open_file(path: Path) -> OpenedFile:
    """Parse a file up to its pixels.

    Raises:
        QuarantineError: NOT_DICOM, TRUNCATED, MISSING_SYNTAX, TOO_DEEP, EXPANSION_LIMIT, UNREADABLE.
    """
    try:
        found = plain.walk(path)
    except plain.NotPlain:
        return _parsed(path)
    attributes = PlainAttributes(found.values, lambda: _parsed(path).attributes)
    syntax, offset, length = found.transfer_syntax_uid, found.pixel_offset, found.pixel_length
    return of_plain_pixels(attributes, syntax, offset, length, found.size, found.values)


def _parsed(path: Path) -> OpenedFile:
    """The file as pydicom sees it, which is loaded when the first file needs it."""
    from pipeline.scan_io.dicom.parsed_file import open_with_pydicom

    return open_with_pydicom(path)


def of_plain_pixels(
    attributes: Attributes,
    syntax: str,
    offset: int | None,
    length: int | None,
    size: int,
    walked: dict[int, Raw] | None = None,
) -> OpenedFile:
    """A file whose pixels lie in it as they are, if their bits make whole bytes."""
    if attributes.whole("BitsAllocated") not in (8, 16):
        offset = length = None
    return OpenedFile(attributes, syntax, offset, length, size, walked)
