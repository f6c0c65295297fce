"""DICOM Secondary Capture: ``dataset/{real,synthetic}/<split>/<class>/<name>.dcm``, one object an image.

Secondary Capture Image Storage (PS3.3 A.8.1), 16-bit grey with a rescale to network units (C.11.1). Every object says
whether it is synthetic: Synthetic Data (0008,001C) YES or NO (C.12.1) and Conversion Type SYN or WSD (C.8.6.1). A
synthetic image is a patient of its own, and names the algorithm, the hash of its weights and its seed (C.7.6.1.1.3,
C.12.1.1.5, table 10-19); Image Comments repeats its row of ``metadata.csv`` as JSON.
"""

import io
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pydicom.valuerep import DSfloat

from pipeline.export.dataset import AugmentedDataset, ExportImage
from pipeline.export.metadata import (
    DATASET_FOLDER,
    METADATA_SCHEMA,
    Cell,
    Written,
    class_folders,
    dataset_classes,
    grey_pixels,
    image_folder,
    image_stem,
    metadata_row,
    write_image,
    write_table,
)
from pipeline.records import ProgressCallback
from pipeline.scan_io import Deidentification, uid_from
from pipeline.scan_io.deidentified import add_deidentification, code

GREY_LEVELS = 65535
_ALGORITHM = "scanloom lesion GAN"
_RESEARCH = "NOT FOR CLINICAL USE"


def write_dicom_secondary_capture(folder: Path, dataset: AugmentedDataset, progress: ProgressCallback) -> Written:
    """Write one Secondary Capture object an image, and ``metadata.csv``; equal inputs give equal bytes."""
    names = class_folders(dataset_classes(dataset))
    rows, clipped = [], 0
    for done, image in enumerate(dataset, start=1):
        file = f"{image_folder(image, names)}/{image_stem(image)}.dcm"
        grey, outside = grey_pixels(image, GREY_LEVELS, np.uint16)
        row = metadata_row(file, image)
        header = _header(image, row, names[image.lesion_class], dataset)
        write_image(folder / DATASET_FOLDER / file, _encoded(header, grey))
        clipped += outside
        rows.append(row)
        progress("exported images", done, len(dataset))
    metadata = pl.DataFrame(rows, schema=METADATA_SCHEMA)
    write_table(folder / DATASET_FOLDER / "metadata.csv", metadata)
    return Written(metadata, clipped, "16-bit grey DICOM Secondary Capture", GREY_LEVELS)


def _header(image: ExportImage, row: dict[str, Cell], class_name: str, dataset: AugmentedDataset) -> Dataset:
    synthetic = image.origin == "synthetic"
    weights = str(image.model_sha256)
    words = ("synthetic", weights) if synthetic else ("real", str(image.subject_id))
    patient = f"SYNTHETIC-{weights[:8]}-{image.source_row:06d}" if synthetic else str(image.subject_id)
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 192"
    header.SOPClassUID = SecondaryCaptureImageStorage
    header.SOPInstanceUID = uid_from("export image", *words, str(image.source_row))
    header.StudyInstanceUID = uid_from("export study", *words, patient)
    header.SeriesInstanceUID = uid_from("export series", *words, patient, image.split, image.lesion_class)
    header.PatientID, header.PatientName = patient, ""
    header.PatientBirthDate = header.PatientSex = ""
    header.StudyDate = header.StudyTime = header.AccessionNumber = header.ReferringPhysicianName = ""
    header.StudyID = ""
    header.SeriesNumber, header.InstanceNumber = 1, image.source_row + 1
    header.Modality = dataset.prepared.facts.get("modality") or "OT"
    header.PatientOrientation = header.Laterality = ""
    header.ConversionType = "SYN" if synthetic else "WSD"
    header.SyntheticData = "YES" if synthetic else "NO"
    header.ImageType = ["DERIVED", "SECONDARY"]
    header.BurnedInAnnotation = "NO"
    header.SeriesDescription = f"{image.origin} {image.split} {class_name}"[:64]
    header.ImageComments = json.dumps({key: value for key, value in row.items() if key != "file"}, sort_keys=True)
    header.Manufacturer = "scanloom"
    if synthetic:
        _add_algorithm(header, image, weights)
    else:
        header.DerivationDescription = f"Square section around a lesion, resampled, in network units. {_RESEARCH}."
        add_deidentification(header, Deidentification())
    _add_units(header, dataset.prepared.facts.get("pixel_mm"))
    return header


def _add_algorithm(header: Dataset, image: ExportImage, model_sha256: str) -> None:
    version = f"weights {model_sha256[:40]}"
    header.DerivationDescription = (
        f"Synthetic image of a lesion made by a conditional GAN, SHA-256 of the model {model_sha256}, "
        f"seed {image.seed}, truncation {image.truncation}. {_RESEARCH}."
    )
    header.DerivationCodeSequence = [code("SYNTHETIC-LESION", "99SCANLOOM", "Synthesis of a lesion image by a GAN")]
    identification = Dataset()
    identification.AlgorithmFamilyCodeSequence = [code("123110", "DCM", "Artificial Intelligence")]
    identification.AlgorithmName, identification.AlgorithmVersion = _ALGORITHM, version
    header.DerivationAlgorithmSequence = [identification]
    equipment = Dataset()
    equipment.PurposeOfReferenceCodeSequence = [code("109102", "DCM", "Processing Equipment")]
    equipment.Manufacturer, equipment.ManufacturerModelName = "scanloom", _ALGORITHM
    equipment.SoftwareVersions = version
    equipment.ContributionDescription = "Synthesis of lesion images"
    header.ContributingEquipmentSequence = [equipment]


def _add_units(header: Dataset, pixel_mm: float | None) -> None:
    """Rescale to network units, window over all of them, and the pixel size where it is known."""
    header.RescaleSlope = DSfloat(2 / GREY_LEVELS, auto_format=True)
    header.RescaleIntercept = DSfloat(-1.0)
    header.RescaleType = "US"
    if pixel_mm is not None:
        header.PixelSpacing = [DSfloat(pixel_mm, auto_format=True)] * 2


def _encoded(header: Dataset, pixels: npt.NDArray[np.uint16]) -> bytes:
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.Rows, header.Columns = pixels.shape
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 16, 15
    header.PixelRepresentation = 0
    header.PixelData = pixels.astype("<u2").tobytes()
    header["PixelData"].VR = "OW"
    header.file_meta = FileMetaDataset()
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.ImplementationClassUID = uid_from("scanloom")
    header.file_meta.ImplementationVersionName = "SCANLOOM"
    header.preamble = b"\0" * 128
    stream = io.BytesIO()
    header.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
