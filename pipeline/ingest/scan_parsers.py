"""What runs in the parsing process for scans; imports the readers alone, so that a process starts quickly."""

from dataclasses import replace
from pathlib import Path

from pipeline.errors import QuarantineError
from pipeline.scan_io import Scan, SeriesKey, find_dicom_series, read_dicom_series, read_nifti
from pipeline.scan_io.scan import hounsfield

Paths = tuple[Path, ...]


def read_keys(paths: Paths) -> list[SeriesKey | QuarantineError]:
    """Series key of each DICOM file."""
    keys: list[SeriesKey | QuarantineError] = []
    for path in paths:
        found = list(find_dicom_series([path]))
        keys.append(found[0] if found else QuarantineError("NOT_DICOM", "the file changed while it was read", "Retry."))
    return keys


def read_series(paths: Paths) -> Scan:
    """One DICOM series."""
    return read_dicom_series(paths)


def read_nifti_files(paths: Paths) -> Scan:
    """One NIfTI file."""
    return read_nifti(paths[0])


def read_nifti_as(task: tuple[Path, str]) -> Scan:
    """One NIfTI file of the modality that its layout gives it.

    Raises:
        QuarantineError: MODALITY_CONFLICT where a JSON beside the file tells another, and what `read_nifti` raises.
    """
    path, modality = task
    scan = read_nifti(path)
    if scan.modality not in (None, modality):
        found = f"a file placed as {modality} that says it is {scan.modality}"
        raise QuarantineError("MODALITY_CONFLICT", found, "Correct the place of the file, or the JSON beside it.")
    voxels = hounsfield(scan.voxels) if modality == "CT" else scan.voxels
    return replace(scan, voxels=voxels, modality=modality)
