"""dcm2niix, run here, as an independent reader of what we write: 48 axis orientations × 8 patient positions."""

import itertools
import shutil
import subprocess

import nibabel as nib
import numpy as np
import pytest

from pipeline.geometry import to_canonical
from pipeline.scan_io import Acquisition, SeriesIdentity, read_dicom_series, uid_from, write_dicom_series
from pipeline.scan_io.dicom_write import PATIENT_POSITIONS

pytestmark = pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="dcm2niix is not installed")

SHAPE = (6, 5, 4)
SPACING = (1.5, 0.8, 3.0)


def orientations():
    """Affines of all signed permutations of the axes, every second one turned off them."""
    for number, (axes, signs) in enumerate(
        itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3))
    ):
        affine = np.eye(4)
        affine[:3, :3] = np.eye(3)[:, axes] * signs
        if number % 2:
            turn = np.radians(9.0)
            tip = np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]])
            affine[:3, :3] = tip @ tip[[1, 2, 0]][:, [1, 2, 0]] @ affine[:3, :3]
        affine[:3, :3] *= SPACING
        affine[:3, 3] = [12.5, -30.25, 7.125]
        yield affine


CASES = list(enumerate(itertools.product(list(orientations()), PATIENT_POSITIONS)))


def compare(tmp_path, cases):
    voxels = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16)
    for number, (affine, position) in cases:
        uid = uid_from("series", str(number))
        identity = SeriesIdentity(
            "P", uid_from("study"), uid, uid_from("frame"), patient_position=position, series_number=number + 1
        )
        modality = ("MR", "CT")[number % 2]
        write_dicom_series(tmp_path / "in" / str(number), voxels + number, affine, modality, identity, Acquisition())
    out = tmp_path / "out"
    out.mkdir()
    command = ["dcm2niix", "-z", "n", "-b", "n", "-f", "%s", "-o", str(out), str(tmp_path / "in")]
    subprocess.run(command, check=True, capture_output=True)
    for number, (affine, _) in cases:
        scan = read_dicom_series(sorted((tmp_path / "in" / str(number)).iterdir()))
        np.testing.assert_allclose(
            *(to_canonical(*pair)[1] for pair in ((scan.voxels, scan.geometry.affine), (voxels, affine))), atol=1e-6
        )
        image = nib.load(out / f"{number + 1}.nii")
        theirs, their_affine, _ = to_canonical(np.asarray(image.dataobj), image.affine)
        ours, our_affine, _ = to_canonical(scan.voxels, scan.geometry.affine)
        np.testing.assert_allclose(our_affine, their_affine, atol=1e-4)
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(ours, to_canonical(voxels + number, affine)[0])


def test_a_sample_of_orientations_and_positions_agrees(tmp_path):
    compare(tmp_path, CASES[:: len(CASES) // 16 + 1])


@pytest.mark.slow
def test_all_orientations_and_positions_agree(tmp_path):
    assert len(CASES) == 384
    compare(tmp_path, CASES)
