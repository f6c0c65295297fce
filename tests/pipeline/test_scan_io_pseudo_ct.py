import itertools
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.geometry import Geometry, axial_geometry_for
from pipeline.resampling import resample
from pipeline.scan_io import (
    Acquisition,
    Algorithm,
    SeriesIdentity,
    SourceSeries,
    read_dicom_series,
    uid_from,
    write_dicom_series,
    write_pseudo_ct_series,
)

SHAPE = (5, 6, 4)
ALGORITHM = Algorithm("mr_to_ct", "0.1.0", "CycleGAN trained on digital phantoms", kvp=120.0)
IDENTITY = SeriesIdentity(
    "PHANTOM-001",
    uid_from("study"),
    uid_from("mr"),
    uid_from("frame"),
    patient_name="PHANTOM^ADA",
    patient_sex="F",
    patient_age="044Y",
    study_id="1",
    study_date="20200115",
    study_time="080000",
)
SOURCE = SourceSeries(
    patient_id="PHANTOM-001",
    patient_name="PHANTOM^ADA",
    patient_sex="F",
    patient_age="044Y",
    study_uid=uid_from("study"),
    series_uid=uid_from("mr"),
    frame_of_reference_uid=uid_from("frame"),
    sop_instance_uids=(uid_from("mr", "1"), uid_from("mr", "2")),
    patient_position="HFS",
    study_id="1",
    study_date="20200115",
    study_time="080000",
    body_part="HEAD",
)


def marked() -> NDArray[np.int16]:
    """HU with all values distinct and a marker in one corner, so that no flip goes unseen."""
    hu = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE) * 10 - 1000
    hu[0, 0, 0] = 3000
    return hu


def orientations() -> list[NDArray[np.float64]]:
    affines = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            affine = np.zeros((4, 4))
            for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
                affine[world, axis] = sign * (1.0, 1.5, 2.5)[axis]
            affine[:, 3] = (-12.5, 33.25, 100.0, 1.0)
            affines.append(affine)
    return affines


@pytest.mark.parametrize("affine", orientations())
def test_every_voxel_keeps_its_place_in_every_orientation(tmp_path: Path, affine: NDArray[np.float64]) -> None:
    hu, geometry = marked(), Geometry(SHAPE, affine)
    paths = write_pseudo_ct_series(tmp_path / "ct", hu, geometry, SOURCE, ALGORITHM)
    grid = np.stack(np.meshgrid(*(np.arange(size) for size in SHAPE), indexing="ij"), axis=-1).reshape(-1, 3)
    world = geometry.to_world(grid)
    scan = read_dicom_series(paths[::-1])
    index = np.rint(scan.geometry.to_index(world)).astype(int)
    np.testing.assert_allclose(scan.geometry.to_world(index), world, atol=1e-4)
    np.testing.assert_array_equal(scan.voxels[tuple(index.T)], hu.ravel())
    np.testing.assert_allclose(scan.geometry.direction, np.diag([-1, -1, 1]), atol=1e-12)
    image = SimpleITK.ReadImage([str(path) for path in paths])
    for point, value in zip(world[::7] * (-1, -1, 1), hu.ravel()[::7], strict=True):
        assert image[image.TransformPhysicalPointToIndex(point.tolist())] == value


@pytest.mark.parametrize("position", ["HFS", "HFP", "HFDR", "HFDL", "FFS", "FFP", "FFDR", "FFDL"])
def test_patient_position_is_carried_and_moves_nothing(tmp_path: Path, position: str) -> None:
    source = replace(SOURCE, patient_position=position)
    geometry = Geometry(SHAPE, np.diag([-1.0, -1.0, 2.0, 1.0]))
    scan = read_dicom_series(write_pseudo_ct_series(tmp_path / "ct", marked(), geometry, source, ALGORITHM))
    assert scan.facts.patient_position == position
    assert scan.geometry.matches(geometry, 1e-9)
    np.testing.assert_array_equal(scan.voxels, marked())


def test_the_series_says_what_it_is_and_where_it_comes_from(tmp_path: Path) -> None:
    geometry = Geometry(SHAPE, np.diag([-1.0, -1.0, 2.0, 1.0]))
    paths = write_pseudo_ct_series(tmp_path / "ct", marked(), geometry, SOURCE, ALGORITHM)
    items = [pydicom.dcmread(path) for path in paths]
    first = items[0]
    assert list(first.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert first.SyntheticData == "YES"
    assert "NOT FOR CLINICAL USE" in first.SeriesDescription
    assert (first.StudyInstanceUID, first.FrameOfReferenceUID) == (uid_from("study"), uid_from("frame"))
    assert first.SeriesInstanceUID not in (SOURCE.series_uid, SOURCE.study_uid)
    assert [item.ReferencedSOPInstanceUID for item in first.SourceImageSequence] == list(SOURCE.sop_instance_uids)
    assert first.ContributingEquipmentSequence[0].SoftwareVersions == "0.1.0"
    assert first.DerivationAlgorithmSequence[0].AlgorithmName == "mr_to_ct"
    assert (first.KVP, first.RescaleSlope, first.RescaleIntercept) == (120, 1, -1024)
    assert len({item.SOPInstanceUID for item in items}) == len(items)
    assert len({item.FrameOfReferenceUID for item in items}) == 1
    for item in items:
        for element in item.iterall():
            if element.VR == "UI":
                assert all(len(str(uid)) <= 64 for uid in np.atleast_1d(element.value))
            if element.VR == "DS":
                values = element.value if element.VM > 1 else [element.value]
                assert all(len(str(value)) <= 16 for value in values)


def test_another_version_makes_another_series_and_equal_inputs_equal_bytes(tmp_path: Path) -> None:
    geometry = Geometry(SHAPE, np.diag([-1.0, -1.0, 2.0, 1.0]))
    newer = Algorithm("mr_to_ct", "0.2.0", "CycleGAN")
    first = write_pseudo_ct_series(tmp_path / "a", marked(), geometry, SOURCE, ALGORITHM)
    again = write_pseudo_ct_series(tmp_path / "b", marked(), geometry, SOURCE, ALGORITHM)
    other = write_pseudo_ct_series(tmp_path / "c", marked(), geometry, SOURCE, newer)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert read_dicom_series(first).facts.series_uid != read_dicom_series(other).facts.series_uid


def test_an_older_series_is_replaced_whole(tmp_path: Path) -> None:
    tall = Geometry((5, 6, 4), np.diag([-1.0, -1.0, 2.0, 1.0]))
    write_pseudo_ct_series(tmp_path / "ct", marked(), tall, SOURCE, ALGORITHM)
    short = Geometry((5, 6, 2), tall.affine)
    paths = write_pseudo_ct_series(tmp_path / "ct", marked()[:, :, :2], short, SOURCE, ALGORITHM)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "ct"]
    assert sorted((tmp_path / "ct").iterdir()) == paths


def test_oblique_grids_are_refused_until_resampled_to_axial(tmp_path: Path) -> None:
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    affine[:2, :2] = -np.array([[0.96, -0.28], [0.28, 0.96]])
    geometry = Geometry(SHAPE, affine)
    with pytest.raises(InputError, match="axial_geometry_for"):
        write_pseudo_ct_series(tmp_path / "ct", marked(), geometry, SOURCE, ALGORITHM)
    target = axial_geometry_for(geometry)
    hu = resample(marked(), affine, target, fill=-1024)
    scan = read_dicom_series(write_pseudo_ct_series(tmp_path / "ct", hu, target, SOURCE, ALGORITHM))
    np.testing.assert_array_equal(scan.voxels, np.rint(hu))


def test_texts_too_long_for_their_attribute_are_refused(tmp_path: Path) -> None:
    geometry = Geometry(SHAPE, np.diag([-1.0, -1.0, 2.0, 1.0]))
    for algorithm in (Algorithm("n" * 65, "1", ""), Algorithm("n", "1", "a\\b")):
        with pytest.raises(InputError, match="fit its DICOM attribute"):
            write_pseudo_ct_series(tmp_path / "ct", marked(), geometry, SOURCE, algorithm)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian dicom3tools) is not installed")
def test_the_validator_finds_no_error_but_the_attribute_that_it_does_not_know(tmp_path: Path) -> None:
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    mr = write_dicom_series(
        tmp_path / "mr",
        np.abs(marked()),
        affine,
        "MR",
        IDENTITY,
        Acquisition("T1", "HEAD", repetition_time_ms=500, echo_time_ms=12),
    )
    source = replace(SOURCE, sop_instance_uids=read_dicom_series(mr).facts.sop_instance_uids)
    pseudo = write_pseudo_ct_series(tmp_path / "ct", marked(), Geometry(SHAPE, affine), source, ALGORITHM)
    errors = {}
    for path in (mr[0], pseudo[0]):
        result = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
        lines = (result.stdout + result.stderr).splitlines()
        errors[path.parent.name] = [line for line in lines if line.startswith("Error")]
    assert errors["mr"] == []
    assert errors["ct"] == [
        "Error - </(0008,001c)> - Attribute with an even group number is not a recognized standard attribute"
    ]


@pytest.mark.skipif(shutil.which("dcentvfy") is None, reason="dcentvfy (Debian dicom3tools) is not installed")
def test_mr_and_pseudo_ct_agree_on_patient_study_and_frame(tmp_path: Path) -> None:
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    mr = write_dicom_series(tmp_path / "mr", np.abs(marked()), affine, "MR", IDENTITY, Acquisition())
    pseudo = write_pseudo_ct_series(tmp_path / "ct", marked(), Geometry(SHAPE, affine), SOURCE, ALGORITHM)
    result = subprocess.run(["dcentvfy", *map(str, mr + pseudo)], capture_output=True, text=True, check=False)
    assert (result.stdout + result.stderr).strip() == ""
