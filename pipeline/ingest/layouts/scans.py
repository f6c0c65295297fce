"""Scans: DICOM series and image files in any mixture of folders, and a table of lesions at the root, if there is one.

DICOM is found by content, image files (NIfTI, MetaImage, NRRD) by name. A subject is the PatientID of DICOM (the study
where it is missing), the ``sub-`` label of BIDS, else the PatientID in the JSON beside an image file, else its file
name. Equal words are one subject, wherever they come from.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from pipeline.deidentify import names_a_patient
from pipeline.errors import QuarantineError
from pipeline.ingest.found import Found, FoundVolume, Ignored, Layout, Reading
from pipeline.ingest.layouts.claims import claimed
from pipeline.ingest.layouts.dicom_names import may_be_dicom
from pipeline.ingest.layouts.dicom_series import DicomReading
from pipeline.ingest.layouts.nifti_cases import (
    IMAGE_FILE_SUFFIXES,
    image_outcomes,
    policy_of,
    refused_pairs,
    source_of,
    unusable,
)
from pipeline.ingest.layouts.scan_lesions import VolumePlaces, lesions
from pipeline.ingest.layouts.structures import chosen_lesions, structure_lesions
from pipeline.ingest.lesion_table import FORM, LesionRow, read_lesion_table
from pipeline.ingest.nifti_parsers import ImageTask
from pipeline.ingest.scan_parsers import Paths
from pipeline.ingest.source_tree import Refusal, SourceFile, SourceTree, looks_dicom
from pipeline.ingest.table_files import find_table, table_names
from pipeline.safe_parse import Outcome
from pipeline.scan_io import Scan
from pipeline.scan_io.sidecar import stem

_BIDS_SUBJECT = re.compile(r"(?:^|/)(sub-[A-Za-z0-9]+)(?=[_/.])")
_BIDS_ENDING = re.compile(r"_(T1w|T2w|PDw|T2starw|FLAIR|inplaneT1|inplaneT2|T1map|T2map|ct|CT)$")


def recognize(tree: SourceTree) -> str | None:
    """See `Layout.recognize`; files that a more special layout knows are left to it."""
    special = claimed(tree)
    images = Counter(source_of(file.name) for file in tree.files if file.name not in special)
    nifti, other = images["nifti"], images["metaimage"] + images["nrrd"]
    dicom = sum(looks_dicom(file) for file in tree.files if may_be_dicom(file) and file.name not in special)
    if nifti + other + dicom == 0:
        return None
    others = f", {other} MetaImage or NRRD files" if other else ""
    tables = "".join(f", with {name}" for name in sorted(table_names(FORM.stem) & tree.named().keys()))
    return f"{dicom} DICOM files by content, {nifti} NIfTI files{others}{tables}"


def read(reading: Reading) -> Iterator[Found]:
    """See `Layout.read`."""
    files = reading.tree.named()
    table = find_table(reading.tree, FORM)
    rows = [] if table is None else read_lesion_table(table, reading.limits)
    masks = {row.mask_path for row in rows}
    dicom = [file for file in reading.tree.files if may_be_dicom(file) and looks_dicom(file)]
    nifti = [file for file in reading.tree.files if file.suffix in IMAGE_FILE_SUFFIXES and file.name not in masks]
    pairs = refused_pairs(reading.tree.files)
    known = {file.name for file in (*dicom, *nifti)} | masks | {name for pair in pairs for name in pair.names}
    strays = _strays(reading.tree, known)
    yield from pairs
    yield Ignored(len(set(files) - known) - len(strays))
    for stray in strays:
        advice = "Convert it to DICOM Part 10 if it is an image; it is never read by force."
        yield Refusal((stray.name,), QuarantineError("NOT_DICOM", "no DICOM magic after the preamble", advice))
    yield from _volumes(reading, dicom, nifti, rows)


def _volumes(
    reading: Reading, dicom: Sequence[SourceFile], nifti: Sequence[SourceFile], rows: Sequence[LesionRow]
) -> Iterator[Found]:
    """Every volume and refusal, then the lesions of the volumes."""
    places = VolumePlaces()
    names = {file.path: file.name for file in (*dicom, *nifti)}
    total, done = len(names), 0
    series = DicomReading(reading, dicom)
    for outcome in chain(series.outcomes(), _images(reading, nifti)):
        task_names = tuple(names[path] for path in outcome.task)
        done += len(task_names)
        reading.progress("files read", min(done, total), total)
        refusal = outcome.refusal or unusable(outcome.result, reading.settings.min_slices)
        if refusal is not None or outcome.result is None:
            places.refuse(task_names)
            yield Refusal(task_names, refusal or QuarantineError("UNREADABLE", "no result", "Copy it again."))
            continue
        volume = _found(outcome.result, task_names)
        placed = places.accept(volume)
        yield placed or Refusal(task_names, _DUPLICATE)
    masks = {row.mask_path for row in rows}
    structures = [file for file in series.structures if file.name not in masks]
    yield from structure_lesions(reading, places, structures)
    yield from chosen_lesions(reading, places, [row for row in rows if row.structure is not None])
    yield from lesions(reading, places, [row for row in rows if row.structure is None])


def _images(reading: Reading, files: Sequence[SourceFile]) -> Iterator[Outcome[Paths, Scan]]:
    """Outcome of every image file."""
    policy = policy_of(reading.settings)
    for image in image_outcomes(reading, [ImageTask(file.path, policy) for file in files]):
        yield Outcome((image.task.path,), image.result, image.refusal)


def _found(scan: Scan, names: tuple[str, ...]) -> FoundVolume:
    facts = scan.facts
    if (kind := source_of(names[0])) is not None:
        subject, source = _nifti_subject(names[0], facts.patient_id)
        return FoundVolume(scan, kind, f"nifti\0{names[0]}", subject, source, names)
    orientation = ",".join(f"{value:.3f}" for value in scan.geometry.direction.ravel() + 0.0)
    word = f"dicom\0{facts.series_uid or names[0]}\0{orientation}\0{scan.geometry.shape[:2]}"
    word += f"\0{facts.volume_label}" if facts.volume_label else ""
    if facts.patient_id and names_a_patient(facts.patient_id):
        return FoundVolume(scan, "dicom", word, facts.patient_id, "patient_id", names)
    return FoundVolume(scan, "dicom", word, facts.study_uid or names[0], "study" if facts.study_uid else "file", names)


def _nifti_subject(name: str, patient_id: str | None) -> tuple[str, str]:
    """Word and source of an image file's subject.

    >>> _nifti_subject("sub-07/anat/sub-07_T1w.nii.gz", None), _nifti_subject("ct/case3_ct.nii", None)
    (('sub-07', 'bids'), ('case3', 'file'))
    """
    label = _BIDS_SUBJECT.search(name)
    if label is not None:
        return label[1], "bids"
    if patient_id is not None and names_a_patient(patient_id):
        return patient_id, "patient_id"
    return _BIDS_ENDING.sub("", stem(Path(name))), "file"


def _strays(tree: SourceTree, known: set[str]) -> list[SourceFile]:
    """Files that by their name could be DICOM but by their content are not."""
    return [file for file in tree.files if file.name not in known and may_be_dicom(file) and file.size > 0]


_DUPLICATE = QuarantineError(
    "DUPLICATE_SERIES", "the same series with the same voxels and grid a second time", "Nothing to do; one is kept."
)

LAYOUT = Layout(recognize, read)
