"""What runs in the parsing process for scans; imports the readers alone, so that a process starts quickly."""

from pathlib import Path

from pipeline.errors import QuarantineError
from pipeline.scan_io import Scan, SeriesKey, find_dicom_series, read_dicom_series

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
