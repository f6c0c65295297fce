"""Gantry tilt: a marker keeps its place in the patient, nothing is cut off, and dcm2niix agrees."""

import shutil
import subprocess

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import QuarantineError
from pipeline.scan_io import read_dicom_series
from pipeline.scan_io.dicom.header import FrameHeader
from pipeline.scan_io.dicom.stacking import stack
from pipeline.scan_io.dicom.tilt import Shear
from pipeline.scan_io.dicom.volume_plan import DicomPolicy

SHAPE = (24, 30, 9)
SPACING = (0.8, 0.9, 3.0)


def tilted(files, degrees, told=None, voxels=None, modality="CT"):
    """A series whose slices are turned about x and stacked along z; and the place of each voxel, RAS+ mm."""
    turn = np.radians(degrees)
    column = np.array([0, np.cos(turn), -np.sin(turn)])
    row = np.array([1.0, 0, 0])
    step = np.array([0, 0, SPACING[2]])
    origin = np.array([-9.0, -20.0, 15.0])
    chosen = np.full(SHAPE, -1000, np.int16) if voxels is None else voxels
    position = lambda k: [float(value) for value in origin + k * step]  # noqa: E731
    tilt = {} if told is None else {"GantryDetectorTilt": told}
    paths = files.write(
        "tilted",
        chosen,
        modality,
        affine=np.diag([-1.0, -1.0, 1.0, 1.0]),
        ImageOrientationPatient=[*row, *column],
        PixelSpacing=[SPACING[1], SPACING[0]],
        ImagePositionPatient=position,
        **tilt,
    )
    lps = np.column_stack([row * SPACING[0], column * SPACING[1], step])
    return paths, lambda index: (origin + lps @ np.asarray(index, float)) * [-1, -1, 1]


def center_of_mass(scan, threshold=-900):
    weights = np.clip(scan.voxels.astype(float) + 1000, 0, None)
    weights[scan.voxels < threshold] = 0
    places = np.indices(scan.voxels.shape).reshape(3, -1)
    return scan.geometry.to_world((places * weights.ravel()).sum(1) / weights.sum())


@pytest.mark.parametrize("degrees", [15.0, -15.0, 4.0, 28.0])
@pytest.mark.parametrize("marker", [(5, 7, 2), (18, 22, 6), (12, 3, 8)])
def test_a_marker_stays_where_it_is_in_the_patient(files, degrees, marker):
    voxels = np.full(SHAPE, -1000, np.int16)
    i, j, k = marker
    voxels[i - 1 : i + 2, j - 1 : j + 2, k] = 1000
    paths, world = tilted(files, degrees, voxels=voxels)
    scan = read_dicom_series(paths)
    moved = scan.geometry.to_index(center_of_mass(scan)) - scan.geometry.to_index(world(marker))
    assert np.abs(moved).max() < 0.1
    assert scan.facts.flags == ("TILT_CORRECTED",)
    assert scan.facts.tilt_degrees == pytest.approx(abs(degrees), abs=1e-6)


def test_the_grid_is_perpendicular_and_cuts_nothing_off(files):
    voxels = np.random.default_rng(0).integers(-200, 1000, SHAPE).astype(np.int16)
    paths, world = tilted(files, 15.0, voxels=voxels)
    scan = read_dicom_series(paths)
    np.testing.assert_allclose(scan.geometry.direction.T @ scan.geometry.direction, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(scan.geometry.spacing_mm, (0.8, 0.9, 3.0 * np.cos(np.radians(15))), atol=1e-9)
    corners = np.array([world((i, j, k)) for i in (0, 23) for j in (0, 29) for k in (0, 8)])
    indices = scan.geometry.to_index(corners)
    assert (indices > -1e-6).all()
    assert (indices < np.array(scan.geometry.shape) - 1 + 1e-6).all()
    anatomy = voxels.astype(float).sum(axis=(0, 1)) + 1024 * 24 * 30
    kept = scan.voxels.astype(float).sum(axis=(0, 1)) + 1024 * scan.voxels.shape[0] * scan.voxels.shape[1]
    np.testing.assert_allclose(kept, anatomy, rtol=2e-3)  # linear interpolation keeps sums, but for rounding


def test_outside_is_air_and_padding_value(files):
    paths, _ = tilted(files, 15.0, voxels=np.full(SHAPE, 40, np.int16))
    scan = read_dicom_series(paths)
    assert set(np.unique(scan.voxels[:, :-1, 0])) <= {-1024, 40}
    assert (scan.voxels == -1024).any()


def test_correction_can_be_refused(files, refusal):
    paths, _ = tilted(files, 15.0)
    error = refusal(paths, DicomPolicy(gantry_tilt="refuse"))
    assert (error.reason, error.found) == ("GANTRY_TILT", "CT slices stacked 15.00 degrees off their normal")


@pytest.mark.parametrize(("measured", "told"), [(15.0, 10.0), (15.0, 0.0), (0.0, 12.0)])
def test_a_tilt_that_the_header_contradicts_is_refused_with_both_numbers(files, refusal, measured, told):
    paths, _ = tilted(files, measured, told)
    error = refusal(paths)
    assert error.reason == "GANTRY_TILT"
    assert f"{measured:.2f} degrees" in error.found
    assert f"{told:.2f} degrees" in error.found


@pytest.mark.parametrize("told", [15.3, -14.8])
def test_a_tilt_that_the_header_confirms_is_corrected_whatever_its_sign(files, told):
    paths, _ = tilted(files, 15.0, told)
    assert read_dicom_series(paths).facts.flags == ("TILT_CORRECTED",)


def test_sheared_mr_is_refused(files, refusal):
    paths, _ = tilted(files, 15.0, voxels=np.zeros(SHAPE, np.int16), modality="MR")
    assert refusal(paths).found == "MR slices stacked 15.00 degrees off their normal"


def test_rounded_positions_of_a_short_stack_are_no_tilt(files):
    rounding = (0, 0.01, 0.0, -0.01, 0.01, 0.0)
    paths = files.write("a", np.zeros(files.shape), "CT", ImagePositionPatient=lambda k: [1, 2 + rounding[k], 0.6 * k])
    assert read_dicom_series(paths).facts.flags == ()


def test_a_gap_in_a_tilted_stack_is_a_missing_slice(files, refusal):
    paths, _ = tilted(files, 15.0)
    error = refusal(paths[:4] + paths[5:])
    assert error.reason == "MISSING_SLICE"
    assert "between slices 4 and 5 of 8" in error.found


@given(st.floats(-3, 3), st.floats(-3, 3), st.integers(2, 12), st.integers(0, 11), st.integers(0, 6), st.integers(0, 4))
def test_a_point_lands_where_the_shear_says(i_shift, j_shift, slices, number, i, j):
    """Every sheared slice keeps the center of mass of a point, moved by exactly its share of the shear."""
    number = min(number, slices - 1)
    shear = Shear((i_shift, j_shift), 10.0, slices)
    pixels = np.zeros((5, 7), np.float32)
    pixels[j, i] = 1000
    moved = shear.moved(pixels, number, 0.0)
    assert moved.shape == (5 + shear.added[1], 7 + shear.added[0])
    rows, columns = np.indices(moved.shape)
    assert moved.sum() == pytest.approx(1000, rel=1e-4)
    assert (columns * moved).sum() / 1000 + shear.first[0] == pytest.approx(i + i_shift * number, abs=2e-3)
    assert (rows * moved).sum() / 1000 + shear.first[1] == pytest.approx(j + j_shift * number, abs=2e-3)


def test_slices_are_ordered_by_position_and_gaps_of_short_stacks_found():
    frames = [FrameHeader(0, -1, (0, 0, 2.0 * k), (1, 0, 0, 0, 1, 0), (1, 1)) for k in (3, 0, 2, 1)]
    assert stack(frames, "CT", None, None, True).slices == ((1,), (3,), (2,), (0,))
    with pytest.raises(QuarantineError, match="MISSING_SLICE"):
        stack(frames[:2] + frames[3:], "CT", None, None, True)


@pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="dcm2niix is not installed")
@pytest.mark.parametrize("degrees", [15.0, 8.0])
def test_dcm2niix_corrects_to_the_same_grid_and_values(files, tmp_path, degrees):
    """Positive tilts only: dcm2niix 1.0.20220720 puts negative ones slices away from where the header says."""
    voxels = np.random.default_rng(0).integers(-200, 1000, SHAPE).astype(np.int16)
    voxels[0, 0, 0] = -1024  # dcm2niix fills with the minimum
    paths, _ = tilted(files, degrees, voxels=voxels)
    out = tmp_path / "out"
    out.mkdir()
    command = ["dcm2niix", "-z", "n", "-b", "n", "-f", "x", "-o", str(out), str(paths[0].parent)]
    subprocess.run(command, check=True, capture_output=True)
    image = nib.load(out / "x_Tilt_1.nii")
    theirs = np.asarray(image.dataobj)
    scan = read_dicom_series(paths)
    to_ours = np.linalg.inv(scan.geometry.affine) @ image.affine
    assert theirs.shape == scan.voxels.shape
    np.testing.assert_allclose(to_ours[:3, :3], np.diag([1, -1, 1]), atol=1e-4)  # they store rows from below
    np.testing.assert_allclose(to_ours[:3, 3], [0, theirs.shape[1] - 1, 0], atol=1e-3)
    apart = (np.abs(theirs - scan.voxels[:, ::-1].astype(int)) > 1).any(axis=0).sum(axis=0)
    assert apart.max() <= 2, "only the two border rows of a slice, which we blend with air, may differ"
