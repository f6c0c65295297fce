"""DICOM segmentations, binary, fractional and label map (PS3.3 A.51, C.8.20), one frame at a time.

A frame is placed by its position, orientation and spacing; the order of frames means nothing. A voxel of a fractional
segmentation belongs to the segment from half of Maximum Fractional Value on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels import get_decoder
from pydicom.uid import UID

from pipeline.errors import InputError, QuarantineError
from pipeline.geometry import Affine, affine_from_dicom, slice_normal
from pipeline.scan_io.coded_terms import term_of
from pipeline.scan_io.dicom.attributes import Attributes
from pipeline.scan_io.dicom.dataset_attributes import DatasetAttributes
from pipeline.scan_io.dicom.guard import check_pixel_claims
from pipeline.scan_io.dicom.transfer_syntaxes import BIG_ENDIAN, NATIVE, undecodable
from pipeline.scan_io.references import References, below, values_of

_EXPORT_AGAIN = "Export the segmentation again."
_TYPES = frozenset({"BINARY", "FRACTIONAL", "LABELMAP"})


@dataclass(frozen=True)
class Segment:
    """A segment's names.

    Attributes:
        number: Segment Number.
        label: Segment Label, free text.
        code: coded type as ``scheme:value``, e.g. ``SCT:10200004``; None where there is none.
        term: that code's keyword in the dictionaries of PS3.16 and SNOMED CT, e.g. ``Liver``; never text of the file.
    """

    number: int
    label: str
    code: str | None
    term: str | None

    @property
    def names(self) -> tuple[str, ...]:
        """All names that a mapping may match."""
        return tuple(name for name in (self.label, self.term, self.code) if name)


@dataclass(frozen=True, eq=False)
class Frame:
    """One plane.

    Attributes:
        number: index in the file.
        affine: (column, row, 0, 1) → RAS+ mm.
        segment: number of the segment it belongs to; None in a label map.
        slice_spacing_mm: Spacing Between Slices, None where it is not told.
    """

    number: int
    affine: Affine
    segment: int | None
    slice_spacing_mm: float | None


def segmentation_references(root: Attributes) -> References:
    """What a segmentation is drawn on: what its header names, else its frames."""
    series = root.items("ReferencedSeriesSequence")
    images = values_of(below(series, "ReferencedInstanceSequence"), "ReferencedSOPInstanceUID")
    if not images:
        groups = (*root.items("PerFrameFunctionalGroupsSequence"), *root.items("SharedFunctionalGroupsSequence"))
        sources = below(groups, "DerivationImageSequence", "SourceImageSequence")
        images = values_of(sources, "ReferencedSOPInstanceUID")
    frame = root.text("FrameOfReferenceUID")
    return References(
        "segmentation",
        tuple(sorted(images)),
        tuple(sorted(values_of(series, "SeriesInstanceUID"))),
        () if frame is None else (frame,),
    )


def segments(root: Attributes) -> list[Segment]:
    """Segments by their number, without the background that a label map may describe as number 0.

    Raises:
        QuarantineError: EMPTY_STRUCTURE_SET for none; DUPLICATE_STRUCTURE for a number given twice, or none.
    """
    found: dict[int, Segment] = {}
    for item in root.items("SegmentSequence"):
        number = item.whole("SegmentNumber")
        if number is None or number in found:
            raise QuarantineError("DUPLICATE_STRUCTURE", "segments without a number of their own", _EXPORT_AGAIN)
        found[number] = _segment(number, item)
    found.pop(0, None)
    if not found:
        raise QuarantineError("EMPTY_STRUCTURE_SET", "no segment", "Nothing to do, unless segments were lost.")
    return [found[number] for number in sorted(found)]


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Frames of a segmentation.

    Args:
        dataset: as `parsed_file.dataset` returns it.

    Raises:
        QuarantineError: UNSUPPORTED_SEGMENTATION, UNSUPPORTED_SYNTAX, FRAME_COUNT, TRUNCATED, PIXEL_CLAIM,
            EXPANSION_LIMIT, NO_PIXEL_DATA, BAD_VALUE.
    """

    dataset: pydicom.Dataset

    def __post_init__(self) -> None:
        root = self._root
        kind, bits = self._type, root.whole("BitsAllocated") or 0
        if kind not in _TYPES or bits not in {"BINARY": (1, 8)}.get(kind, (8, 16)) or root.has("TotalPixelMatrixRows"):
            found = f"a segmentation of {'a known' if kind in _TYPES else 'another'} type in {bits} bits, or of a slide"
            raise QuarantineError("UNSUPPORTED_SEGMENTATION", found, "Export it as a binary one in planes.")
        if (refused := undecodable(self._syntax)) is not None:
            raise QuarantineError(*refused)
        content = self.dataset.get("PixelData")
        if not isinstance(content, bytes):
            raise QuarantineError("NO_PIXEL_DATA", "a segmentation without pixels", _EXPORT_AGAIN)
        rows, columns = self._size
        claimed = root.whole("NumberOfFrames") or 1
        if claimed != len(root.items("PerFrameFunctionalGroupsSequence")):
            raise QuarantineError("FRAME_COUNT", f"{claimed} frames, another number described", _EXPORT_AGAIN)
        needed = -(-rows * columns * claimed * bits // 8)
        if self._syntax in NATIVE and len(content) < needed:
            raise QuarantineError("TRUNCATED", f"{len(content)} of {needed} bytes of pixels", "Copy the file again.")
        check_pixel_claims(rows, columns, 1, 1, bits, len(content), self._syntax)

    def frames(self) -> Iterator[Frame]:
        """Where every frame lies.

        Raises:
            QuarantineError: NO_POSITION, NO_SEGMENT, BAD_ORIENTATION, BAD_VALUE.
        """
        shared = self._root.items("SharedFunctionalGroupsSequence")[:1]
        for number, item in enumerate(self._root.items("PerFrameFunctionalGroupsSequence")):
            frame = _frame(number, (item, *shared))
            if (frame.segment is None) != (self._type == "LABELMAP"):
                raise QuarantineError("NO_SEGMENT", "a frame that does not say of which segment it is", _EXPORT_AGAIN)
            yield frame

    def values(self, frame: Frame) -> NDArray[Any]:
        """Segment numbers of a frame, (rows, columns); 0 where there is none.

        Raises:
            QuarantineError: DECODE_FAILED, BAD_VALUE.
        """
        stored = self._native(frame.number) if self._syntax in NATIVE else self._decoded(frame.number)
        if frame.segment is None:
            return stored
        threshold = 1.0
        if self._type == "FRACTIONAL":
            threshold = (self._root.whole("MaximumFractionalValue") or 255) / 2
        return np.where(stored >= threshold, np.uint16(frame.segment), np.uint16(0))

    @property
    def _root(self) -> DatasetAttributes:
        return DatasetAttributes(self.dataset)

    @property
    def _type(self) -> str:
        return (self._root.text("SegmentationType") or "").upper()

    @property
    def _syntax(self) -> str:
        return str(self.dataset.file_meta.TransferSyntaxUID)

    @property
    def _size(self) -> tuple[int, int]:
        return self._root.whole("Rows") or 0, self._root.whole("Columns") or 0

    def _native(self, number: int) -> NDArray[Any]:
        """A frame of bits or whole samples; bits run on from frame to frame (PS3.5 8.1.1, D.3)."""
        rows, columns = self._size
        bits, pixels, content = int(self.dataset.BitsAllocated), rows * columns, self.dataset.PixelData
        if bits == 1:
            first, rest = divmod(number * pixels, 8)
            packed = np.frombuffer(content[first : first + -(-(rest + pixels) // 8)], np.uint8)
            return np.unpackbits(packed, bitorder="little")[rest : rest + pixels].reshape(rows, columns)
        dtype = np.dtype(f"{'>' if self._syntax == BIG_ENDIAN else '<'}u{bits // 8}")
        return np.frombuffer(content, dtype, pixels, number * pixels * dtype.itemsize).reshape(rows, columns)

    def _decoded(self, number: int) -> NDArray[Any]:
        try:
            decoded, _ = get_decoder(UID(self._syntax)).as_array(self.dataset, index=number, raw=True)
        except MemoryError:
            raise
        except Exception as error:  # decoders raise their own types
            raise QuarantineError("DECODE_FAILED", type(error).__name__, "Export without compression.") from error
        if decoded.shape != self._size:
            raise QuarantineError("DECODE_FAILED", f"a frame of {decoded.shape} pixels", "Export without compression.")
        return np.asarray(decoded)


def _frame(number: int, groups: tuple[Attributes, ...]) -> Frame:
    """A frame from its own functional groups, and the shared ones where its own lack something."""
    positions = below(groups, "PlanePositionSequence")
    orientations = below(groups, "PlaneOrientationSequence")
    measures = below(groups, "PixelMeasuresSequence")
    if not (positions and orientations and measures):
        raise QuarantineError("NO_POSITION", "a frame without position, orientation or spacing", _EXPORT_AGAIN)
    position = positions[0].numbers("ImagePositionPatient")
    cosines = orientations[0].numbers("ImageOrientationPatient")
    spacing = measures[0].numbers("PixelSpacing")
    if (len(position), len(cosines), len(spacing)) != (3, 6, 2) or min(spacing) <= 0:
        raise QuarantineError("NO_POSITION", "a frame with a malformed position or spacing", _EXPORT_AGAIN)
    try:
        affine = affine_from_dicom(cosines, spacing, position, slice_normal(cosines).tolist())
    except InputError:
        raise QuarantineError("BAD_ORIENTATION", "a frame whose axes are not perpendicular", _EXPORT_AGAIN) from None
    identified = below(groups, "SegmentIdentificationSequence")
    segment = identified[0].whole("ReferencedSegmentNumber") if identified else None
    return Frame(number, affine, segment, measures[0].number("SpacingBetweenSlices"))


def _segment(number: int, item: Attributes) -> Segment:
    code = next(iter(item.items("SegmentedPropertyTypeCodeSequence")), None)
    scheme = code.text("CodingSchemeDesignator") if code is not None else None
    value = code.text("CodeValue") if code is not None else None
    known = scheme is not None and value is not None
    term = term_of(str(scheme), str(value)) if known else None
    return Segment(number, item.text("SegmentLabel") or "", f"{scheme}:{value}" if known else None, term)
