"""Files to volumes: what one volume is, how volumes of a series are told apart, and what is never guessed."""

import json
from functools import partial

import numpy as np
import pytest
from pydicom.dataset import Dataset

from pipeline.ingest.plain_values import decoded, encoded
from pipeline.scan_io import read_dicom_series, read_dicom_volumes, uid_from
from pipeline.scan_io.dicom.read_header import read_header
from pipeline.scan_io.dicom.series import group_files
from pipeline.scan_io.dicom.volume_plan import DicomPolicy


def labelled(paths):
    """Voxels by label."""
    return {scan.facts.volume_label: scan.voxels for scan in read_dicom_volumes(paths)}


def test_three_series_shuffled_in_one_folder_under_reversed_names_come_back_whole(files):
    truth = {name: files.voxels(seed) for seed, name in enumerate("abc")}
    paths = [path for name, voxels in truth.items() for path in files.write(name, voxels, series=name)]
    renamed = [path.rename(files.root / f"{len(paths) - number:03}.dcm") for number, path in enumerate(paths)]
    np.random.default_rng(3).shuffle(renamed)
    scans = read_dicom_volumes(renamed)
    assert len(scans) == 3
    for scan in scans:
        (name,) = [name for name in truth if uid_from(name) == scan.facts.series_uid]
        np.testing.assert_array_equal(scan.voxels, truth[name])
        np.testing.assert_allclose(scan.geometry.affine, files.affine, atol=1e-9)
        assert scan.facts.volume_label is None


def test_pixels_that_are_not_square_keep_their_axes(files):
    scan = read_dicom_series(files.write("scan"))
    np.testing.assert_allclose(scan.geometry.spacing_mm, [0.7, 1.1, 3.0])


@pytest.mark.parametrize("field", ["EchoTime", "EchoNumbers"])
def test_echoes_of_one_series_are_volumes_in_order_of_echo(files, field):
    paths = []
    for number, value in ((2, 80), (1, 20)):
        paths += files.write(f"e{number}", files.voxels(number), **{field: value if field == "EchoTime" else number})
    found = labelled(paths)
    assert set(found) == {"echo 1", "echo 2"}
    for number in (1, 2):
        np.testing.assert_array_equal(found[f"echo {number}"], files.voxels(number))


def test_echoes_at_interleaved_positions_are_not_one_volume(files):
    shifted = files.affine.copy()
    shifted[2, 3] += 1.5
    paths = files.write("a", files.voxels(1), EchoTime=20) + files.write(
        "b", files.voxels(2), EchoTime=80, affine=shifted
    )
    scans = read_dicom_volumes(paths)
    assert [scan.geometry.shape for scan in scans] == [files.shape, files.shape]


def private_b(creator, group, offset, vr, value):
    def change(item: Dataset) -> None:
        item.private_block(group, creator, create=True).add_new(offset, vr, value)

    return change


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (
            private_b("SIEMENS MR HEADER", 0x0019, 0x0C, "IS", "0"),
            private_b("SIEMENS MR HEADER", 0x0019, 0x0C, "IS", "1000"),
        ),
        (
            private_b("Philips Imaging DD 001", 0x2001, 0x03, "FL", 0.0),
            private_b("Philips Imaging DD 001", 0x2001, 0x03, "FL", 1000.0),
        ),
        (
            private_b("GEMS_PARM_01", 0x0043, 0x39, "IS", ["0", "8", "0", "0"]),
            private_b("GEMS_PARM_01", 0x0043, 0x39, "IS", ["1000001000", "8", "0", "0"]),
        ),
        (lambda item: setattr(item, "DiffusionBValue", 0.0), lambda item: setattr(item, "DiffusionBValue", 1000.0)),
    ],
    ids=["siemens", "philips", "ge", "standard"],
)
def test_b_values_split_a_series_whoever_wrote_them(files, low, high):
    first, second = files.write("low", files.voxels(1)), files.write("high", files.voxels(2))
    files.edit(first, low)
    files.edit(second, high)
    found = labelled(second + first)
    assert set(found) == {"b 0", "b 1000"}
    np.testing.assert_array_equal(found["b 1000"], files.voxels(2))


def test_parts_of_a_complex_image_are_volumes_of_their_own(files):
    paths = []
    for seed, part in enumerate("MP"):
        paths += files.write(part, files.voxels(seed), ImageType=["ORIGINAL", "PRIMARY", part, "ND"])
    found = labelled(paths)
    assert set(found) == {"part M", "part P"}
    np.testing.assert_array_equal(found["part P"], files.voxels(1))


def test_the_image_component_of_ge_tells_parts_apart(files):
    paths = []
    for seed, component in enumerate((0, 1)):
        written = files.write(str(seed), files.voxels(seed))
        files.edit(written, private_b("GEMS_PARM_01", 0x0043, 0x2F, "SS", component))
        paths += written
    assert set(labelled(paths)) == {"part M", "part P"}


def time_series(files, number_of, **more):
    """Three volumes, instance numbers by (time, slice)."""
    paths = []
    for time in range(3):
        numbers = partial(number_of, time)
        fields = {name: value(time) for name, value in more.items()}
        paths += files.write(f"t{time}", files.voxels(time), InstanceNumber=numbers, **fields)
    np.random.default_rng(1).shuffle(paths)
    return paths


@pytest.mark.parametrize(
    ("number_of", "more", "word"),
    [
        (lambda time, place: 1, {"TemporalPositionIdentifier": lambda time: time + 1}, "time"),
        (lambda time, place: place + 1, {"AcquisitionNumber": lambda time: 10 + time}, "time"),
        (lambda time, place: 6 * time + place + 1, {}, "repeat"),
        (lambda time, place: 6 * time + (5 - place) + 1, {}, "repeat"),
        (lambda time, place: 40 * place + time + 1, {}, "repeat"),
    ],
    ids=["temporal position", "acquisition", "volume after volume", "downward", "slice after slice"],
)
def test_a_time_series_is_split_in_order(files, number_of, more, word):
    found = labelled(time_series(files, number_of, **more))
    assert sorted(found) == [f"{word} {number}" for number in (1, 2, 3)]
    for time in range(3):
        np.testing.assert_array_equal(found[f"{word} {time + 1}"], files.voxels(time))


def test_time_and_b_value_make_one_label(files):
    paths = []
    for time in range(2):
        for b in (0, 500):
            name = f"{time}{b}"
            paths += files.write(
                name, files.voxels(time + b), DiffusionBValue=float(b), TemporalPositionIdentifier=time
            )
    found = labelled(paths)
    assert set(found) == {"b 0; time 1", "b 0; time 2", "b 500; time 1", "b 500; time 2"}
    np.testing.assert_array_equal(found["b 500; time 2"], files.voxels(501))


def test_repeats_that_nothing_tells_apart_are_refused_not_interleaved(files, refusal):
    error = refusal(time_series(files, lambda time, place: 1))
    assert error.reason == "DUPLICATE_POSITION"
    assert error.found.startswith("18 images at 6 positions")


def test_repeats_numbered_in_no_order_are_refused(files, refusal):
    order = iter(np.random.default_rng(5).permutation(18).tolist())
    assert refusal(time_series(files, lambda time, place: next(order))).reason == "DUPLICATE_POSITION"


def test_identical_copies_are_dropped_even_under_other_uids(files):
    paths = files.write("a", files.voxels(4)) + files.write("b", files.voxels(4))
    (scan,) = read_dicom_volumes(paths)
    np.testing.assert_array_equal(scan.voxels, files.voxels(4))


def test_a_volume_of_a_time_series_that_lacks_a_slice_is_refused_and_the_others_stay(files):
    paths = sorted(time_series(files, lambda time, place: place, TemporalPositionIdentifier=lambda time: time))
    del paths[-1]  # the last slice of the last volume, where no gap could tell
    grouping = group_files(paths)
    assert [plan.label for plan in grouping.plans] == ["time 1", "time 2"]
    (refused,) = grouping.refused
    assert refused.error.reason == "MISSING_SLICE"
    assert refused.error.found == "5 slices, where other volumes of the series have 6"
    assert len(refused.paths) == 5


def test_the_last_volume_of_a_scan_that_was_stopped_is_refused_by_itself(files):
    paths = sorted(time_series(files, lambda time, place: 6 * time + place))
    grouping = group_files(paths[:-2])
    assert [plan.label for plan in grouping.plans] == ["repeat 1", "repeat 2"]
    assert [item.error.found for item in grouping.refused] == ["4 slices, where other volumes of the series have 6"]


def test_images_of_one_place_over_and_over_are_no_volume(files):
    paths = [
        path
        for time in range(4)
        for path in files.write(f"t{time}", files.voxels(time, (7, 5, 1)), AcquisitionNumber=time)
    ]
    grouping = group_files(paths)
    assert grouping.plans == ()
    (refused,) = grouping.refused
    assert (refused.error.reason, refused.error.found, len(refused.paths)) == (
        "NOT_A_VOLUME",
        "4 images of one position",
        4,
    )


def test_planes_of_different_orientation_matrix_or_spacing_are_stacks_of_their_own(files):
    turned = np.array([[0, 0, 3.0, -10], [-0.7, 0, 0, 5], [0, -1.1, 0, 7], [0, 0, 0, 1]])
    finer = files.affine @ np.diag([0.5, 0.5, 1, 1])
    paths = files.write("a") + files.write("b", affine=turned) + files.write("c", affine=finer)
    paths += files.write("d", files.voxels(1, (9, 5, 6)))
    scans = read_dicom_volumes(paths)
    assert [scan.facts.volume_label for scan in scans] == ["stack 1", "stack 2", "stack 3", "stack 4"]
    for scan, affine in zip(scans, (files.affine, turned, finer, files.affine), strict=True):
        np.testing.assert_allclose(scan.geometry.affine, affine, atol=1e-9)


def test_one_series_uid_of_two_patients_makes_two_volumes(files):
    paths = files.write("a", files.voxels(1)) + files.write("b", files.voxels(2), PatientID="Q")
    scans = read_dicom_volumes(paths)
    assert {scan.facts.patient_id for scan in scans} == {"P", "Q"}


@pytest.mark.parametrize(
    ("image_type", "reason"),
    [
        (["ORIGINAL", "PRIMARY", "LOCALIZER"], "LOCALIZER"),
        (["ORIGINAL", "PRIMARY", "LOCALIZER", "CT_SOM5 TOP"], "LOCALIZER"),
        (["DERIVED", "SECONDARY", "OTHER", "CT_SOM5 PROT"], "DOSE_REPORT"),
    ],
)
def test_planning_views_and_pages_are_left_out_in_one_row(files, image_type, reason):
    grouping = group_files(files.write("a", modality="CT", ImageType=image_type))
    assert grouping.plans == ()
    assert [(item.error.reason, len(item.paths)) for item in grouping.refused] == [(reason, 6)]


def test_derived_images_are_left_out_by_setting_and_flagged_where_kept(files):
    paths = files.write("a", ImageType=["DERIVED", "SECONDARY", "MPR"])
    skipped = group_files(paths, DicomPolicy(derived="skip"))
    assert [(item.error.reason, len(item.paths)) for item in skipped.refused] == [("DERIVED", 6)]
    assert read_dicom_series(paths, DicomPolicy(derived="keep")).facts.flags == ("DERIVED",)


def test_lossy_compression_alone_does_not_make_an_image_derived(files):
    paths = files.write("a", ImageType=["DERIVED", "PRIMARY", "AXIAL"], LossyImageCompression="01")
    assert read_dicom_series(paths, DicomPolicy(derived="skip")).facts.flags == ("LOSSY",)


@pytest.mark.parametrize(
    ("values", "reason", "found"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.67"}, "DOSE_REPORT", "X-Ray Radiation Dose SR Storage"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.2"}, "NOT_AN_IMAGE", "RT Dose Storage"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1"}, "NOT_AN_IMAGE", "Grayscale Softcopy Presentation State"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "SECONDARY_CAPTURE", "Secondary Capture Image Storage"),
        ({"SOPClassUID": "1.3.46.670589.7.8.1618510092"}, "NOT_AN_IMAGE", "an object of a class outside the standard"),
        ({"Modality": "PT"}, "UNSUPPORTED_MODALITY", "modality PT"),
        ({"Modality": "CT"}, "MODALITY_CONFLICT", "modality CT in an object of class MR"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "UNSUPPORTED_COLOR", "3 samples a pixel"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "UNSUPPORTED_COLOR", "1 samples a pixel"),
        ({"ImageOrientationPatient": [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]}, "BAD_ORIENTATION", "1.0, 0.0, 0.0, 1.0"),
        ({"PixelSpacing": [0, 1]}, "BAD_GEOMETRY", "pixels of 0 x 1 mm"),
        ({"PixelSpacing": None}, "MISSING_GEOMETRY", "no usable PixelSpacing"),
        ({"BitsAllocated": 64}, "UNSUPPORTED_PIXELS", "of 64"),
        ({"HighBit": 3}, "UNSUPPORTED_PIXELS", "16 bits stored up to bit 3 of 16"),
        ({"Rows": 0}, "NOT_AN_IMAGE", "MR Image Storage without rows or columns"),
    ],
)
def test_what_is_no_volume_is_named_for_what_it_is(files, values, reason, found):
    grouping = group_files(files.write("a", **values))
    assert grouping.plans == ()
    (refused,) = grouping.refused
    assert refused.error.reason == reason
    assert found in refused.error.found
    assert len(refused.paths) == 6


@pytest.mark.parametrize(
    ("uid", "kind"),
    [("1.2.840.10008.5.1.4.1.1.66.4", "segmentation"), ("1.2.840.10008.5.1.4.1.1.481.3", "structure_set")],
)
def test_structures_are_handed_over(files, uid, kind):
    grouping = group_files(files.write("a", SOPClassUID=uid)[:1])
    assert (grouping.plans, grouping.refused) == ((), ())
    assert [header.kind for _, header in grouping.structures] == [kind]


def test_a_damaged_slice_that_a_copy_replaces_costs_nothing(files):
    paths = files.write("a")
    copies = [path.with_suffix(".copy") for path in paths]
    for path, copy in zip(paths, copies, strict=True):
        copy.write_bytes(path.read_bytes())
    paths[2].write_bytes(paths[2].read_bytes()[:-1])
    grouping = group_files(paths + copies)
    assert [(item.paths, item.error.reason) for item in grouping.refused] == [((paths[2],), "TRUNCATED")]
    assert len(grouping.plans) == 1
    assert len(grouping.plans[0].paths) == 11


def test_the_same_files_make_the_same_plans_in_any_process_order(files):
    paths = sorted(time_series(files, lambda time, place: 6 * time + place))
    assert group_files(paths) == group_files(list(paths))
    first = {plan.label: set(plan.paths) for plan in group_files(paths).plans}
    assert first == {plan.label: set(plan.paths) for plan in group_files(paths[::-1]).plans}


def test_no_text_of_the_header_reaches_a_label_or_a_refusal(files):
    name = "DOE_JANE"
    paths = files.write("a", ImageType=["ORIGINAL", "PRIMARY", name]) + files.write("b", files.voxels(2))
    for plan in group_files(paths).plans:
        assert plan.label in {"type 1", "type 2"}
    for refused in group_files(files.write("c", Modality=name)).refused:
        assert refused.error.reason == "UNSUPPORTED_MODALITY"  # `allow_list.without_free_text` cuts the term off


def test_headers_survive_json(files):
    (path, *_) = files.write("a", modality="CT", GantryDetectorTilt=2.5)
    files.edit([path], lambda item: item.add_new("PixelPaddingValue", "SS", -5))
    header = read_header(path)
    assert header.pixels.padding == (-5, -5)
    assert decoded(json.loads(json.dumps(encoded(header, str))), {}) == header
