"""CT, pseudo-CT, MR, masks and label maps given to be judged: a folder has one role, so that no file has to tell it.

Image files (NIfTI, MetaImage, NRRD) are matched by case: what is left of the file's name without words such as ``ct``
or ``pseudo``; where nothing is left, of its folder's name. DICOM series belong to their PatientID.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, JsonValue

from pipeline.catalog import Catalog
from pipeline.deidentify import Pseudonymizer, names_a_patient
from pipeline.errors import InputError, QuarantineError
from pipeline.files import PARTIAL_SUFFIX, sha256_bytes, sha256_json, write_json
from pipeline.ingest.catalog_builder import CatalogBuilder
from pipeline.ingest.file_index import INDEX_FILE, FileIndex, fingerprint
from pipeline.ingest.forgotten import forgotten_subjects
from pipeline.ingest.found import Found, FoundVolume, Ignored, Reading
from pipeline.ingest.layouts.dicom_names import may_be_dicom
from pipeline.ingest.layouts.dicom_series import DicomReading
from pipeline.ingest.layouts.nifti_cases import IMAGE_FILE_SUFFIXES, NiftiCase, read_cases, refused_pairs, unusable
from pipeline.ingest.retries import retries
from pipeline.ingest.source_tree import Refusal, SourceFile, SourceTree, looks_dicom, walk
from pipeline.records import ProgressCallback, StageRecord, silent
from pipeline.scan_io import Scan
from pipeline.settings import IngestSettings, RunSettings
from pipeline.stage_runner import Stage, StageContext, run_stage
from pipeline.workspace import Workspace

Role = Literal["ct", "pseudo_ct", "mr", "mask", "ct_labels", "pseudo_ct_labels"]
MASK_ROLES = frozenset({"mask", "ct_labels", "pseudo_ct_labels"})
"""Roles of image files whose values are no intensities."""

ROLE_WORDS = frozenset(
    """
    ct cts sct pct synct pseudoct syntheticct fakect realct gt mr mri t1 t1w t2 t2w mask masks body outline
    seg segs segmentation segmentations label labels labelmap
    pseudo synthetic synth syn fake generated pred predicted prediction output out real ground truth reference ref
    """.split()  # noqa: SIM905
)
"""Words that tell a file's role, not its case."""

_MODALITIES: dict[Role, str] = {"ct": "CT", "pseudo_ct": "CT"}
"""Others are read as MR, which has no HU to check."""
_TITLES: dict[Role, str] = {
    "ct": "CT",
    "pseudo_ct": "pseudo-CT",
    "mr": "MR",
    "mask": "mask",
    "ct_labels": "CT label map",
    "pseudo_ct_labels": "pseudo-CT label map",
}


class RoleKey(BaseModel, frozen=True):
    """What enters the key."""

    role: Role
    ingest: IngestSettings


def ingest_outside_volumes(
    workspace: Workspace, settings: RunSettings, folder: Path, role: Role, *, progress: ProgressCallback = silent
) -> StageRecord:
    """Read a folder whose volumes all have one role into a catalog of their own.

    Args:
        workspace: where the catalog goes.
        settings: ``settings.ingest``; derived DICOM images are kept among pseudo-CT, for all of them are.
        folder: of image files or DICOM series.
        role: one of `Role`.
        progress: counted in files.

    Returns:
        Record with the facts role, series, subjects, quarantined, quarantine_reasons, modalities.

    Raises:
        InputError: nothing usable there.
    """
    tree = walk(folder, leave_out=workspace.root)
    key = workspace.identity_key()
    pseudonymizer = Pseudonymizer(key)
    hashes = dict(FileIndex(workspace.identity / INDEX_FILE).update(tree, progress).hashes)
    hashes |= {item.names[0]: item.error.reason for item in tree.refused}
    ingest = settings.ingest
    if role == "pseudo_ct":
        ingest = ingest.model_copy(update={"derived": "keep"})
    if role in MASK_ROLES:
        ingest = ingest.model_copy(update={"burned_in_text": "keep", "deface": False})
    module = "pipeline.ingest.outside_volumes"
    return run_stage(
        workspace,
        Stage("ingest", module, partial(_read, tree, role, ingest, pseudonymizer)),
        RoleKey(role=role, ingest=ingest),
        records={},
        hashes={
            "input": fingerprint(hashes, pseudonymizer),
            "identity": sha256_bytes(b"identity\0" + key),
            "retries": str(retries(workspace.identity)),
            "forgotten": sha256_json(sorted(forgotten_subjects(workspace.identity))),
        },
        progress=progress,
    )


def case_of(name: str) -> str:
    """The case that a file belongs to, from its relative path.

    >>> [case_of(name) for name in ("1BA001/ct.nii.gz", "Case_07_sCT.mha", "sub-03/sub-03_pseudo-ct.nii", "ct.nii")]
    ['1ba001', 'case-07', 'sub-03', 'ct']
    """
    parts = name.lower().split("/")
    for suffix in sorted(IMAGE_FILE_SUFFIXES, key=len, reverse=True):
        parts[-1] = parts[-1].removesuffix(suffix)
    for part in reversed(parts):
        words = [word for word in re.split(r"[\W_]+", part) if word and word not in ROLE_WORDS]
        if words:
            return "-".join(words)
    return parts[-1]


def _read(
    tree: SourceTree, role: Role, settings: IngestSettings, pseudonymizer: Pseudonymizer, context: StageContext
) -> dict[str, JsonValue]:
    """Body of the stage."""
    identity = context.workspace.identity
    with CatalogBuilder(context.folder, pseudonymizer, settings, forgotten_subjects(identity)) as builder:
        for refusal in tree.refused:
            builder.add(refusal)
        for found in _found(Reading(tree, settings, context.progress), role):
            builder.add(found)
        catalog = builder.finish()
    name = context.folder.name.removesuffix(PARTIAL_SUFFIX)
    crosswalk = identity / f"crosswalk-{name}.json"
    write_json(crosswalk, builder.crosswalk)
    crosswalk.chmod(0o600)
    if not builder.accepted:
        catalog.quarantine.write_parquet(context.workspace.root / "logs" / f"quarantine-{name}.parquet")
        raise _nothing_usable(role, builder.refusals)
    return _facts(catalog, role)


def _found(reading: Reading, role: Role) -> Iterator[Found]:
    files = reading.tree.files
    images = [file for file in files if file.suffix in IMAGE_FILE_SUFFIXES]
    dicom = [] if role in MASK_ROLES else [file for file in files if may_be_dicom(file) and looks_dicom(file)]
    yield Ignored(len(files) - len(images) - len(dicom))
    yield from refused_pairs(files)
    modality = _MODALITIES.get(role, "MR")
    cases = [NiftiCase(file, modality, case_of(file.name)) for file in images]
    for case, found in read_cases(reading, cases):
        if isinstance(found, FoundVolume):
            volume = replace(found, subject_word=f"case {case.case}", subject_source="case")
            yield replace(volume, scan=replace(volume.scan, modality=None)) if role in MASK_ROLES else volume
        else:
            yield found
    yield from _series(reading, dicom, modality)


def _series(reading: Reading, files: Sequence[SourceFile], modality: str) -> Iterator[Found]:
    """Volumes of DICOM series of the modality, each of its patient or else of its frame of reference."""
    names = {file.path: file.name for file in files}
    for outcome in DicomReading(reading, files).outcomes() if files else ():
        own = tuple(names[path] for path in outcome.task)
        scan = outcome.result
        refusal = outcome.refusal or unusable(scan, reading.settings.min_slices)
        if refusal is None and scan is not None and scan.modality != modality:
            found = f"a series of modality {scan.modality}"
            refusal = QuarantineError("OTHER_MODALITY", found, f"This folder is read as {modality}; move it.")
        if refusal is not None or scan is None:
            yield Refusal(own, refusal or QuarantineError("UNREADABLE", "no result", "Copy it again."))
        else:
            yield _volume(scan, own)


@dataclass(frozen=True)
class _Subject:
    word: str
    source: str


def _volume(scan: Scan, names: tuple[str, ...]) -> FoundVolume:
    facts = scan.facts
    if facts.patient_id and names_a_patient(facts.patient_id):
        subject = _Subject(facts.patient_id, "patient_id")
    else:
        subject = _Subject(facts.study_uid or names[0], "study" if facts.study_uid else "file")
    word = f"dicom\0{facts.series_uid or names[0]}\0{facts.volume_label or ''}\0{names[0]}"
    return FoundVolume(scan, "dicom", word, subject.word, subject.source, names)


def _facts(catalog: Catalog, role: Role) -> dict[str, JsonValue]:
    modalities = Counter(catalog.series["modality"].fill_null("mask").to_list())
    reasons = Counter(catalog.quarantine["reason"].to_list())
    return {
        "layout": "volumes of one role",
        "layout_reason": f"given as {_TITLES[role]}",
        "role": role,
        "series": catalog.series.height,
        "subjects": catalog.series["subject_id"].n_unique(),
        "lesions": 0,
        "subject_source": sorted(catalog.series["subject_source"].unique().to_list()),
        "quarantined": catalog.quarantine.height,
        "quarantine_reasons": dict(sorted(reasons.items())),
        "modalities": dict(sorted(modalities.items())),
    }


def _nothing_usable(role: Role, reasons: dict[str, int]) -> InputError:
    rows = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    return InputError(
        f"The {_TITLES[role]} folder must hold at least one usable volume.",
        found=f"everything was set aside: {rows}" if rows else "no image file and no DICOM series",
        allowed="NIfTI, MetaImage or NRRD files, or DICOM series (masks and label maps: image files only)",
        change="See `scanloom quarantine list`; repair or convert the files. Pictures have no geometry and no HU.",
    )
