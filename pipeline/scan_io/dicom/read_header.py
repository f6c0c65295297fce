"""One DICOM file to a `DicomHeader`; runs in the parsing process and stops before the pixels."""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, cast

from pipeline.errors import InputError, QuarantineError
from pipeline.geometry import slice_normal
from pipeline.scan_io.dicom import multiframe
from pipeline.scan_io.dicom.attributes import Attributes
from pipeline.scan_io.dicom.exclusions import ENHANCED_CLASSES, Refused, exclusion, is_derived, kind_of
from pipeline.scan_io.dicom.guard import check_pixel_claims
from pipeline.scan_io.dicom.header import DicomHeader, FrameHeader, Kind, PixelFormat
from pipeline.scan_io.dicom.likeness import KnownHeaders, likeness
from pipeline.scan_io.dicom.mosaic import is_mosaic, tiles
from pipeline.scan_io.dicom.open_file import OpenedFile, open_file
from pipeline.scan_io.dicom.series_facts import series_facts
from pipeline.scan_io.dicom.transfer_syntaxes import LOSSY, PLAIN, undecodable
from pipeline.scan_io.dicom.vendor_elements import b_value, part

_KNOWN = KnownHeaders()


class _Place(NamedTuple):
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel_spacing: tuple[float, ...]


def read_header(path: Path) -> DicomHeader:
    """Read what the file says of itself.

    A file that is no usable image, but that can be read, comes with a ``refusal``.

    Raises:
        QuarantineError: the file cannot be read: NOT_DICOM, TRUNCATED, TOO_DEEP, EXPANSION_LIMIT, BAD_VALUE ...
    """
    opened = open_file(path)
    shared = likeness(opened)
    header = None if shared is None else _KNOWN.like(shared, opened)
    if header is None:
        header = _read(opened)
        if shared is not None:
            _KNOWN.keep(shared, header)
    return header


def _read(opened: OpenedFile) -> DicomHeader:
    attributes = opened.attributes
    sop_class = attributes.text("SOPClassUID") or ""
    kind = kind_of(sop_class)
    if kind == "image":
        return _image(opened, sop_class)
    refusal = exclusion(sop_class, (), attributes) if kind == "other" else None
    return _header(opened, kind, sop_class, refusal)


def _image(opened: OpenedFile, sop_class: str) -> DicomHeader:
    attributes = opened.attributes
    image_type = tuple(value.upper().strip() for value in attributes.texts("ImageType"))
    refusal = exclusion(sop_class, image_type, attributes) or undecodable(opened.transfer_syntax_uid)
    if refusal is not None:
        return _header(opened, "image", sop_class, refusal)
    try:
        pixels = _pixel_format(attributes)
        across, frames = _frames(sop_class, image_type, pixels, attributes)
        _check_places(frames)
        _check_rescale(frames, attributes)
    except QuarantineError as error:
        return _header(opened, "image", sop_class, (error.reason, error.found, error.advice))
    damage = _damage(opened, pixels)
    lossy = opened.transfer_syntax_uid in LOSSY or attributes.text("LossyImageCompression") == "01"
    return DicomHeader(
        kind="image",
        modality=(attributes.text("Modality") or "").upper(),
        sop_class_uid=sop_class,
        sop_instance_uid=attributes.text("SOPInstanceUID") or "",
        transfer_syntax_uid=opened.transfer_syntax_uid,
        size=opened.size,
        facts=series_facts(attributes),
        pixels=pixels,
        pixel_offset=opened.pixel_offset,
        pixel_length=opened.pixel_length,
        tiles_across=across,
        slice_distance_mm=abs(attributes.number("SpacingBetweenSlices") or attributes.number("SliceThickness") or 0)
        or None,
        gantry_tilt_degrees=attributes.number("GantryDetectorTilt"),
        derived=is_derived(image_type, lossy),
        lossy=lossy,
        refusal=damage,
        damaged=damage is not None,
        frames=frames,
    )


def _header(opened: OpenedFile, kind: Kind, sop_class: str, refusal: Refused | None) -> DicomHeader:
    attributes = opened.attributes
    return DicomHeader(
        kind=kind,
        modality=(attributes.text("Modality") or "").upper()[:16],
        sop_class_uid=sop_class,
        sop_instance_uid=attributes.text("SOPInstanceUID") or "",
        transfer_syntax_uid=opened.transfer_syntax_uid,
        size=opened.size,
        facts=series_facts(attributes),
        refusal=refusal,
    )


def _pixel_format(attributes: Attributes) -> PixelFormat:
    whole = attributes.whole
    allocated = whole("BitsAllocated") or 16
    stored = whole("BitsStored") or allocated
    high = whole("HighBit")
    high = stored - 1 if high is None else high
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated or not stored - 1 <= high < allocated:
        found = f"{stored} bits stored up to bit {high} of {allocated}"
        raise QuarantineError("UNSUPPORTED_PIXELS", found, "Export with 8 or 16 bits allocated.")
    return PixelFormat(
        rows=whole("Rows") or 0,
        columns=whole("Columns") or 0,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high,
        signed=whole("PixelRepresentation") == 1,
        inverted=attributes.text("PhotometricInterpretation") == "MONOCHROME1",
        padding=_padding(attributes),
    )


def _padding(attributes: Attributes) -> tuple[int, int] | None:
    value = attributes.whole("PixelPaddingValue")
    if value is None:
        return None
    limit = attributes.whole("PixelPaddingRangeLimit")
    other = value if limit is None else limit
    return min(value, other), max(value, other)


def _frames(
    sop_class: str, image_type: tuple[str, ...], pixels: PixelFormat, attributes: Attributes
) -> tuple[int, tuple[FrameHeader, ...]]:
    """Tiles in a row, and the frames."""
    if sop_class in ENHANCED_CLASSES:
        return 1, multiframe.frames(attributes)
    count = attributes.whole("NumberOfFrames") or 1
    if count != 1:
        found = f"{count} frames with the place of one"
        raise QuarantineError("MISSING_GEOMETRY", found, "Export as single-frame or enhanced MR or CT images.")
    frame = _classic(image_type, attributes)
    return tiles(frame, pixels.rows, pixels.columns, attributes) if is_mosaic(image_type) else (1, (frame,))


def _classic(image_type: tuple[str, ...], attributes: Attributes) -> FrameHeader:
    place = _Place(*(attributes.numbers(name) for name in _PLACE))
    for name, count, values in zip(_PLACE, (3, 6, 2), place, strict=True):
        if len(values) != count:
            raise QuarantineError("MISSING_GEOMETRY", f"no usable {name}", "Export with complete geometry.")
    rest = image_type[2:]
    is_mr = (attributes.text("Modality") or "").upper() == "MR"
    return FrameHeader(
        frame=0,
        tile=-1,
        position=cast("tuple[float, float, float]", place.position),
        orientation=cast("tuple[float, float, float, float, float, float]", place.orientation),
        pixel_spacing=cast("tuple[float, float]", place.pixel_spacing),
        slope=attributes.number("RescaleSlope"),
        intercept=attributes.number("RescaleIntercept"),
        lookup=attributes.has("ModalityLUTSequence"),
        image_type=rest,
        part=part(rest, attributes) if is_mr else "",
        echo_number=attributes.whole("EchoNumbers") if is_mr else None,
        echo_time_ms=attributes.number("EchoTime") if is_mr else None,
        b_value=b_value(attributes) if is_mr else None,
        time_index=attributes.whole("TemporalPositionIdentifier"),
        acquisition_number=attributes.whole("AcquisitionNumber"),
        instance_number=attributes.whole("InstanceNumber"),
        acquisition_time=attributes.text("AcquisitionTime"),
    )


_PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")


@lru_cache(maxsize=1024)
def _bad_orientation(orientation: tuple[float, ...]) -> str:
    """What is wrong with six direction cosines, or nothing."""
    try:
        slice_normal(orientation)
    except InputError as error:
        return error.found
    return ""


def _check_places(frames: tuple[FrameHeader, ...]) -> None:
    """Refuse directions that are not perpendicular unit vectors and spacings that are not positive."""
    for frame in frames:
        problem = _bad_orientation(frame.orientation)
        if problem:
            raise QuarantineError("BAD_ORIENTATION", problem, "Export with valid cosines.")
        if min(frame.pixel_spacing) <= 0 or max(map(abs, (*frame.position, *frame.pixel_spacing))) > 1e6:
            found = (
                f"pixels of {frame.pixel_spacing[0]:g} x {frame.pixel_spacing[1]:g} mm, or a place beyond a kilometer"
            )
            raise QuarantineError("BAD_GEOMETRY", found, "Export with valid geometry.")


def _check_rescale(frames: tuple[FrameHeader, ...], attributes: Attributes) -> None:
    """Refuse CT that does not say how stored values become HU (PS3.3 C.8.2.1.1.5)."""
    if (attributes.text("Modality") or "").upper() != "CT":
        return
    if any(frame.slope in (None, 0.0) or frame.intercept is None for frame in frames if not frame.lookup):
        found = "CT without RescaleSlope and RescaleIntercept"
        raise QuarantineError("MISSING_RESCALE", found, "Export with HU scaling.")


def _damage(opened: OpenedFile, pixels: PixelFormat) -> Refused | None:
    """Why the pixels of a file with a sound header cannot be read, as far as it shows without decoding."""
    frames = opened.attributes.whole("NumberOfFrames") or 1
    expected = pixels.rows * pixels.columns * frames * pixels.bits_allocated // 8
    held = opened.size
    if opened.pixel_offset is not None:
        held = max(0, min(opened.pixel_length or 0, opened.size - opened.pixel_offset))
        if held < expected:
            return "TRUNCATED", f"{held} of {expected} bytes of pixel data", "Copy the file again from its source."
    elif opened.transfer_syntax_uid in PLAIN and pixels.bits_allocated <= 16:
        return "TRUNCATED", "an image without its pixel data", "Copy the file again from its source."
    try:
        check_pixel_claims(
            pixels.rows, pixels.columns, frames, 1, pixels.bits_allocated, held, opened.transfer_syntax_uid
        )
    except QuarantineError as error:
        return error.reason, error.found, error.advice
    return None
