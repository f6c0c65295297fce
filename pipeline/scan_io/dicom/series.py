"""Files to volumes in one process, for trusted files; ingest does the same steps in limited child processes."""

import stat
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pipeline.errors import QuarantineError
from pipeline.scan_io.dicom.grouping import group_headers
from pipeline.scan_io.dicom.header import DicomHeader
from pipeline.scan_io.dicom.read_header import read_header
from pipeline.scan_io.dicom.read_volume import read_volume
from pipeline.scan_io.dicom.volume_plan import DicomPolicy, Grouping, VolumePlan
from pipeline.scan_io.scan import Scan

_DEFAULT = DicomPolicy(derived="keep")
"""Whoever names the files wants them read."""


def is_dicom(path: Path) -> bool:
    """Tell whether a path is a regular file (no link) with the DICOM magic after a 128-byte preamble (PS3.10 7.1)."""
    if not stat.S_ISREG(path.lstat().st_mode):
        return False
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def find_dicom_series(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """DICOM files among ``paths`` (files, or folders that are searched) by SeriesInstanceUID.

    Files without the DICOM magic, links and special files are passed over; so are files that cannot be read.
    """
    series: dict[str, list[Path]] = {}
    for path in sorted({file for start in paths for file in _files(start)}):
        header = _header_or_none(path) if is_dicom(path) else None
        if header is not None:
            series.setdefault(header.facts.series_uid or "", []).append(path)
    return series


def group_files(paths: Sequence[Path], policy: DicomPolicy = _DEFAULT) -> Grouping:
    """Volumes that files make; raises the first QuarantineError of a file that cannot be read."""
    with warnings.catch_warnings(action="ignore"):  # pydicom warns when it converts values; checks of ours judge them
        return group_headers([(path, read_header(path)) for path in paths], policy)


def read_dicom_volumes(paths: Sequence[Path], policy: DicomPolicy = _DEFAULT) -> list[Scan]:
    """All volumes of files that must make nothing else, in a fixed order.

    Raises:
        QuarantineError: of the first file or volume that is refused.
    """
    return [_volume(plan) for plan in _plans(paths, policy)]


def read_dicom_series(paths: Sequence[Path], policy: DicomPolicy = _DEFAULT) -> Scan:
    """Read files that make one volume, in any order.

    Raises:
        QuarantineError: MIXED_SERIES where they make several, and what `read_dicom_volumes` raises.
    """
    plans = _plans(paths, policy)
    if len(plans) != 1:
        found = f"{len(paths)} files that make {len(plans)} volumes"
        raise QuarantineError("MIXED_SERIES", found, "Pass one volume at a time, or read all of them.")
    return _volume(plans[0])


def _volume(plan: VolumePlan) -> Scan:
    with warnings.catch_warnings(action="ignore"):
        return read_volume(plan)


def _plans(paths: Sequence[Path], policy: DicomPolicy) -> tuple[VolumePlan, ...]:
    """Volumes; raises for whatever is no volume."""
    if not paths:
        raise QuarantineError("NO_FILES", "a series without files", "Pass the files of one series.")
    grouping = group_files(paths, policy)
    for refused in grouping.refused:
        raise refused.error
    for _, header in grouping.structures:
        raise QuarantineError("NOT_AN_IMAGE", f"a {header.kind.replace('_', ' ')}", "Pass images.")
    return grouping.plans


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir() and not path.is_symlink():
        for child in sorted(path.iterdir()):
            yield from _files(child)
    elif path.is_file():
        yield path


def _header_or_none(path: Path) -> DicomHeader | None:
    with warnings.catch_warnings(action="ignore"):
        try:
            return read_header(path)
        except QuarantineError:
            return None
