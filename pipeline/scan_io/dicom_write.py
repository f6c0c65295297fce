"""Write CT and MR volumes as DICOM series: one file a slice, Explicit VR Little Endian, valid IODs (PS3.3 A.3, A.4).

Equal inputs give equal bytes: UIDs come from the caller or from `uid_from`, and no clock is read. CT is stored as int16
with RescaleSlope 1 and RescaleIntercept −1024, so that stored values are never negative and a reader that mistakes the
sign still gets the right HU.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat

from pipeline.errors import InputError
from pipeline.geometry import Geometry, dicom_planes, slice_normal
from pipeline.scan_io.scan import CT_IMAGE_STORAGE, HU_MAXIMUM, HU_MINIMUM, MR_IMAGE_STORAGE

PATIENT_POSITIONS = ("HFS", "HFP", "HFDR", "HFDL", "FFS", "FFP", "FFDR", "FFDL")
"""Patient Position codes of a patient on a table (PS3.3 C.7.3.1.1.2)."""


def uid_from(*words: str) -> str:
    """UID made from words alone: 2.25. and 128 bits of their SHA-256 (PS3.5 B.2); at most 44 characters."""
    digest = hashlib.sha256("\0".join(words).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


@dataclass(frozen=True)
class SeriesIdentity:
    """Whose series it is and how it is called; empty texts are written as empty values.

    Dates are YYYYMMDD, ages like ``045Y``, sex is M, F, O or empty, ``patient_position`` one of `PATIENT_POSITIONS`.
    """

    patient_id: str
    study_uid: str
    series_uid: str
    frame_of_reference_uid: str
    patient_name: str = ""
    patient_sex: str = ""
    patient_age: str = ""
    patient_birth_date: str = ""
    patient_position: str = "HFS"
    study_id: str = ""
    study_date: str = ""
    study_time: str = ""
    accession_number: str = ""
    series_number: int = 1


@dataclass(frozen=True)
class Acquisition:
    """What the series shows and how it was made; ``None`` and empty texts are written as empty values.

    An empty ``image_type`` means original pixels: ORIGINAL, PRIMARY, and AXIAL for CT or OTHER for MR.
    """

    series_description: str = ""
    body_part: str = ""
    manufacturer: str = "scanloom"
    model_name: str = ""
    image_type: tuple[str, ...] = ()
    kvp: float | None = None
    repetition_time_ms: float | None = None
    echo_time_ms: float | None = None


def write_dicom_series(
    folder: Path,
    voxels: NDArray[Any],
    affine: ArrayLike,
    modality: str,
    identity: SeriesIdentity,
    acquisition: Acquisition,
) -> list[Path]:
    """Write a volume as a CT or MR Image Storage series into ``folder``.

    Slices are numbered, and files named 0001.dcm …, by growing position along the slice normal.

    Args:
        folder: created if missing; existing files of the same names are replaced.
        voxels: (column, row, slice); CT: HU, clipped to [−1024, 3071] and rounded; MR: whole numbers that fit int16.
        affine: voxel index → RAS+ mm; any orientation without shear.
        modality: "CT" or "MR".
        identity: patient, study and series.
        acquisition: descriptive texts and scan parameters.

    Returns:
        The paths, in the order of InstanceNumber.

    Raises:
        InputError: for another modality or patient position, values that int16 cannot hold, or a sheared affine.
    """
    return write_slices(folder, series_header(modality, identity, acquisition), voxels, affine)


def series_header(modality: str, identity: SeriesIdentity, acquisition: Acquisition) -> Dataset:
    """Attributes that all slices of a series share. Raises InputError for an unknown modality or patient position."""
    _check_choice("A written series must have a known modality", modality, ("CT", "MR"))
    _check_choice("PatientPosition must be a defined term", identity.patient_position, PATIENT_POSITIONS)
    header = Dataset()
    _add_patient_and_study(header, identity)
    header.Modality = modality
    header.SOPClassUID = CT_IMAGE_STORAGE if modality == "CT" else MR_IMAGE_STORAGE
    header.SeriesInstanceUID = identity.series_uid
    header.SeriesNumber = identity.series_number
    header.FrameOfReferenceUID = identity.frame_of_reference_uid
    header.PositionReferenceIndicator = ""
    header.PatientPosition = identity.patient_position
    header.SeriesDescription = acquisition.series_description
    if acquisition.body_part:
        header.BodyPartExamined = acquisition.body_part
    header.Manufacturer = acquisition.manufacturer
    header.ManufacturerModelName = acquisition.model_name
    header.ImageType = list(acquisition.image_type) or ["ORIGINAL", "PRIMARY", "AXIAL" if modality == "CT" else "OTHER"]
    header.AcquisitionNumber = None
    if modality == "CT":
        _add_ct(header, acquisition)
    else:
        _add_mr(header, acquisition)
    return header


def _check_choice(rule: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(rule, found=repr(value), allowed=", ".join(choices), change="pass one of these codes")


def _add_patient_and_study(header: Dataset, identity: SeriesIdentity) -> None:
    header.SpecificCharacterSet = "ISO_IR 192"
    header.PatientName = identity.patient_name
    header.PatientID = identity.patient_id
    header.PatientBirthDate = identity.patient_birth_date
    header.PatientSex = identity.patient_sex
    if identity.patient_age:
        header.PatientAge = identity.patient_age
    header.StudyInstanceUID = identity.study_uid
    header.StudyID = identity.study_id
    header.StudyDate = identity.study_date
    header.StudyTime = identity.study_time
    header.AccessionNumber = identity.accession_number
    header.ReferringPhysicianName = ""


def _add_ct(header: Dataset, acquisition: Acquisition) -> None:
    header.KVP = _decimal(acquisition.kvp)
    header.RescaleSlope = _decimal(1.0)
    header.RescaleIntercept = _decimal(float(HU_MINIMUM))
    header.RescaleType = "HU"
    header.WindowCenter = _decimal(40.0)
    header.WindowWidth = _decimal(400.0)


def _add_mr(header: Dataset, acquisition: Acquisition) -> None:
    header.ScanningSequence = "SE"
    header.SequenceVariant = "NONE"
    header.ScanOptions = ""
    header.MRAcquisitionType = "2D"
    header.RepetitionTime = _decimal(acquisition.repetition_time_ms)
    header.EchoTime = _decimal(acquisition.echo_time_ms)
    header.EchoTrainLength = 1


def _decimal(value: float | None) -> DSfloat | None:
    """Decimal String of at most 16 characters (PS3.5 6.2); rounding noise below 1e-12 becomes 0."""
    return None if value is None else DSfloat(round(value, 12) + 0.0, auto_format=True)


def _decimals(values: ArrayLike) -> list[DSfloat | None]:
    return [_decimal(float(value)) for value in np.asarray(values).ravel()]


def write_slices(folder: Path, header: Dataset, voxels: NDArray[Any], affine: ArrayLike) -> list[Path]:
    """Write one file a slice, with ``header`` and what its place and pixels add; see `write_dicom_series`."""
    geometry = Geometry(voxels.shape, np.asarray(affine, dtype=np.float64))
    planes = dicom_planes(geometry)
    normal = slice_normal(planes.image_orientation_patient)
    along_normal = np.asarray(planes.positions) @ normal
    stored = _stored(voxels, str(header.Modality))
    header.ImageOrientationPatient = _decimals(planes.image_orientation_patient)
    header.PixelSpacing = _decimals(planes.pixel_spacing)
    header.SliceThickness = _decimal(planes.slice_spacing_mm)
    header.SpacingBetweenSlices = _decimal(planes.slice_spacing_mm)
    if header.Modality == "CT":
        del header.SpacingBetweenSlices  # an MR attribute
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, k in enumerate(np.argsort(along_normal), start=1):
        header.SOPInstanceUID = uid_from(str(header.SeriesInstanceUID), "slice", str(number))
        header.InstanceNumber = number
        header.ImagePositionPatient = _decimals(planes.positions[k])
        header.SliceLocation = _decimal(float(along_normal[k]))
        paths.append(folder / f"{number:04d}.dcm")
        _write_file(paths[-1], header, np.ascontiguousarray(stored[:, :, k].T))
    return paths


def _stored(voxels: NDArray[Any], modality: str) -> NDArray[np.int16]:
    """Pixel values as stored: HU + 1024 for CT, the values themselves for MR."""
    if not np.isfinite(voxels).all():
        raise InputError(
            "Voxels to be written must be finite",
            found=f"{int((~np.isfinite(voxels)).sum())} voxels are NaN or infinite",
            allowed="finite numbers",
            change="correct the step that made them",
        )
    if modality == "CT":
        return np.asarray(np.clip(np.rint(voxels), HU_MINIMUM, HU_MAXIMUM) - HU_MINIMUM, dtype=np.int16)
    stored: NDArray[np.int16] = voxels.astype(np.int16)
    if not np.array_equal(stored, voxels):
        raise InputError(
            "MR voxels to be written must be whole numbers that fit int16",
            found=f"values from {voxels.min()} to {voxels.max()}, {voxels.dtype}",
            allowed="whole numbers in [-32768, 32767]",
            change="scale and round the volume first",
        )
    return stored


def _write_file(path: Path, header: Dataset, pixels: NDArray[np.int16]) -> None:
    """Write one slice; ``pixels`` are (row, column)."""
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.Rows, header.Columns = pixels.shape
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 16, 15
    header.PixelRepresentation = 1
    header.PixelData = pixels.astype("<i2").tobytes()
    header["PixelData"].VR = "OW"
    header.file_meta = FileMetaDataset()
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.ImplementationClassUID = uid_from("scanloom")
    header.file_meta.ImplementationVersionName = "SCANLOOM"
    header.preamble = b"\0" * 128
    header.save_as(path, enforce_file_format=True)
