"""What runs in the parsing process for DICOM; imports the readers alone, so that a process starts quickly."""

from pathlib import Path

from pipeline.errors import QuarantineError
from pipeline.safe_parse.arenas import lent
from pipeline.scan_io.dicom.header import DicomHeader
from pipeline.scan_io.dicom.read_header import read_header
from pipeline.scan_io.dicom.read_volume import read_volume
from pipeline.scan_io.dicom.volume_plan import VolumePlan
from pipeline.scan_io.scan import Scan

Paths = tuple[Path, ...]


def read_headers(paths: Paths) -> list[DicomHeader | QuarantineError]:
    """Header of each DICOM file, or why it cannot be read."""
    return [_header(path) for path in paths]


def _header(path: Path) -> DicomHeader | QuarantineError:
    try:
        return read_header(path)
    except QuarantineError as error:
        return error
    except MemoryError:
        raise
    except Exception as error:  # a malformed value that no rule foresaw costs one file, not the chunk
        return QuarantineError("UNREADABLE", f"{type(error).__name__} while parsing", "Export the file again.")


def read_planned_volume(plan: VolumePlan) -> Scan:
    """One DICOM volume; see `read_volume`."""
    return read_volume(plan, lent().empty)
