"""Whole scans with label maps, for training segmentation networks: nnU-Net raw and Medical Segmentation Decathlon.

Both hold one image and one label map a case. A scan without a drawn lesion may have lesions that nobody drew: it is
left out. Test scans are real ones alone. ``metadata.csv`` has one row a case.

nnU-Net raw v2 (Isensee et al., Nat Methods 18:203, 2021): ``imagesTr/<case>_0000.nii.gz``, ``labelsTr/<case>.nii.gz``,
``imagesTs``, ``labelsTs``, ``dataset.json``; ``splits_final.json`` holds training and validation for
``nnUNet_preprocessed``. Decathlon (Antonelli et al., Nat Commun 13:4128, 2022): ``dataset.json`` lists ``training``,
``validation`` and ``test``, as MONAI reads them; the latter has labels of its own in ``labelsTs``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.errors import InputError
from pipeline.export.csv_cells import inert_cell
from pipeline.export.scan_cases import ScanCase
from pipeline.files import write_json, write_text
from pipeline.records import ProgressCallback
from pipeline.scan_io import write_nifti

_ENDING = ".nii.gz"
_MOST_CLASSES = 254
_FOLDERS = {"train": ("imagesTr", "labelsTr"), "validation": ("imagesTr", "labelsTr"), "test": ("imagesTs", "labelsTs")}


def write_nnunet(folder: Path, cases: Sequence[ScanCase], progress: ProgressCallback) -> dict[str, Any]:
    """Write a raw nnU-Net set into ``folder``; returns facts for the card.

    Raises:
        InputError: no scan has masks, or scans are of several modalities.
    """
    drawn, classes = _with_masks(cases, "nnunet")
    facts = _write_cases(folder, drawn, classes, "_0000", progress)
    trained = [case.name for case in drawn if case.split != "test"]
    write_json(
        folder / "dataset.json",
        {
            "channel_names": {"0": _contrast(drawn)},
            "labels": {"background": 0} | {name: index for index, name in enumerate(classes, start=1)},
            "numTraining": len(trained),
            "file_ending": _ENDING,
            "name": "scanloom",
            "description": "Research use only. De-identified scans; see data_card.json.",
        },
    )
    split: dict[str, list[str]] = {"train": [], "val": []}
    for case in drawn:
        if case.split != "test":
            split["train" if case.split == "train" else "val"].append(case.name)
    write_json(folder / "splits_final.json", [split])
    return facts


def write_decathlon(folder: Path, cases: Sequence[ScanCase], progress: ProgressCallback) -> dict[str, Any]:
    """Write a Decathlon set into ``folder``; returns facts for the card.

    Raises:
        InputError: no scan has masks, or scans are of several modalities.
    """
    drawn, classes = _with_masks(cases, "decathlon")
    facts = _write_cases(folder, drawn, classes, "", progress)
    lists: dict[str, list[dict[str, str]]] = {"training": [], "validation": [], "test": []}
    names = {"train": "training", "validation": "validation", "test": "test"}
    for case in drawn:
        images, labels = _FOLDERS[case.split]
        entry = {"image": f"./{images}/{case.name}{_ENDING}", "label": f"./{labels}/{case.name}{_ENDING}"}
        lists[names[case.split]].append(entry)
    write_json(
        folder / "dataset.json",
        {
            "name": "scanloom",
            "description": "Research use only. De-identified scans; see data_card.json.",
            "tensorImageSize": "3D",
            "modality": {"0": _contrast(drawn)},
            "labels": {"0": "background"} | {str(index): name for index, name in enumerate(classes, start=1)},
            "numTraining": len(lists["training"]),
            "numValidation": len(lists["validation"]),
            "numTest": len(lists["test"]),
            **lists,
        },
    )
    return facts


def _with_masks(cases: Sequence[ScanCase], form: str) -> tuple[list[ScanCase], list[str]]:
    """Cases that have lesions, and their classes."""
    drawn = [case for case in cases if case.lesions and (case.origin == "real" or case.split == "train")]
    classes = sorted({lesion.lesion_class for case in drawn for lesion in case.lesions})
    if not drawn or len(classes) > _MOST_CLASSES:
        raise InputError(
            f"The format {form} holds scans with segmentation masks.",
            found=f"{len(drawn)} of {len(cases)} scans with masks, of {len(classes)} classes",
            allowed=f"scans with lesion masks, at most {_MOST_CLASSES} classes",
            change="Ingest scans with masks, or export images by class: image_folder, medmnist_npz or dicom_sc.",
        )
    return drawn, classes


def _write_cases(
    folder: Path, cases: Sequence[ScanCase], classes: Sequence[str], channel: str, progress: ProgressCallback
) -> dict[str, Any]:
    rows, shared = [], 0
    for done, case in enumerate(cases, start=1):
        images, labels = _FOLDERS[case.split]
        voxels, affine = case.volume()
        found, overlap = case.label_map(classes)
        shared += overlap
        image = f"{images}/{case.name}{channel}{_ENDING}"
        write_nifti(folder / image, voxels, affine, voxels.dtype)
        write_nifti(folder / labels / f"{case.name}{_ENDING}", found, affine, found.dtype)
        rows.append(case_row(image, case))
        progress("exported scans", done, len(cases))
    write_case_table(folder / "metadata.csv", rows)
    return {"classes": list(classes), "voxels_in_several_lesions": shared, "written": len(cases)}


def case_row(file: str, case: ScanCase) -> dict[str, str | None]:
    """One row of ``metadata.csv``."""
    return {
        "file": file,
        "origin": case.origin,
        "split": case.split,
        "subject_id": case.subject_id,
        "series_id": case.series_id,
        "modality": case.modality,
        "lesion_classes": "; ".join(sorted({lesion.lesion_class for lesion in case.lesions})) or None,
        "model_sha256": case.model_sha256,
        "condition": case.condition,
    }


def write_case_table(path: Path, rows: Sequence[Mapping[str, str | None]]) -> None:
    """Write ``metadata.csv``, no cell of which a spreadsheet runs."""
    table = pl.DataFrame(list(rows), infer_schema_length=None)
    inert = table.with_columns(pl.col(pl.String).map_elements(inert_cell, return_dtype=pl.String))
    write_text(path, inert.write_csv())


def _contrast(cases: Sequence[ScanCase]) -> str:
    """Name of the one channel: CT, the MR sequence where all have the same, or MRI.

    Raises:
        InputError: scans of several modalities.
    """
    modalities = {case.modality for case in cases}
    if len(modalities) != 1:
        raise InputError(
            "A segmentation set holds scans of one modality.",
            found=", ".join(sorted(modalities)),
            allowed="MR or CT",
            change="Set prepare.lesions.modality.",
        )
    if modalities == {"CT"}:
        return "CT"
    sequences = {case.sequence for case in cases}
    sequence = next(iter(sequences))
    return sequence if len(sequences) == 1 and sequence is not None else "MRI"
