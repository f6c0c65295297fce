"""A phantom's pseudo-CT in all 48 voxel orders and 8 patient positions, read back by programs that are not ours."""

import itertools
import json
import shutil
import subprocess

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK

from pipeline.generate.pseudo_ct import REORDERED, RESAMPLED, SAME_GRID, write_volume
from pipeline.geometry import Geometry, axial_geometry_for
from pipeline.phantom import PhantomGrid, phantom_subject
from pipeline.prepared_set import to_slices
from pipeline.scan_io import Algorithm
from pipeline.scan_io.dicom_write import PATIENT_POSITIONS

GRID = PhantomGrid((34, 40, 10), (6.25, 6.25, 13.0), (20.0, 30.0))
MARKER_HU = 2999
LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
ORDERS = [
    (axes, flips) for axes in itertools.permutations(range(3)) for flips in itertools.product((False, True), repeat=3)
]
EVERY = list(itertools.product(ORDERS, PATIENT_POSITIONS))
SPREAD = EVERY[::23]
"""17 of the 384, over all orders of axes, both directions of each, and all positions."""


@pytest.fixture(scope="module")
def phantom():
    """HU of a head with one voxel on its left, in front and up that no other voxel equals, and its canonical affine."""
    truth = phantom_subject(5, 0, "HEAD", grid=GRID)
    hu = np.clip(truth.ct_hu, -1000, 2500)
    hu[9, 30, 7] = MARKER_HU
    affine = truth.geometry.affine.copy()
    affine[:3, 3] += (3.37, -11.03, 41.19)
    return hu, affine


def stored_as(affine, axes, flips):
    """Grid of an MR that stores canonical axis ``axes[n]`` as its axis n, backwards where ``flips[n]``."""
    new = affine[:, [*axes, 3]].copy()
    shape = tuple(GRID.shape[axis] for axis in axes)
    for axis, backwards in enumerate(flips):
        if backwards:
            new[:, 3] += new[:, axis] * (shape[axis] - 1)
            new[:, axis] *= -1
    return Geometry(shape, new)


def write(folder, phantom, native, position):
    hu, affine = phantom
    row = dict.fromkeys(("study_uid", "series_uid", "frame_of_reference_uid", "sop_instance_uids", "study_date"))
    row |= {"subject_id": "sub-a", "series_id": "mr-a", "flags": [], "patient_position": position, "body_part": "HEAD"}
    row |= {"shape": list(native.shape), "affine": native.affine.ravel().tolist()}
    algorithm = Algorithm("mr_to_ct", "1", "phantoms")
    return write_volume(folder, row, to_slices(hu), affine, algorithm, dicom=True)


def by_pydicom(folder, _):
    """Equation C.7.6.2.1-1 of PS3.3 for every slice on its own."""
    slices = sorted(map(pydicom.dcmread, folder.iterdir()), key=lambda item: item.InstanceNumber)
    affines = []
    for item in slices:
        row, column = np.reshape([float(value) for value in item.ImageOrientationPatient], (2, 3))
        affine = np.eye(4)
        affine[:3, 0], affine[:3, 1] = row * float(item.PixelSpacing[1]), column * float(item.PixelSpacing[0])
        affine[:3, 3] = [float(value) for value in item.ImagePositionPatient]
        affines.append(affine)
    step = (affines[-1][:3, 3] - affines[0][:3, 3]) / (len(slices) - 1)
    for number, affine in enumerate(affines):
        np.testing.assert_allclose(affine[:3, 3], affines[0][:3, 3] + number * step, atol=1e-4)
    affines[0][:3, 2] = step
    hu = [item.pixel_array.T * float(item.RescaleSlope) + float(item.RescaleIntercept) for item in slices]
    return np.stack(hu, axis=-1), LPS_RAS @ affines[0]


def by_simpleitk(folder, _):
    reader = SimpleITK.ImageSeriesReader()
    (series,) = reader.GetGDCMSeriesIDs(str(folder))
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), series))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0), LPS_RAS @ affine


def by_dcm2niix(folder, scratch):
    scratch.mkdir()
    command = ["dcm2niix", "-z", "n", "-b", "n", "-f", "out", "-o", str(scratch), str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = scratch.iterdir()
    image = nib.load(path)
    return image.get_fdata(), image.affine


READERS = {"pydicom": by_pydicom, "SimpleITK": by_simpleitk, "dcm2niix": by_dcm2niix}


def canonical(voxels, affine):
    found = nib.as_closest_canonical(nib.Nifti1Image(np.asarray(voxels, np.float64), affine))
    return found.get_fdata(), found.affine


def check(found, phantom):
    hu, affine = phantom
    values, place = canonical(*found)
    assert np.array_equal(values, hu)
    corners = np.array(list(itertools.product(*((0, size - 1) for size in hu.shape))))
    distance = nib.affines.apply_affine(place, corners) - nib.affines.apply_affine(affine, corners)
    assert np.linalg.norm(distance, axis=1).max() <= 1e-4
    (marker,) = np.argwhere(values == MARKER_HU)
    middle = nib.affines.apply_affine(place, (np.array(hu.shape) - 1) / 2)
    left_front_up = nib.affines.apply_affine(place, marker) - middle
    assert left_front_up[0] < 0 < left_front_up[1]
    assert left_front_up[2] > 0


def round_trip(tmp_path, phantom, case, readers):
    (axes, flips), position = case
    native = stored_as(phantom[1], axes, flips)
    written = write(tmp_path / "out", phantom, native, position)
    series = tmp_path / "out" / written["dicom_folder"]
    for reader in readers:
        check(READERS[reader](series, tmp_path / reader), phantom)
    nifti = nib.load(tmp_path / "out" / written["nifti_path"])
    check((nifti.get_fdata(), nifti.affine), phantom)
    assert {pydicom.dcmread(path).PatientPosition for path in series.iterdir()} == {position}
    record = json.loads((tmp_path / "out" / f"{written['dicom_folder']}.json").read_text())
    assert record["grid"] == written["dicom_grid"] == (SAME_GRID if axes[2] == 2 else REORDERED)
    ct, affine = by_pydicom(series, None)
    at = np.array(record["series_voxel_to_mr_voxel"])
    (marker,) = np.argwhere(ct == MARKER_HU)
    in_mr = (at @ [*marker, 1])[:3].astype(int)
    assert nifti.dataobj[tuple(in_mr)] == MARKER_HU
    np.testing.assert_allclose(native.affine @ at, affine, atol=1e-4)


@pytest.mark.parametrize("case", SPREAD, ids=str)
def test_what_is_written_reads_back_from_some_orders_and_positions(tmp_path, phantom, case):
    round_trip(tmp_path, phantom, case, ["pydicom", "SimpleITK"])


@pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="dcm2niix is not installed")
@pytest.mark.parametrize("case", SPREAD[::4], ids=str)
def test_dcm2niix_reads_the_same_from_some_orders_and_positions(tmp_path, phantom, case):
    round_trip(tmp_path, phantom, case, ["dcm2niix"])


@pytest.mark.slow
@pytest.mark.parametrize("case", EVERY, ids=str)
def test_what_is_written_reads_back_from_every_order_and_position(tmp_path, phantom, case):
    round_trip(tmp_path, phantom, case, [reader for reader in READERS if reader != "dcm2niix" or shutil.which(reader)])


def test_an_oblique_mr_is_cut_anew_and_its_transform_leads_back(tmp_path, phantom):
    hu, affine = phantom
    native = Geometry(hu.shape, turned(affine, 17))
    written = write(tmp_path, (hu, native.affine), native, "FFP")
    series = tmp_path / written["dicom_folder"]
    record = json.loads((tmp_path / f"{written['dicom_folder']}.json").read_text())
    assert record["grid"] == written["dicom_grid"] == RESAMPLED
    assert record["interpolation"] == "linear"
    header = pydicom.dcmread(next(series.iterdir()))
    assert {item.SpatialLocationsPreserved for item in header.SourceImageSequence} == {"NO"}
    assert "Cut anew into axial slices" in header.DerivationDescription
    ct, found = by_pydicom(series, None)
    axial = axial_geometry_for(native)
    assert ct.shape == axial.shape
    np.testing.assert_allclose(native.affine @ record["series_voxel_to_mr_voxel"], found, atol=1e-4)
    brightest = np.unravel_index(ct.argmax(), ct.shape)
    in_mr = (np.array(record["series_voxel_to_mr_voxel"]) @ [*brightest, 1])[:3]
    assert np.abs(in_mr - (9, 30, 7)).max() < 1


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian dicom3tools) is not installed")
@pytest.mark.parametrize("grid", [SAME_GRID, REORDERED, RESAMPLED])
def test_the_validators_find_nothing_but_the_attribute_that_they_do_not_know(tmp_path, phantom, grid):
    native = stored_as(phantom[1], (1, 2, 0) if grid == REORDERED else (0, 1, 2), (False, True, True))
    if grid == RESAMPLED:
        native = Geometry(native.shape, turned(native.affine, 5))
    written = write(tmp_path, phantom, native, "HFDL")
    assert written["dicom_grid"] == grid
    paths = sorted((tmp_path / written["dicom_folder"]).iterdir())
    for path in paths[:: len(paths) - 1]:
        result = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
        errors = [line for line in (result.stdout + result.stderr).splitlines() if line.startswith("Error")]
        assert [line.partition(" - ")[2][:20] for line in errors] == ["</(0008,001c)> - Att"], errors
    result = subprocess.run(["dcentvfy", *paths], capture_output=True, text=True, check=False)
    assert (result.stdout + result.stderr).strip() == ""


def turned(affine, degrees):
    """A grid turned around the patient's left-right axis."""
    angle = np.deg2rad(degrees)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ affine
