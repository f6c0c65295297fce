import csv
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.files import folder_manifest
from pipeline.geometry import Geometry, to_canonical
from pipeline.phantom import (
    CohortTruth,
    PhantomGrid,
    PhantomSubject,
    cohort_plan,
    phantom_subject,
    write_cohort,
)
from pipeline.resampling import resample
from pipeline.scan_io import Scan, find_dicom_series, read_dicom_series, read_nifti

HEAD = PhantomGrid((44, 52, 20), (5.0, 5.0, 8.0), (9.0, 11.0))
PELVIS = PhantomGrid((64, 48, 14), (6.0, 6.0, 10.0), (12.0, 14.0))
PLAN = (
    PhantomSubject("sub-01", "HEAD", format="dicom"),
    PhantomSubject("sub-02", "HEAD", format="nifti"),
    PhantomSubject("sub-03", "PELVIS", format="dicom"),
    PhantomSubject("sub-04", "PELVIS", sequence="T2", format="nifti"),
    PhantomSubject("sub-05", "HEAD", has_ct=False, format="dicom"),
    PhantomSubject("sub-06", "HEAD", format="nifti"),
    PhantomSubject("sub-07", "HEAD", has_mr=False, format="dicom"),
    PhantomSubject("sub-08", "HEAD", format="nifti"),
)


def write(folder: Path, on_subject: Callable[[int, int], None] | None = None) -> CohortTruth:
    return write_cohort(folder, 11, PLAN, head_grid=HEAD, pelvis_grid=PELVIS, on_subject=on_subject)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> CohortTruth:
    return write(tmp_path_factory.mktemp("cohort"))


def scans(cohort: CohortTruth, item: PhantomSubject) -> dict[str, Scan]:
    if item.format == "dicom":
        series = find_dicom_series([cohort.root / "dicom" / item.subject])
        found = [read_dicom_series(paths) for paths in series.values()]
    else:
        found = [read_nifti(path) for path in sorted((cohort.root / item.subject).rglob("*.nii.gz"))]
    return {str(scan.modality): scan for scan in found}


def test_every_subject_holds_what_the_plan_says(cohort: CohortTruth) -> None:
    for item in PLAN:
        found = scans(cohort, item)
        assert set(found) == {name for name, has in (("MR", item.has_mr), ("CT", item.has_ct)) if has}
        for scan in found.values():
            assert scan.facts.body_part == item.body_part
            assert scan.facts.patient_position == "HFS"
        if item.has_mr:
            assert found["MR"].facts.sequence_name == item.sequence


def test_the_marker_is_on_the_left_in_every_format_and_orientation(cohort: CohortTruth) -> None:
    for item in PLAN:
        marker = cohort.markers_mm[item.subject]
        assert marker[0] < -40
        for modality, scan in scans(cohort, item).items():
            index = tuple(np.rint(scan.geometry.to_index(marker)).astype(int))
            assert scan.voxels[index] > (200 if modality == "MR" else -400), (item, modality)


def test_images_on_disk_equal_the_truth_in_memory_at_the_same_points(cohort: CohortTruth) -> None:
    for index, item in enumerate(PLAN):
        grid = HEAD if item.body_part == "HEAD" else PELVIS
        truth = phantom_subject(11, index, item.body_part, item.sequence, grid=grid)
        for modality, scan in scans(cohort, item).items():
            voxels, affine, _ = to_canonical(scan.voxels, scan.geometry.affine)
            if Geometry(voxels.shape, affine).matches(truth.geometry):
                np.testing.assert_array_equal(voxels, truth.mr if modality == "MR" else truth.ct_hu)
            else:
                hu = resample(voxels, affine, truth.geometry, fill=-1000)
                straight, mirrored = (np.corrcoef(v.ravel(), truth.ct_hu.ravel())[0, 1] for v in (hu, hu[::-1]))
                assert straight > max(0.95, mirrored + 0.01)


def test_nifti_volumes_are_stored_in_several_orientations(cohort: CohortTruth) -> None:
    directions = {
        scans(cohort, item)["MR"].geometry.direction.round().astype(int).tobytes()
        for item in PLAN
        if item.format == "nifti"
    }
    assert len(directions) == 4


def test_mr_and_ct_share_study_and_frame_but_not_series(cohort: CohortTruth) -> None:
    facts = {name: scan.facts for name, scan in scans(cohort, PLAN[0]).items()}
    assert facts["MR"].study_uid == facts["CT"].study_uid
    assert facts["MR"].frame_of_reference_uid == facts["CT"].frame_of_reference_uid
    assert facts["MR"].series_uid != facts["CT"].series_uid


def test_some_ct_lie_on_another_grid_than_the_mr(cohort: CohortTruth) -> None:
    same = {}
    for item in PLAN:
        found = scans(cohort, item)
        if len(found) == 2:
            same[item.subject] = found["MR"].geometry.matches(found["CT"].geometry)
    assert same == {"sub-01": True, "sub-02": True, "sub-03": False, "sub-04": False, "sub-06": True, "sub-08": False}


def test_masks_lie_on_the_mr_grid_and_hold_the_values_of_the_csv(cohort: CohortTruth) -> None:
    with (cohort.root / "lesions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["mask_path", "image_path", "mask_value", "lesion_class"]
    assert len(rows) == len(cohort.lesions)
    for path in {row["mask_path"] for row in rows}:
        own = [row for row in rows if row["mask_path"] == path]
        mask = read_nifti(cohort.root / path)
        image = cohort.root / own[0]["image_path"]
        scan = read_dicom_series(sorted(image.iterdir())) if image.is_dir() else read_nifti(image)
        assert scan.modality == "MR"
        assert mask.geometry.matches(scan.geometry)
        assert set(np.unique(mask.voxels)) - {0} == {int(row["mask_value"]) for row in own}
    for lesion in cohort.lesions:
        mask = read_nifti(cohort.root / lesion.mask_path)
        where = mask.geometry.to_world(np.argwhere(mask.voxels == lesion.mask_value))
        assert np.linalg.norm(where.mean(axis=0) - lesion.center_mm) < lesion.radius_mm


def test_nothing_but_the_documented_files_is_written(cohort: CohortTruth) -> None:
    tops = {path.name for path in cohort.root.iterdir()}
    nifti = {item.subject for item in PLAN if item.format == "nifti"}
    assert tops == {"dicom", "masks", "lesions.csv"} | nifti
    names = {path.relative_to(cohort.root).as_posix() for path in (cohort.root / "sub-02").rglob("*") if path.is_file()}
    assert names == {
        f"sub-02/{stem}{end}" for stem in ("anat/sub-02_T1w", "ct/sub-02_ct") for end in (".nii.gz", ".json")
    }


def test_equal_seeds_give_equal_bytes_and_progress_is_counted(cohort: CohortTruth, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    again = write(tmp_path / "again", lambda done, total: steps.append((done, total)))
    assert folder_manifest(again.root) == folder_manifest(cohort.root)
    assert steps == [(number, len(PLAN)) for number in range(1, len(PLAN) + 1)]


def test_the_default_plan_mixes_formats_parts_and_missing_modalities() -> None:
    plan = cohort_plan()
    assert len({item.subject for item in plan}) == 24
    assert sum(item.format == "dicom" for item in plan) == 12
    assert sum(item.body_part == "PELVIS" for item in plan) == 8
    assert sum(item.has_mr and item.has_ct for item in plan) == 20


def test_plans_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    for wrong in (
        PhantomSubject("a", "HEAD", has_mr=False, has_ct=False),
        PhantomSubject("a", "KNEE"),
        PhantomSubject("a", "HEAD", format="png"),
        PhantomSubject("a", "HEAD", sequence="T3"),
    ):
        with pytest.raises(InputError, match="cohort plan"):
            write_cohort(tmp_path, 0, [wrong])
    with pytest.raises(InputError, match="repeated name"):
        write_cohort(tmp_path, 0, [PhantomSubject("a", "HEAD"), PhantomSubject("a", "HEAD")])


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian dicom3tools) is not installed")
def test_the_validators_find_nothing_in_phantom_series(cohort: CohortTruth) -> None:
    for folder in sorted((cohort.root / "dicom" / "sub-01").iterdir()):
        first = sorted(folder.iterdir())[0]
        result = subprocess.run(["dciodvfy", "-new", str(first)], capture_output=True, text=True, check=False)
        report = (result.stdout + result.stderr).split()
        assert report in (["MRImage"], ["CTImage"])
    paths = sorted(str(path) for path in (cohort.root / "dicom" / "sub-01").rglob("*") if path.is_file())
    result = subprocess.run(["dcentvfy", *paths], capture_output=True, text=True, check=False)
    assert (result.stdout + result.stderr).strip() == ""
