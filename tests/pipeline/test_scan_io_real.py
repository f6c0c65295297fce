import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.errors import QuarantineError
from pipeline.geometry import to_canonical
from pipeline.scan_io import find_dicom_series, read_dicom_series

DATA = Path(os.environ.get("SCANLOOM_TEST_DATA", "/nonexistent")) / "dicom_reference"
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA.is_dir(), reason="SCANLOOM_TEST_DATA names no folder with dicom_reference"),
]

ANATOMICAL = sorted(path for path in DATA.glob("dicom2nifti/**/anatomical/*_ground_truth.nii.gz"))


def compare(paths: list[Path], reference: Path) -> None:
    """Compare through the affine: canonical voxels equal to float32, canonical affines to 1e-4 (mm, or mm a voxel)."""
    scan = read_dicom_series(paths)
    image = nib.load(reference)
    voxels, affine, _ = to_canonical(scan.voxels, scan.geometry.affine)
    expected, expected_affine, _ = to_canonical(np.asarray(image.dataobj), image.affine)
    np.testing.assert_allclose(affine, expected_affine, atol=1e-4)
    np.testing.assert_allclose(voxels, expected, rtol=1e-6)


def test_a_mosaic_is_refused_in_every_transfer_syntax() -> None:
    paths = sorted((DATA / "dcm_qa_ts" / "In").glob("*.dcm"))
    assert len(paths) == 9
    for path in paths:
        with pytest.raises(QuarantineError) as caught:
            read_dicom_series([path])
        assert caught.value.reason == "UNSUPPORTED_MOSAIC"


@pytest.mark.parametrize("reference", ANATOMICAL, ids=lambda path: path.relative_to(DATA).as_posix())
def test_anatomical_series_equal_the_reference_converter(reference: Path) -> None:
    folder = reference.with_name(reference.name.removesuffix("_ground_truth.nii.gz"))
    (paths,) = find_dicom_series([folder]).values()
    compare(paths, reference)


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("gantrytilting/001", "GANTRY_TILT"),
        ("notavolume/001", "DUPLICATE_POSITION"),
        ("sliceincrement/001", "MISSING_SLICE"),
    ],
)
def test_series_that_are_no_volume_are_refused(folder: str, reason: str) -> None:
    (path,) = DATA.glob(f"dicom2nifti/**/{folder}")
    (paths,) = find_dicom_series([path]).values()
    with pytest.raises(QuarantineError) as caught:
        read_dicom_series(paths)
    assert caught.value.reason == reason
