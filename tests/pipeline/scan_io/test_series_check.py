"""Faults are planted in a good series one by one; each must be told, and the good series must pass."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.config import disable_value_validation
from pydicom.valuerep import DSfloat

from pipeline.errors import WorkspaceError
from pipeline.geometry import Geometry
from pipeline.scan_io import Algorithm, SourceSeries, write_pseudo_ct_series
from pipeline.scan_io.series_check import check_written_series, series_faults

AFFINE = np.diag([-1.0, -1.5, 2.0, 1.0])
AFFINE[:3, 3] = (4.5, 9.25, -30.0)
HU = np.random.default_rng(0).integers(-1024, 3072, (5, 6, 4)).astype(np.int16)
SOURCE = SourceSeries("PHANTOM-001", "2.25.1", "2.25.2", "2.25.3", ("2.25.4",), "HFS")


@pytest.fixture
def series(tmp_path: Path) -> Path:
    folder = tmp_path / "ct"
    write_pseudo_ct_series(folder, HU, Geometry(HU.shape, AFFINE), SOURCE, Algorithm("mr_to_ct", "1", "phantoms"))
    return folder


def change(folder: Path, alter: Callable[[pydicom.Dataset], None], name: str = "0002.dcm") -> None:
    with disable_value_validation():
        item = pydicom.dcmread(folder / name)
        alter(item)
        item.save_as(folder / name)


def setting(**values: object) -> Callable[[pydicom.Dataset], None]:
    def alter(item: pydicom.Dataset) -> None:
        for name, value in values.items():
            setattr(item, name, value)

    return alter


def faults(folder: Path) -> str:
    return "; ".join(series_faults(sorted(folder.iterdir()), HU, AFFINE))


def test_a_good_series_has_no_faults(series: Path) -> None:
    check_written_series(series, HU, AFFINE)
    check_written_series(series, HU + 0.3, AFFINE)  # what is stored is rounded


def test_extremes_are_clipped_and_compared_as_clipped(tmp_path: Path) -> None:
    hu = np.full((4, 4, 3), -1000.0)
    hu[0, 0, 0], hu[1, 0, 0], hu[2, 0, 0] = -32768.0, 32767.0, 3071.4
    folder = tmp_path / "ct"
    write_pseudo_ct_series(folder, hu, Geometry(hu.shape, AFFINE), SOURCE, Algorithm("mr_to_ct", "1", "phantoms"))
    first = pydicom.dcmread(folder / "0001.dcm")
    read = first.pixel_array * float(first.RescaleSlope) + float(first.RescaleIntercept)
    assert read.T[:4, 0].tolist() == [-1024, 3071, 3071, -1000]
    assert first.pixel_array.min() == 0


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"FrameOfReferenceUID": "2.25.9"}, "FrameOfReferenceUID has 2 values"),
        ({"PatientPosition": ""}, "PatientPosition is missing"),
        ({"RescaleIntercept": None}, "RescaleIntercept is missing"),
        ({"PatientID": "PHANTOM-002"}, "PatientID has 2 values"),
        ({"SyntheticData": "NO"}, "SyntheticData is NO"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]}, "ImageType is"),
        ({"SOPInstanceUID": "2.25." + "1" * 64}, "SOPInstanceUID has more than 64"),
        ({"ImagePositionPatient": [-4.5, -9.25, -30.0]}, "two slices lie at one"),
        ({"ImagePositionPatient": [-4.5, -9.25, -28.001]}, "mm apart"),
        ({"ImagePositionPatient": [-4.4, -9.25, -28.0]}, "not above each other"),
    ],
)
def test_a_fault_in_one_slice_is_told(series: Path, values: dict[str, object], told: str) -> None:
    change(series, setting(**values))
    assert told in faults(series)
    with pytest.raises(WorkspaceError, match="read back") as caught:
        check_written_series(series, HU, AFFINE)
    assert told in caught.value.found


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"ImageOrientationPatient": [0.96, 0.28, 0.0, -0.28, 0.96, 0.0]}, "not axial"),
        ({"ImageOrientationPatient": [-1.0, 0.0, 0.0, 0.0, 1.0, 0.0]}, "not axial"),
        ({"PixelSpacing": [1.5, 1.001]}, "from where they belong"),
    ],
)
def test_a_fault_in_every_slice_is_told(series: Path, values: dict[str, object], told: str) -> None:
    for path in series.iterdir():
        change(series, setting(**values), path.name)
    assert told in faults(series)


def test_a_shift_of_the_whole_series_is_told_from_a_tenth_of_a_micrometer(series: Path) -> None:
    def shift(item: pydicom.Dataset) -> None:
        item.ImagePositionPatient = [float(value) + 2e-4 for value in item.ImagePositionPatient]

    for path in series.iterdir():
        change(series, shift, path.name)
    assert "from where they belong" in faults(series)


def test_decimals_that_are_too_long_are_told(series: Path) -> None:
    item = pydicom.dcmread(series / "0002.dcm")
    content = (series / "0002.dcm").read_bytes()
    before = b"DS" + (8).to_bytes(2, "little") + b"1.5\\1.0 "
    assert before in content
    after = b"DS" + (22).to_bytes(2, "little") + b"1.50000000000000000\\1.0"[:22]
    (series / "0002.dcm").write_bytes(content.replace(before, after))
    assert "PixelSpacing has more than 16" in faults(series)
    assert isinstance(item.PixelSpacing[0], DSfloat)


def test_swapped_and_changed_pixels_are_told_by_slice(series: Path) -> None:
    def flip(item: pydicom.Dataset) -> None:
        item.PixelData = item.pixel_array[:, ::-1].tobytes()

    change(series, flip)
    assert "slice 2 differs in" in faults(series)


def test_a_missing_a_cut_and_a_foreign_file_are_told(series: Path) -> None:
    path = series / "0003.dcm"
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    assert "0003.dcm cannot be read" in faults(series)
    path.write_bytes(b"not an image")
    assert "0003.dcm cannot be read" in faults(series)
    path.unlink()
    assert faults(series) == "3 files for 4 slices"
