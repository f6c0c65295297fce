"""Frames of enhanced and legacy converted MR and CT: functional groups of each frame, else those shared by all.

PS3.3 C.7.6.16: plane position and orientation, pixel measures, pixel value transformation, frame content; C.8.13.5 and
C.8.15.3 for MR and CT.
"""

from collections.abc import Iterator
from typing import cast

from pipeline.errors import QuarantineError
from pipeline.scan_io.dicom.attributes import Attributes
from pipeline.scan_io.dicom.header import FrameHeader
from pipeline.scan_io.dicom.vendor_elements import part

MAXIMUM_FRAMES = 100_000


def frames(attributes: Attributes) -> tuple[FrameHeader, ...]:
    """Places and contrast of every frame.

    Raises:
        QuarantineError: MISSING_GEOMETRY; FRAME_COUNT where groups and frames differ in number.
    """
    count = attributes.whole("NumberOfFrames") or 1
    groups = attributes.items("PerFrameFunctionalGroupsSequence")
    if not groups:
        found = f"{count} frames without functional groups"
        raise QuarantineError("MISSING_GEOMETRY", found, "Export with complete geometry.")
    if not 1 <= count <= MAXIMUM_FRAMES or len(groups) != count:
        found = f"{count} frames with {len(groups)} functional groups"
        raise QuarantineError("FRAME_COUNT", found, "Export the series again.")
    shared = attributes.items("SharedFunctionalGroupsSequence")
    return tuple(_frame(number, _Groups((group, *shared[:1])), attributes) for number, group in enumerate(groups))


class _Groups:
    """First item of a functional group, of the frame or shared."""

    def __init__(self, groups: tuple[Attributes, ...]) -> None:
        self._groups = groups

    def of(self, *sequences: str) -> Iterator[Attributes]:
        for group in self._groups:
            for sequence in sequences:
                yield from group.items(sequence)[:1]

    def numbers(self, sequence: str, keyword: str, count: int) -> tuple[float, ...]:
        for item in self.of(sequence):
            values = item.numbers(keyword)
            if len(values) == count:
                return values
        raise QuarantineError("MISSING_GEOMETRY", f"no usable {keyword}", "Export with complete geometry.")

    def number(self, sequence: str, keyword: str) -> float | None:
        return next((value for item in self.of(sequence) if (value := item.number(keyword)) is not None), None)

    def whole(self, sequence: str, keyword: str) -> int | None:
        return next((value for item in self.of(sequence) if (value := item.whole(keyword)) is not None), None)

    def text(self, sequence: str, keyword: str) -> str | None:
        return next((value for item in self.of(sequence) if (value := item.text(keyword))), None)


def _frame(number: int, groups: _Groups, attributes: Attributes) -> FrameHeader:
    image_type, told_part = _frame_type(groups, attributes)
    slope = groups.number("PixelValueTransformationSequence", "RescaleSlope")
    position = groups.numbers("PlanePositionSequence", "ImagePositionPatient", 3)
    orientation = groups.numbers("PlaneOrientationSequence", "ImageOrientationPatient", 6)
    return FrameHeader(
        frame=number,
        tile=-1,
        position=cast("tuple[float, float, float]", position),
        orientation=cast("tuple[float, float, float, float, float, float]", orientation),
        pixel_spacing=cast("tuple[float, float]", groups.numbers("PixelMeasuresSequence", "PixelSpacing", 2)),
        slope=slope,
        intercept=groups.number("PixelValueTransformationSequence", "RescaleIntercept"),
        lookup=False,
        image_type=image_type,
        part=told_part,
        echo_time_ms=groups.number("MREchoSequence", "EffectiveEchoTime"),
        b_value=groups.number("MRDiffusionSequence", "DiffusionBValue"),
        time_index=groups.whole("FrameContentSequence", "TemporalPositionIndex"),
        stack=groups.text("FrameContentSequence", "StackID") or "",
        acquisition_number=groups.whole("FrameContentSequence", "FrameAcquisitionNumber"),
        instance_number=number + 1,
        acquisition_time=groups.text("FrameContentSequence", "FrameAcquisitionDateTime"),
    )


def _frame_type(groups: _Groups, attributes: Attributes) -> tuple[tuple[str, ...], str]:
    """Values of FrameType (else ImageType) from the third on, and the part of a complex image."""
    types = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence")
    for item in groups.of(*types):
        rest = tuple(value.upper().strip() for value in item.texts("FrameType")[2:])
        told = part(rest, item)
        return rest, told or part((), attributes)
    rest = tuple(value.upper().strip() for value in attributes.texts("ImageType")[2:])
    return rest, part(rest, attributes)
