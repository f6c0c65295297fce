"""Public series beside the NIfTI that reference converters made of them (dcm_qa_* of dcm2niix, dicom2nifti).

Compared through the affine, never by the order of the array. Two references need a word. The one of
failing/sliceincrement/002 stretches three slices over the place of four: we refuse the series. Philips series of this
set carry no RescaleSlope, so that stored values are all there is, and references agree; where a series carries one,
dcm2niix without ``-p n`` writes other numbers (see `pipeline.scan_io.dicom.modality`).
"""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.errors import QuarantineError
from pipeline.geometry import to_canonical
from pipeline.scan_io import read_dicom_series, read_dicom_volumes
from pipeline.scan_io.dicom.series import group_files

DATA = Path(os.environ.get("SCANLOOM_TEST_DATA", "/nonexistent")) / "dicom_reference"
SET = DATA / "dicom2nifti"
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA.is_dir(), reason="SCANLOOM_TEST_DATA names no folder with dicom_reference"),
]
ENDING = "_ground_truth.nii.gz"
REFUSED = {"generic/rgb/001": "UNSUPPORTED_COLOR", "failing/sliceincrement/002": "MISSING_SLICE"}


def files_of(folder):
    return sorted(path for path in folder.iterdir() if path.is_file() and "README" not in path.name)


def series_with_reference():
    for reference in sorted(SET.glob(f"**/*{ENDING}")):
        folder = reference.with_name(reference.name.removesuffix(ENDING))
        name = folder.relative_to(SET).as_posix()
        if name not in REFUSED:
            yield pytest.param(files_of(folder), reference, id=name)
    siemens, ge = DATA / "dcm_qa_nih/In/20180918Si", DATA / "dcm_qa_nih/In/20180918GE"
    for folder, name in [
        (siemens / "mr_0003", "EPI_PE=AP_3"),
        (siemens / "mr_0004", "EPI_PE=PA_4"),
        (siemens / "mr_0005", "EPI_PE=RL_5"),
        (siemens / "mr_0006", "EPI_PE=LR_6"),
        (ge / "mr_0004", "DCM2NIIX_regression_test_4"),
        (ge / "mr_0006", "DCM2NIIX_regression_test_6"),
    ]:
        yield pytest.param(files_of(folder) if folder.is_dir() else [], DATA / f"dcm_qa_nih/Ref/{name}.nii", id=name)
    for name in "123456789":
        yield pytest.param(
            [DATA / f"dcm_qa_ts/In/{name}.dcm"], DATA / f"dcm_qa_ts/Ref/{name}.nii", id=f"dcm_qa_ts/{name}"
        )
    for name, number in (("12bitUnsigned", 2), ("12bitUnsigned_0x0F0F", 3), ("12bitSigned_0x0F0F", 4)):
        path, reference = DATA / f"dcm_qa_12bit/In/{name}.dcm", DATA / f"dcm_qa_12bit/Ref/{number}.nii"
        yield pytest.param([path], reference, id=f"dcm_qa_12bit/{name}")


@pytest.mark.parametrize(("paths", "reference"), list(series_with_reference()) if DATA.is_dir() else [])
def test_every_volume_equals_the_reference_through_the_affine(paths, reference):
    image = nib.load(reference)
    data = np.asarray(image.dataobj)
    data = data[..., None] if data.ndim == 3 else data
    scans = read_dicom_volumes(paths)
    assert len(scans) == data.shape[3]
    for time, scan in enumerate(scans):
        voxels, affine, _ = to_canonical(scan.voxels, scan.geometry.affine)
        expected, expected_affine, _ = to_canonical(data[..., time], image.affine)
        np.testing.assert_allclose(affine, expected_affine, atol=1e-4)
        directions = [matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0) for matrix in (affine, expected_affine)]
        np.testing.assert_allclose(*directions, atol=1e-5)
        np.testing.assert_allclose(voxels, expected, rtol=1e-6)


def test_the_set_of_references_is_whole():
    assert len(list(series_with_reference())) == 23 + 6 + 9 + 3


@pytest.mark.parametrize(("name", "reason"), REFUSED.items())
def test_series_with_a_reference_that_are_refused(name, reason):
    with pytest.raises(QuarantineError) as caught:
        read_dicom_volumes(files_of(SET / name))
    assert caught.value.reason == reason


def test_one_image_in_nine_encodings_is_one_volume():
    scan = read_dicom_series(files_of(DATA / "dcm_qa_ts/In"))
    for path in files_of(DATA / "dcm_qa_ts/In"):
        single = read_dicom_series([path])
        np.testing.assert_array_equal(single.voxels, scan.voxels)
        np.testing.assert_array_equal(single.geometry.affine, scan.geometry.affine)


def test_one_uid_for_images_of_different_bits_is_refused():
    with pytest.raises(QuarantineError, match="DUPLICATE_POSITION: 105 images at 35 positions"):
        read_dicom_series(files_of(DATA / "dcm_qa_12bit/In"))


def test_the_tilted_head_is_corrected():
    scan = read_dicom_series(files_of(SET / "failing/gantrytilting/001"))
    assert scan.facts.flags == ("TILT_CORRECTED",)
    assert scan.facts.tilt_degrees == pytest.approx(14.0, abs=1e-6)
    assert scan.voxels.shape == (512, 521, 4)  # as dcm2niix enlarges it
    np.testing.assert_allclose(scan.geometry.direction.T @ scan.geometry.direction, np.eye(3), atol=1e-6)


def test_a_missing_slice_is_placed():
    with pytest.raises(QuarantineError, match=r"10\.000 mm between slices 3 and 4 of 4, among gaps of 5\.000 mm"):
        read_dicom_series(files_of(SET / "failing/sliceincrement/001"))


def test_four_looks_at_one_slice_are_no_volume():
    (refused,) = group_files(files_of(SET / "failing/notavolume/001")).refused
    assert (refused.error.reason, len(refused.paths)) == ("NOT_A_VOLUME", 4)


def test_two_planes_in_one_series_are_two_stacks():
    scans = read_dicom_volumes(files_of(SET / "failing/sliceorientation/001"))
    assert [(scan.facts.volume_label, scan.voxels.shape) for scan in scans] == [
        ("stack 1", (288, 288, 2)),
        ("stack 2", (288, 288, 2)),
    ]


def test_two_slices_are_read_and_left_to_the_setting_on_slices():
    assert read_dicom_series(files_of(SET / "failing/slicecount/001")).voxels.shape == (256, 256, 2)
