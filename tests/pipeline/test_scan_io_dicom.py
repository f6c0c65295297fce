from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK
from numpy.typing import NDArray
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from pipeline.errors import InputError, QuarantineError
from pipeline.geometry import Geometry, to_canonical
from pipeline.scan_io import (
    Acquisition,
    SeriesIdentity,
    find_dicom_series,
    is_dicom,
    read_dicom_series,
    sequence_from_text,
    uid_from,
    write_dicom_series,
)

SHAPE = (7, 5, 6)
IDENTITY = SeriesIdentity("P1", uid_from("study"), uid_from("series"), uid_from("frame"), patient_name="PHANTOM^ADA")


def oblique() -> NDArray[np.float64]:
    affine = np.array([[-0.9, 0.1, 0, 40], [0.1, 0.9, 0, 50], [0, 0, 1, -60], [0, 0, 0, 1.0]])
    affine[:3, :2] /= np.linalg.norm(affine[:3, 0])
    return affine @ np.diag([0.7, 1.1, 2.5, 1.0])


def hounsfield(shape: tuple[int, ...] = SHAPE) -> NDArray[np.int16]:
    return np.random.default_rng(1).integers(-1024, 3072, size=shape).astype(np.int16)


def write_ct(folder: Path, voxels: NDArray[Any] | None = None) -> list[Path]:
    return write_dicom_series(
        folder, hounsfield() if voxels is None else voxels, oblique(), "CT", IDENTITY, Acquisition()
    )


def write_mr(folder: Path) -> list[Path]:
    acquisition = Acquisition("AX T2 TSE", "HEAD", repetition_time_ms=4000, echo_time_ms=100)
    return write_dicom_series(folder, np.abs(hounsfield()), oblique(), "MR", IDENTITY, acquisition)


def change(path: Path, edit: Callable[[pydicom.Dataset], None]) -> None:
    item = pydicom.dcmread(path)
    edit(item)
    item.save_as(path)


def refusal(paths: list[Path]) -> QuarantineError:
    with pytest.raises(QuarantineError) as caught:
        read_dicom_series(paths)
    return caught.value


def test_ct_comes_back_exactly_with_its_grid_in_any_file_order(tmp_path: Path) -> None:
    paths = write_ct(tmp_path)
    scan = read_dicom_series([paths[index] for index in (3, 0, 5, 1, 4, 2)])
    expected, affine, _ = to_canonical(hounsfield(), oblique())
    found, found_affine, _ = to_canonical(scan.voxels, scan.geometry.affine)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(found_affine, affine, atol=1e-9)
    assert scan.voxels.dtype == np.int16
    assert scan.modality == "CT"


def test_facts_name_the_series_and_slices_in_order(tmp_path: Path) -> None:
    paths = write_mr(tmp_path)
    facts = read_dicom_series(paths[::-1]).facts
    assert (facts.patient_id, facts.study_uid, facts.series_uid) == ("P1", uid_from("study"), uid_from("series"))
    assert (facts.frame_of_reference_uid, facts.body_part, facts.patient_position) == (uid_from("frame"), "HEAD", "HFS")
    assert facts.sequence_name == "T2"
    assert facts.sop_instance_uids == tuple(pydicom.dcmread(path).SOPInstanceUID for path in paths)


def test_simpleitk_sees_the_same_values_at_the_same_points(tmp_path: Path) -> None:
    paths = write_ct(tmp_path)
    image = SimpleITK.ReadImage([str(path) for path in paths])
    geometry = Geometry(SHAPE, oblique())
    voxels = hounsfield()
    for index in ((0, 0, 0), (6, 0, 2), (3, 4, 5), (1, 2, 3)):
        right, anterior, superior = geometry.to_world(index)
        there = image.TransformPhysicalPointToIndex((-float(right), -float(anterior), float(superior)))
        assert image[there] == voxels[index]


def test_extreme_hu_are_clipped_and_halves_rounded(tmp_path: Path) -> None:
    voxels = np.full(SHAPE, 0.4)
    voxels[0, 0, :], voxels[1, 0, :] = -3000.0, 9000.0
    values = read_dicom_series(write_ct(tmp_path, voxels)).voxels
    assert set(np.unique(values)) == {-1024, 0, 3071}


def test_equal_inputs_give_equal_bytes_and_legal_uids(tmp_path: Path) -> None:
    first, second = write_ct(tmp_path / "a"), write_ct(tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert len(uid_from("a", "b")) <= 64
    assert uid_from("a", "b") != uid_from("ab", "")
    assert pydicom.uid.UID(uid_from("a", "b")).is_valid


def test_series_are_grouped_by_content_not_by_name(tmp_path: Path) -> None:
    ct, other = write_ct(tmp_path / "x"), replace(IDENTITY, series_uid=uid_from("other"))
    mr = write_dicom_series(tmp_path / "y", np.abs(hounsfield()), oblique(), "MR", other, Acquisition())
    for number, path in enumerate(ct + mr):
        path.rename(tmp_path / f"file{number * 7 % 12}")
    (tmp_path / "notes.dcm").write_bytes(b"no magic")
    (tmp_path / "link").symlink_to(tmp_path / "file0")
    series = find_dicom_series([tmp_path])
    assert {uid: len(paths) for uid, paths in series.items()} == {uid_from("series"): 6, uid_from("other"): 6}
    assert {read_dicom_series(paths).modality for paths in series.values()} == {"CT", "MR"}
    assert not is_dicom(tmp_path / "notes.dcm")


def test_a_reversed_instance_number_does_not_flip_the_volume(tmp_path: Path) -> None:
    paths = write_ct(tmp_path)
    before = read_dicom_series(paths)
    for number, path in enumerate(paths):
        change(path, lambda item, number=number: setattr(item, "InstanceNumber", 100 - number))  # type: ignore[misc]
    after = read_dicom_series(paths)
    np.testing.assert_array_equal(after.voxels, before.voxels)
    assert after.geometry.matches(before.geometry, 1e-9)


def test_a_deleted_slice_is_a_missing_slice_with_numbers(tmp_path: Path) -> None:
    paths = write_ct(tmp_path)
    error = refusal(paths[:3] + paths[4:])
    assert error.reason == "MISSING_SLICE"
    assert error.found == "a gap of 5.000 mm between slices 3 and 4 of 5, among gaps of 2.500 mm"


def move(path: Path, offset: tuple[float, float, float]) -> None:
    position = [float(value) + delta for value, delta in zip(_position(path), offset, strict=True)]
    change(path, lambda item: setattr(item, "ImagePositionPatient", position))


def _position(path: Path) -> list[float]:
    return [float(value) for value in pydicom.dcmread(path).ImagePositionPatient]


def test_uneven_spacing_above_one_percent_is_refused_and_below_is_read(tmp_path: Path) -> None:
    paths = write_ct(tmp_path)
    move(paths[2], (0, 0, 0.011))
    assert read_dicom_series(paths).geometry.spacing_mm[2] == pytest.approx(2.5)
    move(paths[2], (0, 0, 0.05))
    assert refusal(paths).reason == "NONUNIFORM_SPACING"


def test_identical_copies_are_dropped_and_conflicting_ones_refused(tmp_path: Path) -> None:
    paths = write_ct(tmp_path)
    copy = tmp_path / "copy.dcm"
    copy.write_bytes(paths[2].read_bytes())
    np.testing.assert_array_equal(read_dicom_series([*paths, copy]).voxels, read_dicom_series(paths).voxels)
    change(copy, lambda item: setattr(item, "PixelData", bytes(len(item.PixelData))))
    assert refusal([*paths, copy]).reason == "DUPLICATE_POSITION"


def test_rescale_differs_per_slice_and_must_exist_on_ct(tmp_path: Path) -> None:
    paths = write_ct(tmp_path, np.zeros(SHAPE))
    change(paths[1], lambda item: setattr(item, "RescaleIntercept", "-1000"))
    values = read_dicom_series(paths).voxels
    assert (values[:, :, 1] == 24).all()
    assert (values[:, :, 0] == 0).all()
    change(paths[0], lambda item: item.__delattr__("RescaleSlope"))
    assert refusal(paths).reason == "MISSING_RESCALE"


@pytest.mark.parametrize("stored_bits", [12, 16])
@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("padded", [False, True])
def test_signedness_bit_depth_and_padding_do_not_shift_hu(
    tmp_path: Path, stored_bits: int, signed: int, padded: bool
) -> None:
    voxels = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 900 - 450.0
    paths = write_ct(tmp_path, voxels)
    padding = -(1 << (stored_bits - 1)) if signed else (1 << stored_bits) - 1
    expected = np.asarray(read_dicom_series(paths).voxels)
    for path in paths:
        item = pydicom.dcmread(path)
        hu = item.pixel_array.astype(np.int64) - 1024
        stored = hu if signed else hu + 1024
        if padded:
            stored[0, 0] = padding
            item.add_new("PixelPaddingValue", "SS" if signed else "US", padding)
        item.RescaleIntercept = "0" if signed else "-1024"
        item.PixelRepresentation, item.BitsStored, item.HighBit = signed, stored_bits, stored_bits - 1
        item.PixelData = stored.astype("<i2" if signed else "<u2").tobytes()
        item.save_as(path)
    if padded:
        expected[0, 0, :] = -1024
    np.testing.assert_array_equal(read_dicom_series(paths).voxels, expected)


def test_monochrome1_is_inverted_in_mr_and_leaves_hu_of_ct_alone(tmp_path: Path) -> None:
    mr, ct = write_mr(tmp_path / "mr"), write_ct(tmp_path / "ct")
    before_mr, before_ct = read_dicom_series(mr).voxels, read_dicom_series(ct).voxels

    def invert(item: pydicom.Dataset) -> None:
        item.PhotometricInterpretation = "MONOCHROME1"
        item.PixelData = (-1 - item.pixel_array).astype("<i2").tobytes()

    for path in mr:
        change(path, invert)
    for path in ct:
        change(path, lambda item: setattr(item, "PhotometricInterpretation", "MONOCHROME1"))
    np.testing.assert_array_equal(read_dicom_series(mr).voxels, before_mr)
    np.testing.assert_array_equal(read_dicom_series(ct).voxels, before_ct)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_lossless_codecs_equal_raw(tmp_path: Path, syntax: pydicom.uid.UID) -> None:
    paths = write_ct(tmp_path, hounsfield((40, 36, 3)))
    raw = read_dicom_series(paths).voxels
    for path in paths:
        item = pydicom.dcmread(path)
        item.compress(syntax, generate_instance_uid=False)
        item.save_as(path)
    np.testing.assert_array_equal(read_dicom_series(paths).voxels, raw)


def _into_report(item: pydicom.Dataset) -> None:
    item.file_meta.MediaStorageSOPClassUID = item.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    del item.PixelData


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda item: setattr(item, "NumberOfFrames", 2), "MISSING_GEOMETRY"),
        (lambda item: setattr(item, "Modality", "US"), "UNSUPPORTED_MODALITY"),
        (lambda item: item.__delattr__("ImagePositionPatient"), "MISSING_GEOMETRY"),
        (lambda item: setattr(item, "SeriesInstanceUID", "1.2.3"), "MIXED_SERIES"),
        (lambda item: setattr(item, "PixelSpacing", [1.0, 2.0]), "MIXED_SERIES"),
        (lambda item: setattr(item, "SamplesPerPixel", 3), "UNSUPPORTED_COLOR"),
        (lambda item: item.__delattr__("PixelData"), "TRUNCATED"),
        (lambda item: setattr(item, "ImageType", ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]), "MOSAIC_GEOMETRY"),
        (_into_report, "NOT_AN_IMAGE"),
        (lambda item: setattr(item, "ImageOrientationPatient", [0, 1, 0, 1, 0, 0]), "MIXED_SERIES"),
    ],
)
def test_a_slice_that_cannot_belong_is_refused_with_its_reason(
    tmp_path: Path, edit: Callable[[pydicom.Dataset], None], reason: str
) -> None:
    paths = write_ct(tmp_path)
    change(paths[2], edit)
    assert refusal(paths).reason == reason


def test_every_cut_of_a_file_is_refused_never_read(tmp_path: Path) -> None:
    paths = write_ct(tmp_path)
    content = paths[0].read_bytes()
    reasons = set()
    for length in range(0, len(content), 37):
        paths[0].write_bytes(content[:length])
        reasons.add(refusal(paths).reason)
    assert reasons <= {"NOT_DICOM", "TRUNCATED", "UNREADABLE"}
    paths[0].write_bytes(content[:-2])
    assert refusal(paths).reason == "TRUNCATED"


def test_unreadable_headers_are_passed_over_by_the_search_and_refused_by_the_reader(tmp_path: Path) -> None:
    (tmp_path / "broken").write_bytes(bytes(128) + b"DICM" + b"\xff" * 40)
    assert find_dicom_series([tmp_path]) == {}
    assert refusal([tmp_path / "broken"]).reason in {"TRUNCATED", "UNREADABLE", "MISSING_SYNTAX"}


def test_values_that_cannot_be_stored_and_unknown_codes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="finite"):
        write_ct(tmp_path, np.full(SHAPE, np.nan))
    with pytest.raises(InputError, match="fit int16"):
        write_dicom_series(tmp_path, np.full(SHAPE, 0.5), oblique(), "MR", IDENTITY, Acquisition())
    with pytest.raises(InputError, match="modality"):
        write_dicom_series(tmp_path, hounsfield(), oblique(), "PT", IDENTITY, Acquisition())
    upside = replace(IDENTITY, patient_position="UP")
    with pytest.raises(InputError, match="PatientPosition"):
        write_dicom_series(tmp_path, hounsfield(), oblique(), "CT", upside, Acquisition())


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("sub-01_T1w", "T1"),
        ("ax t2_flair fs", "FLAIR"),
        ("T2*_gre", "T2*"),
        ("MPRAGE sag", "T1"),
        ("ep2d_diff_b1000", "DWI"),
        ("cor pd fs", "PD"),
        ("scout", None),
    ],
)
def test_sequence_names_are_told_from_texts(text: str, name: str | None) -> None:
    assert sequence_from_text(None, text) == name
