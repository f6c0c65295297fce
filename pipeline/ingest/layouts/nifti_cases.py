"""Image files (NIfTI, MetaImage, NRRD) whose layout tells what they are: MR or CT, and of which case.

For layouts where the place of a file, not its name or a JSON beside it, decides. A JSON beside a file may still say
more about it, but not that it is of another modality.
"""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.deidentify import names_a_patient
from pipeline.errors import QuarantineError
from pipeline.ingest.found import FoundVolume, Reading
from pipeline.ingest.lesion_masks import AlignedMask, MaskTask, read_mask
from pipeline.ingest.nifti_parsers import ImageTask, read_image_file
from pipeline.ingest.readings import Question
from pipeline.ingest.source_tree import Refusal, SourceFile
from pipeline.safe_parse import Outcome, parse_all
from pipeline.scan_io import ImagePolicy, Scan
from pipeline.scan_io.metaimage import METAIMAGE_SUFFIXES, NRRD_SUFFIXES
from pipeline.scan_io.sidecar import stem
from pipeline.settings import IngestSettings

NIFTI_SUFFIXES = frozenset({".nii", ".nii.gz"})
IMAGE_FILE_SUFFIXES = NIFTI_SUFFIXES | METAIMAGE_SUFFIXES | NRRD_SUFFIXES
"""Endings of files that hold one volume each."""

_PAIR_SUFFIXES = (".hdr", ".img")
_DETACHED_SUFFIXES = frozenset({".mhd", ".nhdr"})


@dataclass(frozen=True)
class NiftiCase:
    """One image file that its layout knows.

    Attributes:
        file: where it lies.
        modality: MR or CT; None where the file itself has to tell.
        case: names the subject where the JSON beside the file does not.
        sequence: MR sequence where the layout tells it.
    """

    file: SourceFile
    modality: str | None
    case: str
    sequence: str | None = None


def policy_of(settings: IngestSettings) -> ImagePolicy:
    """The settings that readers of image files need."""
    return ImagePolicy(settings.nifti_volume, settings.form_conflict, settings.max_non_finite)


def source_of(name: str) -> str | None:
    """Format of an image file by its name, as the catalog has it; None for other files.

    >>> source_of("a/ct.nii.gz"), source_of("CT.MHA"), source_of("a.nhdr"), source_of("a.dcm")
    ('nifti', 'metaimage', 'nrrd', None)
    """
    lowered = name.lower()
    endings = {"nifti": NIFTI_SUFFIXES, "metaimage": METAIMAGE_SUFFIXES, "nrrd": NRRD_SUFFIXES}
    return next((source for source, suffixes in endings.items() if lowered.endswith(tuple(suffixes))), None)


def refused_pairs(files: Sequence[SourceFile]) -> list[Refusal]:
    """A refusal for each .hdr/.img pair (Analyze, or NIfTI in two files), which would else go unnoticed."""
    halves: dict[tuple[str, str], list[str]] = {}
    for file in files:
        if file.suffix in _PAIR_SUFFIXES:
            halves.setdefault((file.folder, file.stem), []).append(file.name)
    error = QuarantineError("UNSUPPORTED_FORMAT", "a .hdr/.img pair", "Convert the pair to one .nii file.")
    return [Refusal(tuple(sorted(names)), error) for names in halves.values() if len(names) > 1]


def image_outcomes(reading: Reading, tasks: Sequence[ImageTask]) -> Iterator[Outcome[ImageTask, Scan]]:
    """Outcome of every image file, in order."""
    question: Question[ImageTask] = Question(
        "image files", "pipeline.ingest.nifti_parsers", partial(_looked_at, _here(reading)), _asked
    )
    return reading.outcomes(question, tasks, partial(parse_all, read_image_file, limits=reading.limits))


def mask_outcomes(reading: Reading, tasks: Sequence[MaskTask]) -> Iterator[Outcome[MaskTask, AlignedMask]]:
    """Outcome of every mask, in order."""
    question: Question[MaskTask] = Question(
        "masks", "pipeline.ingest.lesion_masks", partial(_looked_at, _here(reading)), lambda task: list(task.grids)
    )
    return reading.outcomes(question, tasks, partial(parse_all, read_mask, limits=reading.limits))


def _here(reading: Reading) -> frozenset[Path]:
    return frozenset(file.path for file in reading.tree.files)


def _looked_at(here: AbstractSet[Path], task: ImageTask | MaskTask) -> list[Path]:
    """An image and the JSON beside it; every file in the folder of a header whose voxels lie in another file."""
    if task.path.suffix.lower() in _DETACHED_SUFFIXES:
        return sorted(path for path in here if path.parent == task.path.parent)
    beside = task.path.with_name(stem(task.path) + ".json")
    return [task.path, beside] if beside in here else [task.path]


def _asked(task: ImageTask) -> list[Any]:
    """What an image depends on beside the content of its files."""
    return [asdict(task.policy), task.modality]


def read_cases(reading: Reading, cases: Sequence[NiftiCase]) -> Iterator[tuple[NiftiCase, FoundVolume | Refusal]]:
    """Every case with its volume, or with why there is none, in the order given."""
    policy = policy_of(reading.settings)
    tasks = [ImageTask(case.file.path, policy, case.modality) for case in cases]
    for count, (case, outcome) in enumerate(zip(cases, image_outcomes(reading, tasks), strict=True), start=1):
        names = (case.file.name,)
        refusal = outcome.refusal or unusable(outcome.result, reading.settings.min_slices)
        if refusal is not None or outcome.result is None:
            yield case, Refusal(names, refusal or QuarantineError("UNREADABLE", "no result", "Copy it again."))
        else:
            yield case, _volume(outcome.result, case, names)
        reading.progress("files read", count, len(cases))


def with_frame(volume: FoundVolume, word: str) -> FoundVolume:
    """The volume in the frame of reference that ``word`` names; equal words are one frame once they are remapped."""
    facts = replace(volume.scan.facts, frame_of_reference_uid=word)
    return replace(volume, scan=replace(volume.scan, facts=facts))


def of_one_subject(volumes: Sequence[FoundVolume]) -> Sequence[FoundVolume]:
    """Volumes of one case under the one PatientID that the JSON beside any of them tells, if one does."""
    told = {volume.subject_word for volume in volumes if volume.subject_source == "patient_id"}
    if len(told) != 1:
        return volumes
    return [replace(volume, subject_word=next(iter(told)), subject_source="patient_id") for volume in volumes]


def unusable(scan: Scan | None, min_slices: int) -> QuarantineError | None:
    """Why a volume that was read is of no use, or None."""
    if scan is None:
        return None
    if scan.modality is None:
        advice = 'Name the file as BIDS does (_T1w, _T2w, _ct ...) or put "Modality" into a JSON beside it.'
        return QuarantineError("UNKNOWN_MODALITY", "a volume that does not tell whether it is MR or CT", advice)
    if min(scan.voxels.shape) < min_slices:
        found = f"a volume of {' x '.join(str(size) for size in scan.voxels.shape)} voxels"
        advice = f"At least {min_slices} slices are needed; lower ingest.min_slices to keep thinner volumes."
        return QuarantineError("TOO_FEW_SLICES", found, advice)
    return None


def _volume(scan: Scan, case: NiftiCase, names: tuple[str, ...]) -> FoundVolume:
    facts = replace(scan.facts, sequence_name=case.sequence or scan.facts.sequence_name)
    told = facts.patient_id is not None and names_a_patient(facts.patient_id)
    subject, source = (str(facts.patient_id), "patient_id") if told else (case.case, "case")
    word = f"nifti\0{names[0]}"
    return FoundVolume(replace(scan, facts=facts), source_of(names[0]) or "nifti", word, subject, source, names)
