"""DICOM files of an input to volumes: all headers first, then the volumes that they make, in limited child processes.

A damaged file is refused by name. What it takes from its volume is told by the volume's own refusal; a volume that does
not need it is read. Archives hold the same series more than once: copies are read as one, and a volume that is refused
as a whole is tried again folder by folder, so that one bad copy does not cost the good one.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.errors import QuarantineError
from pipeline.ingest.dicom_volumes import volumes
from pipeline.ingest.found import Reading
from pipeline.ingest.isolated import CHUNK_FILES, parse_each
from pipeline.ingest.readings import Question
from pipeline.ingest.scan_parsers import Paths, read_headers
from pipeline.ingest.source_tree import SourceFile
from pipeline.safe_parse import Outcome
from pipeline.scan_io import Scan
from pipeline.scan_io.dicom.grouping import group_headers
from pipeline.scan_io.dicom.header import DicomHeader
from pipeline.scan_io.dicom.read_volume import DamagedFileError
from pipeline.scan_io.dicom.volume_plan import DicomPolicy, VolumePlan, without_files

_PARSERS = "pipeline.ingest.scan_parsers"


@dataclass
class DicomReading:
    """Reads the DICOM files of an input.

    Args:
        reading: the input and how to read it.
        files: its DICOM files, sorted by name.

    Attributes:
        structures: segmentations and structure sets, known once `outcomes` has ended.
    """

    reading: Reading
    files: Sequence[SourceFile]
    structures: list[SourceFile] = field(default_factory=list)

    def outcomes(self) -> Iterator[Outcome[Paths, Scan]]:
        """Volumes with their files, and refusals with theirs; the first file of a refusal names it."""
        headers: list[tuple[Path, DicomHeader]] = []
        for outcome in headers_of(self.reading, self.files):
            if outcome.result is None:
                yield Outcome((outcome.task,), None, outcome.refusal)
            else:
                headers.append((outcome.task, outcome.result))
        settings = self.reading.settings
        grouping = group_headers(headers, DicomPolicy(settings.gantry_tilt, settings.derived))
        structures = {str(path) for path, _ in grouping.structures}
        self.structures += [file for file in self.files if file.location in structures]
        for refused in grouping.refused:
            yield Outcome(refused.paths, None, refused.error)
        yield from self._volumes(grouping.plans)

    def _volumes(self, plans: Sequence[VolumePlan]) -> Iterator[Outcome[Paths, Scan]]:
        while plans:
            again: list[VolumePlan] = []
            for outcome in volumes_of(self.reading, plans):
                retries, told = _retries(outcome)
                again += retries
                yield from told
            plans = again


def headers_of(reading: Reading, files: Sequence[SourceFile]) -> Iterator[Outcome[Path, DicomHeader]]:
    """Header of every file, in order."""
    question: Question[Path] = Question("headers", _PARSERS, lambda path: (path,), lambda _: None)
    parse = partial(parse_each, read_headers, limits=reading.limits)
    return reading.outcomes(question, [file.path for file in files], parse, CHUNK_FILES)


def volumes_of(reading: Reading, plans: Sequence[VolumePlan]) -> Iterator[Outcome[VolumePlan, Scan]]:
    """Volume of every plan, in order."""
    question: Question[VolumePlan] = Question("series", _PARSERS, lambda plan: plan.paths, _asked)
    return reading.outcomes(question, plans, partial(volumes, limits=reading.limits))


def _asked(plan: VolumePlan) -> list[Any]:
    """What a volume depends on beside the content of its files."""
    frames = [[planned.file, planned.frame.frame, planned.frame.tile] for planned in plan.frames]
    return [plan.label, plan.gantry_tilt, frames]


def _retries(outcome: Outcome[VolumePlan, Scan]) -> tuple[list[VolumePlan], list[Outcome[Paths, Scan]]]:
    """Plans to try in place of a refused one, and what is certain by now."""
    plan, refusal = outcome.task, outcome.refusal
    if isinstance(refusal, DamagedFileError) and 0 <= refusal.file < len(plan.paths):
        told: list[Outcome[Paths, Scan]] = [Outcome((plan.paths[refusal.file],), None, refusal)]
        rest = without_files(plan, {refusal.file})
        if rest is None:
            return [], told
        lost = plan.positions - rest.positions
        if not lost:
            return [rest], told
        found = f"{len(lost)} of {len(plan.positions)} slices are damaged"
        advice = "Replace the damaged file; it has a row of its own."
        return [], [*told, Outcome(rest.paths, None, QuarantineError("MISSING_SLICE", found, advice))]
    parts = _by_folder(plan) if refusal is not None else []
    return (parts, []) if len(parts) > 1 else ([], [Outcome(plan.paths, outcome.result, refusal)])


def _by_folder(plan: VolumePlan) -> list[VolumePlan]:
    """The files of each folder as a plan of its own."""
    folders: dict[Path, set[int]] = defaultdict(set)
    for number, path in enumerate(plan.paths):
        folders[path.parent].add(number)
    every = set(range(len(plan.paths)))
    parts = [without_files(plan, every - members) for members in folders.values()]
    return [part for part in parts if part is not None]
