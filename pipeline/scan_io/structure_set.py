"""RT structure sets: regions of interest as contours in the patient (PS3.3 C.8.8.5, C.8.8.6)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import QuarantineError
from pipeline.scan_io.dicom.attributes import Attributes
from pipeline.scan_io.references import Points, References, below, ras, values_of

CLOSED = frozenset({"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"})
"""Geometric types that enclose an area (PS3.3 C.8.8.6.3)."""

_EXPORT_AGAIN = "Export the structure set again."


@dataclass(frozen=True, eq=False)
class Contour:
    """A closed line in one plane.

    Attributes:
        points: (n, 3), RAS+ mm; the last joins the first.
        images: SOP Instance UIDs of the images that it names, maybe none.
    """

    points: Points
    images: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ListedRoi:
    """A region of interest of which no coordinate has been looked at: some files hold a hundred, and one is wanted.

    Attributes:
        number: ROI Number.
        name: ROI Name, free text.
        items: of its ContourSequence.
    """

    number: int
    name: str
    items: Sequence[Attributes]

    def roi(self) -> "Roi":
        """Its contours.

        Raises:
            QuarantineError: MALFORMED_CONTOUR for coordinates that are no triples; BAD_VALUE.
        """
        closed = [contour for item in self.items if (contour := _contour(item)) is not None]
        return Roi(self.number, self.name, tuple(closed), len(self.items) - len(closed))


@dataclass(frozen=True, eq=False)
class Roi:
    """A region of interest.

    Attributes:
        number: ROI Number.
        name: ROI Name, free text.
        contours: closed ones, in the order of the file.
        open_contours: points, open lines, and contours of fewer than three points.
    """

    number: int
    name: str
    contours: tuple[Contour, ...]
    open_contours: int


def structure_set_references(root: Attributes) -> References:
    """What a structure set is drawn on: what its header names, and its contours."""
    frames = root.items("ReferencedFrameOfReferenceSequence")
    series = below(frames, "RTReferencedStudySequence", "RTReferencedSeriesSequence")
    contours = below(root.items("ROIContourSequence"), "ContourSequence")
    images = below([*series, *contours], "ContourImageSequence")
    rois = root.items("StructureSetROISequence")
    named = values_of(frames, "FrameOfReferenceUID") | values_of(rois, "ReferencedFrameOfReferenceUID")
    return References(
        "structure_set",
        tuple(sorted(values_of(images, "ReferencedSOPInstanceUID"))),
        tuple(sorted(values_of(series, "SeriesInstanceUID"))),
        tuple(sorted(named)),
    )


def listed_rois(root: Attributes) -> list[ListedRoi]:
    """Regions of a structure set that have contours, by their number.

    Raises:
        QuarantineError: EMPTY_STRUCTURE_SET for no region with contours; DUPLICATE_STRUCTURE for a number given twice;
            BAD_VALUE.
    """
    listed = root.items("StructureSetROISequence")
    names = {item.whole("ROINumber"): item.text("ROIName") or "" for item in listed}
    found: dict[int, ListedRoi] = {}
    for item in root.items("ROIContourSequence"):
        number = item.whole("ReferencedROINumber")
        if number is None or number not in names or number in found or len(names) < len(listed):
            what = f"{len(listed)} structures with {len(names)} numbers, or contours of none or the same of them"
            raise QuarantineError("DUPLICATE_STRUCTURE", what, _EXPORT_AGAIN)
        contours = item.items("ContourSequence")
        if contours:
            found[number] = ListedRoi(number, names[number], contours)
    if not found:
        what = f"{len(listed)} structures, none of them with contours"
        raise QuarantineError("EMPTY_STRUCTURE_SET", what, "Nothing to do, unless contours were lost in the export.")
    return [found[number] for number in sorted(found)]


def _contour(item: Attributes) -> Contour | None:
    """The contour, None where it encloses no area."""
    values = item.numbers("ContourData")
    if len(values) % 3:
        found = f"a contour of {len(values)} coordinates, which are no triples"
        raise QuarantineError("MALFORMED_CONTOUR", found, _EXPORT_AGAIN)
    if (item.text("ContourGeometricType") or "").upper() not in CLOSED or len(values) < 9:
        return None
    images = values_of(item.items("ContourImageSequence"), "ReferencedSOPInstanceUID")
    return Contour(ras(np.reshape(values, (-1, 3))), tuple(sorted(images)))
