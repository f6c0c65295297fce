"""NIfTI affines and voxels against nibabel and SimpleITK, for any affine; what is written carries no text."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipeline.geometry import Geometry, to_canonical
from pipeline.scan_io import read_nifti, write_nifti

SHAPE = (5, 4, 3)
REUSED = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def affines(draw: st.DrawFn) -> NDArray[np.float64]:
    """Rotation, mirroring, spacing and place of a scan."""
    angles = draw(st.tuples(*[st.floats(-180, 180)] * 3))
    spacing = draw(st.tuples(*[st.floats(0.05, 20)] * 3))
    mirror = draw(st.sampled_from([1.0, -1.0]))
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * spacing
    affine[:3, 0] *= mirror
    affine[:3, 3] = draw(st.tuples(*[st.floats(-2000, 2000)] * 3))
    return affine


def marked() -> NDArray[np.int16]:
    return np.arange(60, dtype=np.int16).reshape(SHAPE)


@REUSED
@given(affine=affines())
def test_what_is_written_is_read_to_the_precision_of_the_header(tmp_path: Path, affine: NDArray[np.float64]) -> None:
    write_nifti(tmp_path / "a.nii", marked(), affine, np.int16)
    scan = read_nifti(tmp_path / "a.nii")
    np.testing.assert_array_equal(scan.voxels, marked())
    np.testing.assert_allclose(scan.geometry.affine, affine, rtol=1e-6, atol=1e-5)
    assert np.sign(np.linalg.det(scan.geometry.affine)) == np.sign(np.linalg.det(affine))


@REUSED
@given(affine=affines())
def test_nibabel_and_simpleitk_put_every_voxel_at_the_same_place(tmp_path: Path, affine: NDArray[np.float64]) -> None:
    image = nib.Nifti1Image(marked(), affine)
    image.set_qform(affine, 1)
    nib.save(image, tmp_path / "a.nii.gz")
    scan = read_nifti(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(scan.geometry.affine, nib.load(tmp_path / "a.nii.gz").affine)
    itk = SimpleITK.ReadImage(str(tmp_path / "a.nii.gz"))
    for index in ((0, 0, 0), (4, 0, 2), (1, 3, 1)):
        left, posterior, superior = itk.TransformIndexToPhysicalPoint(index)
        ours, first = scan.geometry.to_world(index), scan.geometry.to_world((0, 0, 0))
        # Where ITK takes the quaternion, its fourth number is what float32 leaves of 1: near a half turn that is an
        # angle of 2 √ε, 7e-4. Read from the other form the same voxel may lie that much off, times its distance.
        tolerance = 1e-3 * (1 + np.linalg.norm(ours - first))
        np.testing.assert_allclose(ours, (-left, -posterior, superior), rtol=0, atol=tolerance)
        assert itk[index] == scan.voxels[index]


@REUSED
@given(affine=affines())
def test_the_canonical_volume_goes_back_to_the_file_as_it_was(tmp_path: Path, affine: NDArray[np.float64]) -> None:
    write_nifti(tmp_path / "a.nii", marked(), affine, np.int16)
    scan = read_nifti(tmp_path / "a.nii")
    voxels, _, reordering = to_canonical(scan.voxels, scan.geometry.affine)
    write_nifti(tmp_path / "b.nii", reordering.restore(voxels), reordering.source.affine, np.int16)
    again = read_nifti(tmp_path / "b.nii")
    np.testing.assert_array_equal(again.voxels, marked())
    np.testing.assert_array_equal(again.geometry.affine, scan.geometry.affine)


@REUSED
@given(values=arrays(np.float32, SHAPE, elements=st.floats(-(2.0**99), 2.0**99, width=32)))
def test_floats_come_back_exactly_in_the_smaller_of_two_types(tmp_path: Path, values: NDArray[np.float32]) -> None:
    write_nifti(tmp_path / "a.nii", values, np.diag([2, 2, 2, 1]), np.float32)
    scan = read_nifti(tmp_path / "a.nii")
    np.testing.assert_array_equal(scan.voxels, values)
    whole = np.array_equal(values, np.rint(values)) and np.abs(values.astype(np.float64) + 0.5).max() <= 32767.5
    assert scan.voxels.dtype == (np.int16 if whole else np.float32)


@REUSED
@given(values=arrays(np.int64, SHAPE, elements=st.integers(-40000, 40000)))
def test_whole_values_come_back_exactly(tmp_path: Path, values: NDArray[np.int64]) -> None:
    write_nifti(tmp_path / "a.nii.gz", values, np.diag([2, 2, 2, 1]), np.int32)
    np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii.gz").voxels, values)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_texts_and_extensions_of_a_header_are_not_carried_on(tmp_path, kind):
    tokens = [b"DESCRIP^ROE", b"INTENT^ROE", b"AUX^ROE", b"DBNAME^ROE", b"COMMENT^ROE", b"BEHIND^ROE"]
    image = kind(marked(), np.diag([2, 2, 2, 1]))
    image.set_sform(np.diag([2, 2, 2, 1]), 1)
    header = image.header
    header["descrip"], header["intent_name"], header["aux_file"] = tokens[:3]
    if kind is nib.Nifti1Image:
        header["db_name"] = tokens[3]
    header.extensions.append(nib.nifti1.Nifti1Extension("comment", tokens[4]))
    (tmp_path / "a.nii").write_bytes(image.to_bytes() + tokens[5])
    planted = [token for token in tokens if token in (tmp_path / "a.nii").read_bytes()]
    assert len(planted) == (6 if kind is nib.Nifti1Image else 5)
    scan = read_nifti(tmp_path / "a.nii")
    np.testing.assert_array_equal(scan.voxels, marked())
    for name in ("b.nii", "b.nii.gz"):
        write_nifti(tmp_path / name, scan.voxels, scan.geometry.affine, np.int16)
        content = (tmp_path / name).read_bytes()
        content = gzip.decompress(content) if name.endswith("gz") else content
        assert not any(token in content for token in tokens)
        assert len(content) == 352 + marked().nbytes
    assert "ROE" not in repr(scan.facts)


def test_a_view_on_any_memory_order_is_written_as_it_is_meant(tmp_path):
    for array in (marked(), np.asfortranarray(marked()), marked()[::-1, :, ::-1], marked().transpose(2, 0, 1)):
        write_nifti(tmp_path / "a.nii", array, np.diag([2, 2, 2, 1]), np.int16)
        scan = read_nifti(tmp_path / "a.nii")
        np.testing.assert_array_equal(scan.voxels, array)
        assert scan.geometry.matches(Geometry(array.shape, np.diag([2, 2, 2, 1])))
