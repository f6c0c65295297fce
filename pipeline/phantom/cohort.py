"""Write a cohort of phantom subjects to disk, as a hospital and a research archive would: DICOM series and BIDS NIfTI.

    dicom/sub-01/mr/…             one file a slice, some under names that tell nothing
    dicom/sub-01/ct/…
    sub-02/anat/sub-02_T1w.nii.gz and .json
    sub-02/ct/sub-02_ct.nii.gz and .json
    masks/sub-01_lesions.nii.gz   lesion masks on the grid of the MR, ids 1, 2, …
    lesions.csv                   mask_path, image_path, mask_value, lesion_class

MR and CT of a subject show the same anatomy in one frame of reference; every second subject has its CT on another grid.
"""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.files import write_json, write_text
from pipeline.geometry import Affine, Geometry, geometry_with_spacing, to_dicom_axial
from pipeline.phantom.contrast import SEQUENCES, add_ct_noise
from pipeline.phantom.subject import GRIDS, PhantomGrid, PhantomTruth, phantom_subject
from pipeline.resampling import resample
from pipeline.scan_io import (
    AIR_HU,
    Acquisition,
    SeriesIdentity,
    uid_from,
    write_dicom_series,
    write_nifti,
)

CSV_COLUMNS = ("mask_path", "image_path", "mask_value", "lesion_class")
"""Columns of lesions.csv."""

_GIVEN_NAMES = ("ADA", "BORIS", "CLEO", "DARIO", "EDITH", "FELIX", "GRETA", "HUGO", "IRIS", "JONAS")
_STORED_AXES = (((0, 1, 2), ()), ((0, 1, 2), (0,)), ((0, 1, 2), (0, 1)), ((1, 2, 0), (1,)))
"""How NIfTI volumes are stored, in turn (RAS, LAS, LPS, sagittal PSR): source axes and reversed target axes."""


@dataclass(frozen=True)
class PhantomSubject:
    """What a cohort holds of one subject.

    ``subject`` names it ("sub-01"), ``body_part`` is HEAD or PELVIS, ``sequence`` T1 or T2, ``format`` "dicom" or
    "nifti".
    """

    subject: str
    body_part: str
    sequence: str = "T1"
    has_mr: bool = True
    has_ct: bool = True
    format: str = "dicom"


@dataclass(frozen=True)
class LesionTruth:
    """One line of lesions.csv, with the lesion's center (RAS+ mm) and nominal radius; paths relative to the root."""

    subject: str
    mask_path: str
    image_path: str
    mask_value: int
    lesion_class: str
    center_mm: tuple[float, float, float]
    radius_mm: float


@dataclass(frozen=True)
class CohortTruth:
    """What a written cohort holds; the marker of every subject lies on its left, at ``markers_mm`` (RAS+)."""

    root: Path
    subjects: tuple[PhantomSubject, ...]
    lesions: tuple[LesionTruth, ...]
    markers_mm: dict[str, tuple[float, float, float]]


def cohort_plan(heads: int = 16, pelves: int = 8, sequences: Sequence[str] = ("T1",)) -> tuple[PhantomSubject, ...]:
    """Plan a mixed cohort: heads first; DICOM and NIfTI in turn; of twelve subjects one has no CT and one no MR."""
    return tuple(
        PhantomSubject(
            subject=f"sub-{index + 1:02d}",
            body_part="HEAD" if index < heads else "PELVIS",
            sequence=sequences[index % len(sequences)],
            has_mr=index % 12 != 11,
            has_ct=index % 12 != 6,
            format="dicom" if index % 2 == 0 else "nifti",
        )
        for index in range(heads + pelves)
    )


def write_cohort(
    folder: Path,
    seed: int,
    subjects: Sequence[PhantomSubject] | None = None,
    *,
    heads: int = 16,
    pelves: int = 8,
    head_grid: PhantomGrid = GRIDS["HEAD"],
    pelvis_grid: PhantomGrid = GRIDS["PELVIS"],
    on_subject: Callable[[int, int], None] | None = None,
) -> CohortTruth:
    """Write a cohort into ``folder``; equal arguments give equal bytes.

    Args:
        folder: created if missing; should be empty.
        seed: seed of all anatomy, lesions and noise.
        subjects: what to write; `cohort_plan` of ``heads`` and ``pelves`` when ``None``.
        heads: number of heads in the default plan.
        pelves: number of pelves in the default plan.
        head_grid: grid of heads.
        pelvis_grid: grid of pelves.
        on_subject: called with (subjects done, subjects in all) after each.

    Raises:
        InputError: for an unknown format, body part or sequence, a repeated name, or a subject without MR and CT.
    """
    plan = tuple(cohort_plan(heads, pelves) if subjects is None else subjects)
    _check_plan(plan)
    grids = {"HEAD": head_grid, "PELVIS": pelvis_grid}
    lesions: list[LesionTruth] = []
    markers = {}
    for index, item in enumerate(plan):
        truth = phantom_subject(seed, index, item.body_part, item.sequence, grid=grids[item.body_part])
        lesions += _write_subject(folder, seed, index, item, truth)
        markers[item.subject] = truth.anatomy.marker_mm
        if on_subject is not None:
            on_subject(index + 1, len(plan))
    _write_csv(folder / "lesions.csv", lesions)
    return CohortTruth(folder, plan, tuple(lesions), markers)


def _check_plan(plan: tuple[PhantomSubject, ...]) -> None:
    names = [item.subject for item in plan]
    wrong = [item for item in plan if item.format not in ("dicom", "nifti") or not (item.has_mr or item.has_ct)]
    wrong += [item for item in plan if item.body_part not in GRIDS or item.sequence not in SEQUENCES]
    if wrong or len(set(names)) != len(names):
        raise InputError(
            "A cohort plan must name each subject once, with a known format, body part, sequence and an image",
            found=str(wrong[0]) if wrong else "a repeated name",
            allowed=f"dicom or nifti; {', '.join(GRIDS)}; {', '.join(SEQUENCES)}; MR, CT or both",
            change="correct the plan",
        )


def _write_subject(root: Path, seed: int, index: int, item: PhantomSubject, truth: PhantomTruth) -> list[LesionTruth]:
    """Write the images and the mask of one subject; returns its lesions."""
    ct_geometry = _ct_geometry(truth.geometry, index)
    ct = _ct_on(ct_geometry, truth, np.random.default_rng([seed, index, 1]))
    if item.format == "dicom":
        image_path = _write_dicom(root, seed, index, item, truth, ct, ct_geometry)
    else:
        image_path = _write_bids(root, index, item, truth, ct, ct_geometry)
    if not item.has_mr:
        return []
    mask_path = f"masks/{item.subject}_lesions.nii.gz"
    mask, affine = _as_stored(truth.lesion_mask, truth.geometry, item, index)
    write_nifti(root / mask_path, mask, affine, np.int16)
    return [
        LesionTruth(
            item.subject,
            mask_path,
            image_path,
            lesion.value,
            lesion.lesion_class.value,
            lesion.center_mm,
            lesion.radius_mm,
        )
        for lesion in truth.lesions
    ]


def _ct_geometry(geometry: Geometry, index: int) -> Geometry:
    """The grid of the MR, or for every second pair of subjects one with smaller voxels and another origin."""
    if index % 4 < 2:
        return geometry
    i, j, k = geometry.spacing_mm
    finer = geometry_with_spacing(geometry, (0.9 * i, 0.9 * j, 0.75 * k))
    affine = finer.affine.copy()
    affine[:3, 3] += (3.0, -4.0, 2.5)
    return Geometry(finer.shape, affine)


def _ct_on(target: Geometry, truth: PhantomTruth, rng: np.random.Generator) -> NDArray[np.int16]:
    if target.matches(truth.geometry):
        return truth.ct_hu
    hu = resample(truth.ct_noise_free_hu, truth.geometry.affine, target, order=1, fill=AIR_HU)
    return add_ct_noise(hu, rng)


def _as_stored(
    voxels: NDArray[Any], geometry: Geometry, item: PhantomSubject, index: int
) -> tuple[NDArray[Any], Affine]:
    """Voxels and affine in the axis order in which the subject's MR is stored."""
    if item.format == "dicom":
        stored, affine, _ = to_dicom_axial(voxels, geometry.affine)
        return stored, affine
    axes, flips = _STORED_AXES[(index // 2) % len(_STORED_AXES)]
    stored = np.ascontiguousarray(np.flip(voxels.transpose(axes), flips))
    affine = np.zeros((4, 4))
    affine[:, 3] = geometry.affine[:, 3]
    for new, old in enumerate(axes):
        column = geometry.affine[:, old]
        affine[:, new] = -column if new in flips else column
        affine[:, 3] += column * (geometry.shape[old] - 1) if new in flips else 0.0
    return stored, affine


def _write_bids(
    root: Path, index: int, item: PhantomSubject, truth: PhantomTruth, ct: NDArray[np.int16], ct_geometry: Geometry
) -> str:
    """Write NIfTI files with sidecars; returns the path of the MR (or of the CT), relative to the root."""
    repetition, echo = SEQUENCES[item.sequence]
    facts: dict[str, Any] = {"BodyPartExamined": item.body_part, "PatientPosition": "HFS", "Manufacturer": "scanloom"}
    image_path = f"{item.subject}/ct/{item.subject}_ct.nii.gz"
    if item.has_ct:
        voxels, affine = _as_stored(ct, ct_geometry, item, index)
        write_nifti(root / image_path, voxels, affine, np.int16)
        sidecar = facts | {"Modality": "CT", "SeriesDescription": "phantom CT", "KVP": 120}
        write_json(root / image_path.replace(".nii.gz", ".json"), sidecar)
    if item.has_mr:
        image_path = f"{item.subject}/anat/{item.subject}_{item.sequence}w.nii.gz"
        voxels, affine = _as_stored(truth.mr, truth.geometry, item, index)
        write_nifti(root / image_path, voxels, affine, np.int16)
        sidecar = facts | {
            "Modality": "MR",
            "SeriesDescription": f"phantom {item.sequence}",
            "RepetitionTime": repetition / 1000,
            "EchoTime": echo / 1000,
        }
        write_json(root / image_path.replace(".nii.gz", ".json"), sidecar)
    return image_path


def _write_dicom(
    root: Path,
    seed: int,
    index: int,
    item: PhantomSubject,
    truth: PhantomTruth,
    ct: NDArray[np.int16],
    ct_geometry: Geometry,
) -> str:
    """Write DICOM series; returns the folder of the MR (or of the CT), relative to the root."""
    folder = f"dicom/{item.subject}"
    if item.has_ct:
        voxels, affine, _ = to_dicom_axial(ct, ct_geometry.affine)
        acquisition = Acquisition("phantom CT", item.body_part, "scanloom", "digital phantom", kvp=120.0)
        identity = _identity(seed, index, item, "CT")
        _rename(write_dicom_series(root / folder / "ct", voxels, affine, "CT", identity, acquisition), index)
    if not item.has_mr:
        return f"{folder}/ct"
    repetition, echo = SEQUENCES[item.sequence]
    voxels, affine, _ = to_dicom_axial(truth.mr, truth.geometry.affine)
    acquisition = Acquisition(
        f"phantom {item.sequence}",
        item.body_part,
        "scanloom",
        "digital phantom",
        repetition_time_ms=repetition,
        echo_time_ms=echo,
    )
    identity = _identity(seed, index, item, "MR")
    _rename(write_dicom_series(root / folder / "mr", voxels, affine, "MR", identity, acquisition), index)
    return f"{folder}/mr"


def _identity(seed: int, index: int, item: PhantomSubject, modality: str) -> SeriesIdentity:
    """An invented patient: one frame of reference, one study for MR and CT."""
    words = ("phantom", str(seed), str(index))
    return SeriesIdentity(
        patient_id=f"PHANTOM-{index + 1:03d}",
        patient_name=f"PHANTOM^{_GIVEN_NAMES[index % len(_GIVEN_NAMES)]}",
        patient_sex="M" if item.body_part == "PELVIS" else ("F", "M")[index // 2 % 2],
        patient_age=f"{25 + 7 * index % 60:03d}Y",
        patient_birth_date=f"{1990 - 7 * index % 60}0101",
        study_uid=uid_from(*words, "study"),
        series_uid=uid_from(*words, modality),
        frame_of_reference_uid=uid_from(*words, "frame of reference"),
        study_id=str(index + 1),
        study_date=f"2020{index % 12 + 1:02d}15",
        study_time="080000",
        series_number=1 if modality == "MR" else 2,
    )


def _rename(paths: Sequence[Path], index: int) -> None:
    """Give the files of every second DICOM subject names whose order and ending tell nothing."""
    if index % 4 == 0:
        return
    for number, path in enumerate(paths):
        path.rename(path.with_name(f"{uid_from(str(index), str(number))[-6:]}_IM{len(paths) - number}"))


def _write_csv(path: Path, lesions: Sequence[LesionTruth]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    writer.writerows((item.mask_path, item.image_path, item.mask_value, item.lesion_class) for item in lesions)
    write_text(path, text.getvalue())
