"""BIDS: real scans as a raw dataset, everything made from them below ``derivatives/scanloom/`` with provenance.

Gorgolewski et al., Sci Data 3:160044, 2016; BIDS 1.10, Imaging data derivatives. Lesions are ``_dseg`` label maps with
a ``dseg.tsv``; pseudo-CT are ``_desc-synthetic_ct`` with a JSON that says so, from which MR and by which weights.
``participants.tsv`` holds the split of each subject. CT lies in ``ct/``, which BIDS has not yet named (BEP024).
"""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.export.scan_cases import ScanCase, plain
from pipeline.export.segmentation_sets import case_row, write_case_table
from pipeline.files import write_json, write_text
from pipeline.records import ProgressCallback
from pipeline.scan_io import write_nifti

DERIVATIVES = "derivatives/scanloom"
_SUFFIXES = {"T1": "T1w", "T2": "T2w", "FLAIR": "FLAIR", "PD": "PDw", "T2*": "T2starw"}
_UNKNOWN_MR = "T1w"
_VERSION = "1.10.0"


def write_bids(folder: Path, cases: Sequence[ScanCase], progress: ProgressCallback) -> dict[str, Any]:
    """Write a BIDS dataset into ``folder``; returns facts for the card.

    Raises:
        InputError: there is no scan with geometry.
    """
    if not cases:
        raise InputError(
            "A BIDS dataset holds scans with geometry.",
            found="none",
            allowed="volumes from DICOM or NIfTI",
            change="Ingest scans, or export images by class: image_folder, medmnist_npz or dicom_sc.",
        )
    classes = sorted({lesion.lesion_class for case in cases for lesion in case.lesions})
    _write_descriptions(folder, cases, classes)
    sources = {case.series_id: _image_name(case) for case in cases if case.origin == "real"}
    rows, shared = [], 0
    for done, case in enumerate(cases, start=1):
        voxels, affine = case.volume()
        file = _image_name(case) if case.origin == "real" else _synthetic_name(case)
        write_nifti(folder / f"{file}.nii.gz", voxels, affine, voxels.dtype)
        write_json(folder / f"{file}.json", _sidecar(case, sources))
        if case.lesions:
            labels, overlap = case.label_map(classes)
            shared += overlap
            mask = f"{DERIVATIVES}/{_stem(case)}_dseg"
            write_nifti(folder / f"{mask}.nii.gz", labels, affine, labels.dtype)
        rows.append(case_row(f"{file}.nii.gz", case))
        progress("exported scans", done, len(cases))
    write_case_table(folder / DERIVATIVES / "metadata.csv", rows)
    return {"classes": classes, "voxels_in_several_lesions": shared, "written": len(cases)}


def _stem(case: ScanCase) -> str:
    """Path up to the suffix; the series is the acquisition."""
    subject = plain(case.subject_id.removeprefix("sub-"))
    data_type = "ct" if case.modality == "CT" else "anat"
    return f"sub-{subject}/{data_type}/sub-{subject}_acq-{plain(case.series_id)}"


def _image_name(case: ScanCase) -> str:
    suffix = "ct" if case.modality == "CT" else _SUFFIXES.get(case.sequence or "", _UNKNOWN_MR)
    return f"{_stem(case)}_{suffix}"


def _synthetic_name(case: ScanCase) -> str:
    return f"{DERIVATIVES}/{_stem(case)}_desc-synthetic_ct"


def _sidecar(case: ScanCase, sources: dict[str, str]) -> dict[str, Any]:
    if case.origin == "real":
        unknown = case.modality == "MR" and _SUFFIXES.get(case.sequence or "") is None
        note = {"Comment": "The MR sequence is not known; the suffix T1w is a placeholder."} if unknown else {}
        return {"Modality": case.modality, **note}
    source = sources.get(case.series_id)
    return {
        "Modality": "CT",
        "SyntheticData": True,
        "Description": "Pseudo-CT computed from MR. Research use only.",
        "Units": "HU",
        "Sources": [] if source is None else [f"bids::{source}.nii.gz"],
        "ModelSHA256": case.model_sha256,
        "Condition": case.condition,
    }


def _write_descriptions(folder: Path, cases: Sequence[ScanCase], classes: Sequence[str]) -> None:
    """What says what the dataset is: descriptions, participants with their split, names of labels."""
    made_by = [{"Name": "scanloom", "Version": version("scanloom")}]
    common = {"BIDSVersion": _VERSION, "License": "not stated", "GeneratedBy": made_by}
    write_json(folder / "dataset_description.json", {"Name": "De-identified scans", "DatasetType": "raw", **common})
    derived = {"Name": "Lesions and synthetic images", "DatasetType": "derivative", **common}
    write_json(folder / DERIVATIVES / "dataset_description.json", derived)
    write_text(folder / "README", "De-identified scans. Research use only; see data_card.md.\n")
    splits = sorted({(f"sub-{plain(case.subject_id.removeprefix('sub-'))}", case.split) for case in cases})
    write_text(
        folder / "participants.tsv",
        "participant_id\tsplit\n" + "".join(f"{subject}\t{split}\n" for subject, split in splits),
    )
    levels = {"train": "training", "validation": "validation", "test": "held out"}
    write_json(
        folder / "participants.json", {"split": {"Description": "Part that the subject is in.", "Levels": levels}}
    )
    if classes:
        lines = "".join(f"{index}\t{name}\n" for index, name in enumerate(classes, start=1))
        write_text(folder / DERIVATIVES / "dseg.tsv", "index\tname\n" + lines)
