"""Read a series of single-frame DICOM slices into one volume, or refuse it with a reason.

Slices are found by content, never by name, and ordered by their position along the slice normal
(ImagePositionPatient · normal, PS3.3 C.7.6.2.1.1), never by file name or InstanceNumber. Pixel values pass the Modality
LUT of each slice (PS3.3 C.11.1), so that CT voxels are HU.
"""

import math
import stat
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels import apply_modality_lut

from pipeline.errors import InputError, QuarantineError
from pipeline.geometry import Affine, Geometry, affine_from_dicom, slice_normal
from pipeline.scan_io.scan import (
    CT_IMAGE_STORAGE,
    HU_MINIMUM,
    MR_IMAGE_STORAGE,
    Scan,
    ScanFacts,
    compact_integers,
    hounsfield,
    sequence_from_text,
)

SPACING_TOLERANCE = 0.01
"""Largest deviation of a slice distance from the median one, as a fraction of it."""

POSITION_ROUNDING_MM = 0.01
"""Deviation always allowed, because scanners write positions rounded to as few as two decimals."""

TILT_TOLERANCE_DEGREES = 0.1
"""Largest angle between the stacking direction and the slice normal; above it the volume is sheared (gantry tilt)."""

_READ_MODALITIES = ("MR", "CT")
_ENHANCED_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT
        "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT
        "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR
        "1.2.840.10008.5.1.4.1.1.4.3",  # Enhanced MR Color
        "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR
    }
)
_KEY_TAGS = ["SeriesInstanceUID", "ImageOrientationPatient", "Rows", "Columns"]

Slice: TypeAlias = pydicom.Dataset


class SeriesKey(NamedTuple):
    """What the slices of one volume share: UID, orientation (rounded cosines) and matrix (rows, columns).

    An empty ``series_uid`` collects the files that begin like DICOM but whose header cannot be read.
    """

    series_uid: str
    orientation: tuple[float, ...]
    matrix: tuple[int, int]


def is_dicom(path: Path) -> bool:
    """Tell whether a path is a regular file (no link) with the DICOM magic after a 128-byte preamble (PS3.10 7.1)."""
    if not stat.S_ISREG(path.lstat().st_mode):
        return False
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def find_dicom_series(paths: Sequence[Path]) -> dict[SeriesKey, list[Path]]:
    """Group the DICOM files among ``paths`` (files, or folders that are searched) into series.

    Files without the DICOM magic, links, and special files are passed over. Keys come in the order of the sorted files.
    """
    series: dict[SeriesKey, list[Path]] = {}
    for path in sorted({file for start in paths for file in _files(start)}):
        if is_dicom(path):
            series.setdefault(_series_key(path), []).append(path)
    return series


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir() and not path.is_symlink():
        for child in sorted(path.iterdir()):
            yield from _files(child)
    elif path.is_file():
        yield path


def _series_key(path: Path) -> SeriesKey:
    unreadable = SeriesKey("", (), (0, 0))
    try:
        header = _parse(path, header_only=True)
        cosines = header.get("ImageOrientationPatient") or ()
        orientation = tuple(round(float(value), 3) + 0.0 for value in cosines)
        matrix = (int(header.get("Rows") or 0), int(header.get("Columns") or 0))
        return SeriesKey(str(header.get("SeriesInstanceUID") or ""), orientation, matrix)
    except Exception:  # pydicom raises many unrelated types on malformed files; reading the group will tell the reason
        return unreadable


def _parse(path: Path, *, header_only: bool = False) -> Slice:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values that only look odd are judged by the checks below
        return pydicom.dcmread(path, specific_tags=_KEY_TAGS if header_only else None, stop_before_pixels=header_only)


def read_dicom_series(paths: Sequence[Path]) -> Scan:
    """Read the files of one series into a volume.

    Args:
        paths: the files of one `SeriesKey`, in any order.

    Returns:
        Voxels (column, row, slice), slices in the order of growing position along the normal. CT: HU, int16, padding
        set to −1024. MR: stored values after the Modality LUT, MONOCHROME1 inverted (in CT it only says how to display:
        the HU stand).

    Raises:
        QuarantineError: NO_FILES, NOT_DICOM, TRUNCATED, UNREADABLE, NO_PIXEL_DATA, UNSUPPORTED_MODALITY,
            UNSUPPORTED_ENHANCED, UNSUPPORTED_MOSAIC, UNSUPPORTED_COLOR, MISSING_GEOMETRY, BAD_ORIENTATION,
            MIXED_SERIES, MIXED_MATRIX, DUPLICATE_POSITION, MISSING_SLICE, NONUNIFORM_SPACING, GANTRY_TILT,
            MISSING_RESCALE, DECODE_FAILED.
    """
    if not paths:
        raise QuarantineError("NO_FILES", "a series without files", "pass the files of one series")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom converts values when they are first used, and warns then
        try:
            return _read_volume(paths)
        except QuarantineError:
            raise
        except Exception as error:  # any of the many types that pydicom raises on malformed values
            raise QuarantineError("UNREADABLE", type(error).__name__, "export the series again") from error


def _read_volume(paths: Sequence[Path]) -> Scan:
    slices = [_read_slice(path) for path in paths]
    _check_alike(slices)
    slices, pixels = _drop_identical(_sorted_by_position(slices))
    geometry = Geometry((pixels[0].shape[1], pixels[0].shape[0], len(slices)), _stack_affine(slices))
    modality = str(slices[0].Modality)
    volume = np.stack([_modality_values(item, stored) for item, stored in zip(slices, pixels, strict=True)], axis=-1)
    voxels = hounsfield(volume) if modality == "CT" else compact_integers(volume)
    return Scan(np.ascontiguousarray(voxels.transpose(1, 0, 2)), geometry, modality, _facts(slices))


def _read_slice(path: Path) -> Slice:
    if not is_dicom(path):
        raise QuarantineError("NOT_DICOM", "a file without the DICOM magic", "leave non-DICOM files out")
    try:
        item = _parse(path)
        _check_slice(item)
    except (EOFError, OSError) as error:
        raise QuarantineError("TRUNCATED", type(error).__name__, "copy the file again from its source") from error
    return item


def _check_slice(item: Slice) -> None:
    """Refuse what cannot be one slice of an MR or CT volume."""
    if "TransferSyntaxUID" not in item.file_meta:
        raise QuarantineError("TRUNCATED", "a file header that ends early", "copy the file again from its source")
    is_image = str(item.file_meta.get("MediaStorageSOPClassUID")) in (CT_IMAGE_STORAGE, MR_IMAGE_STORAGE)
    if is_image and "PixelData" not in item:
        raise QuarantineError("TRUNCATED", "an image without its pixel data", "copy the file again from its source")
    modality = item.get("Modality")
    if modality not in _READ_MODALITIES:
        raise QuarantineError("UNSUPPORTED_MODALITY", f"modality {modality}", "only MR and CT images are read")
    if str(item.get("SOPClassUID")) in _ENHANCED_CLASSES or int(item.get("NumberOfFrames") or 1) > 1:
        raise QuarantineError(
            "UNSUPPORTED_ENHANCED", f"{item.get('NumberOfFrames')} frames", "export as single-frame MR or CT images"
        )
    if "MOSAIC" in (item.get("ImageType") or ()):
        # One file holds all slices as tiles, and its position and spacing are those of the sheet, not of a slice.
        raise QuarantineError(
            "UNSUPPORTED_MOSAIC", "a Siemens mosaic", "export single slices, or convert with dcm2niix"
        )
    if "PixelData" not in item:
        raise QuarantineError("NO_PIXEL_DATA", "no image in the file", "leave non-image objects out")
    _check_pixels(item)


def _check_pixels(item: Slice) -> None:
    """Refuse color, incomplete geometry and incomplete pixel data."""
    if int(item.get("SamplesPerPixel") or 1) != 1:
        raise QuarantineError(
            "UNSUPPORTED_COLOR", f"{item.SamplesPerPixel} samples a pixel", "only gray images are read"
        )
    for name, count in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
        if len(item.get(name) or ()) != count:
            raise QuarantineError("MISSING_GEOMETRY", f"no usable {name}", "export with complete geometry")
    expected = int(item.Rows) * int(item.Columns) * int(item.BitsAllocated) // 8
    if not item.file_meta.TransferSyntaxUID.is_compressed and len(item.PixelData) < expected:
        found = f"{len(item.PixelData)} of {expected} bytes of pixel data"
        raise QuarantineError("TRUNCATED", found, "copy the file again from its source")


def _check_alike(slices: Sequence[Slice]) -> None:
    """Refuse slices that do not belong to one volume."""
    if len({str(item.get("SeriesInstanceUID")) for item in slices}) > 1 or len({item.Modality for item in slices}) > 1:
        raise QuarantineError("MIXED_SERIES", "slices of several series", "pass one series at a time")
    matrices = sorted({(int(item.Rows), int(item.Columns)) for item in slices})
    spacings = np.array([[float(value) for value in item.PixelSpacing] for item in slices])
    if len(matrices) > 1 or not np.allclose(spacings, spacings[0], rtol=1e-4, atol=0.0):
        found = f"matrices {matrices}, pixel spacings {np.unique(spacings, axis=0).tolist()}"
        raise QuarantineError("MIXED_MATRIX", found, "split the series by matrix and pixel spacing")
    cosines = np.array([[float(value) for value in item.ImageOrientationPatient] for item in slices])
    try:
        slice_normal(cosines[0].tolist())
    except InputError as error:
        raise QuarantineError("BAD_ORIENTATION", error.found, "export with valid direction cosines") from error
    if not np.allclose(cosines, cosines[0], rtol=0.0, atol=1e-3):
        raise QuarantineError("MIXED_SERIES", "slices of several orientations", "split the series by orientation")


def _positions(slices: Sequence[Slice]) -> Affine:
    return np.array([[float(value) for value in item.ImagePositionPatient] for item in slices])


def _normal(slices: Sequence[Slice]) -> Affine:
    return slice_normal([float(value) for value in slices[0].ImageOrientationPatient])


def _sorted_by_position(slices: Sequence[Slice]) -> list[Slice]:
    order = np.argsort(_positions(slices) @ _normal(slices), kind="stable")
    return [slices[index] for index in order]


def _drop_identical(slices: list[Slice]) -> tuple[list[Slice], list[NDArray[Any]]]:
    """Decode all slices; drop a slice that repeats its neighbor's position and pixels, refuse one with other pixels."""
    kept, pixels = [slices[0]], [_stored_values(slices[0])]
    distances = np.diff(_positions(slices) @ _normal(slices))
    for item, distance in zip(slices[1:], distances, strict=True):
        stored = _stored_values(item)
        if distance >= POSITION_ROUNDING_MM:
            kept.append(item)
            pixels.append(stored)
        elif not np.array_equal(stored, pixels[-1]):
            found = f"two different slices {distance:.4f} mm apart among {len(slices)}"
            raise QuarantineError("DUPLICATE_POSITION", found, "split the series by acquisition, echo or time")
    return kept, pixels


def _stored_values(item: Slice) -> NDArray[Any]:
    try:
        return np.asarray(item.pixel_array)
    except Exception as error:  # decoders raise their own types
        raise QuarantineError("DECODE_FAILED", type(error).__name__, "export without compression") from error


def _stack_affine(slices: Sequence[Slice]) -> Affine:
    """Affine of sorted slices; refuses gaps, uneven spacing and gantry tilt with the numbers found."""
    positions = _positions(slices)
    if len(slices) > 1:
        _check_spacing(positions @ _normal(slices))
        step = (positions[-1] - positions[0]) / (len(slices) - 1)
        _check_tilt(step, _normal(slices))
        drift = float(np.linalg.norm(positions - positions[0] - np.outer(np.arange(len(slices)), step), axis=1).max())
        if drift > max(SPACING_TOLERANCE * float(np.linalg.norm(step)), 2 * POSITION_ROUNDING_MM) * 2:
            raise QuarantineError("NONUNIFORM_SPACING", f"slices leave a line by {drift:.3f} mm", "resample the series")
    else:
        distance = slices[0].get("SpacingBetweenSlices") or slices[0].get("SliceThickness") or 1.0
        step = _normal(slices) * float(distance)
    try:
        return affine_from_dicom(slices[0].ImageOrientationPatient, slices[0].PixelSpacing, positions[0], step)
    except InputError as error:
        raise QuarantineError("BAD_ORIENTATION", error.found, "export with valid geometry") from error


def _check_spacing(along_normal: Affine) -> None:
    gaps = np.diff(along_normal)
    median = float(np.median(gaps))
    allowed = max(SPACING_TOLERANCE * median, POSITION_ROUNDING_MM)
    worst = float(gaps[np.argmax(np.abs(gaps - median))])
    if abs(worst - median) <= allowed:
        return
    found = f"a gap of {worst:.3f} mm among gaps of {median:.3f} mm, {len(gaps) + 1} slices"
    if worst > 1.5 * median:
        raise QuarantineError("MISSING_SLICE", found, "send the missing slices")
    raise QuarantineError("NONUNIFORM_SPACING", found, "resample the series to even spacing at its source")


def _check_tilt(step: Affine, normal: Affine) -> None:
    along = float(step @ normal)
    degrees = math.degrees(math.atan2(float(np.linalg.norm(step - along * normal)), along))
    if degrees > TILT_TOLERANCE_DEGREES:
        found = f"slices stacked {degrees:.2f} degrees off their normal"
        raise QuarantineError("GANTRY_TILT", found, "correct the tilt at its source, or acquire without tilt")


def _modality_values(item: Slice, stored: NDArray[Any]) -> NDArray[Any]:
    """Stored values → HU (CT) or scanner units (MR), padding replaced by air or zero."""
    is_ct = item.Modality == "CT"
    has_rescale = "RescaleSlope" in item and "RescaleIntercept" in item
    if is_ct and not has_rescale and "ModalityLUTSequence" not in item:
        raise QuarantineError(
            "MISSING_RESCALE", "CT without RescaleSlope and RescaleIntercept", "export with HU scaling"
        )
    padding = _padding(item, stored)
    if not is_ct and item.get("PhotometricInterpretation") == "MONOCHROME1":
        low = -(1 << (int(item.BitsStored) - 1)) if int(item.PixelRepresentation) else 0
        stored = (2 * low + (1 << int(item.BitsStored)) - 1) - stored.astype(np.int64)
    values = np.asarray(apply_modality_lut(stored, item))
    return np.where(padding, HU_MINIMUM if is_ct else 0, values) if padding.any() else values


def _padding(item: Slice, stored: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels that hold padding, not anatomy (PS3.3 C.7.5.1.1.2)."""
    value = item.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, dtype=bool)
    limit = item.get("PixelPaddingRangeLimit")
    ends = sorted((int(value), int(value if limit is None else limit)))
    return np.asarray((stored >= ends[0]) & (stored <= ends[1]))


def _facts(slices: Sequence[Slice]) -> ScanFacts:
    first = slices[0]
    texts = [_text(first, name) for name in ("SeriesDescription", "ProtocolName", "SequenceName")]
    return ScanFacts(
        patient_id=_text(first, "PatientID"),
        study_uid=_text(first, "StudyInstanceUID"),
        study_id=_text(first, "StudyID"),
        study_date=_text(first, "StudyDate"),
        study_time=_text(first, "StudyTime"),
        series_uid=_text(first, "SeriesInstanceUID"),
        frame_of_reference_uid=_text(first, "FrameOfReferenceUID"),
        sop_instance_uids=tuple(str(item.SOPInstanceUID) for item in slices),
        patient_position=_text(first, "PatientPosition"),
        body_part=_text(first, "BodyPartExamined"),
        sequence_name=sequence_from_text(*texts) if first.Modality == "MR" else None,
        series_description=texts[0],
        patient_sex=_text(first, "PatientSex"),
        patient_age=_text(first, "PatientAge"),
        burned_in_annotation=_text(first, "BurnedInAnnotation"),
    )


def _text(item: Slice, name: str) -> str | None:
    value = str(item.get(name) or "").strip()
    return value or None
