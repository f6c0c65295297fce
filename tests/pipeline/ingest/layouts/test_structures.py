"""Segmentations and structure sets beside the series that they are drawn on, from files to catalog."""

import os
import shutil
import warnings
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from highdicom.seg import Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid

from pipeline.scan_io import write_dicom_series
from pipeline.scan_io.dicom_write import Acquisition

REAL = os.environ.get("SCANLOOM_TEST_DATA")
ANGLE = np.deg2rad(20)
OBLIQUE = np.array(
    [
        [-1.5 * np.cos(ANGLE), 0, 4 * np.sin(ANGLE), 20.0],
        [0, -1.5, 0, 30.0],
        [1.5 * np.sin(ANGLE), 0, 4 * np.cos(ANGLE), -50.0],
        [0, 0, 0, 1],
    ]
)
SHAPE = (12, 10, 5)


@pytest.fixture
def series(inputs):
    """An oblique CT; its images in the order of k."""
    paths = _written(inputs.root / "ct", inputs.voxels(shape=SHAPE), OBLIQUE, "CT", inputs.identity())
    images = [pydicom.dcmread(path) for path in paths]
    normal = OBLIQUE[:3, 2] * (-1, -1, 1)
    return sorted(images, key=lambda image: float(np.dot(image.ImagePositionPatient, normal)))


def _written(folder, voxels, affine, modality, identity):
    return write_dicom_series(folder, voxels, affine, modality, identity, Acquisition("AX T1", body_part="HEAD"))


def _mask(*boxes):
    """Boxes of voxels, (i, j, k, n)."""
    mask = np.zeros((*SHAPE, len(boxes)), np.uint8)
    for number, (i, j, k) in enumerate(boxes):
        mask[i, j, k, number] = 1
    return mask


BOXES = (np.s_[2:6, 3:8], np.s_[4:9, 5:9])
ONE, TWO = (*BOXES[0], slice(1, 4)), (*BOXES[1], slice(2, 5))


def _described(number, label, code=codes.SCT.Liver):
    return SegmentDescription(number, label, codes.SCT.Organ, code, hd.seg.SegmentAlgorithmTypeValues.MANUAL)


def _segmentation(path, images, mask, kind="BINARY", descriptions=None, order=None, **changes):
    """Write ``mask`` (i, j, k, n) as a segmentation of images in the order of k."""
    pixels = mask.transpose(2, 1, 0, 3)
    count = mask.shape[3]
    if kind == "LABELMAP":
        pixels = (pixels * np.arange(1, count + 1)).max(axis=3).astype(np.uint8)
    elif kind == "FRACTIONAL":
        pixels = pixels.astype(np.float32) * 0.75
    if order is not None:
        images, pixels = [images[place] for place in order], pixels[order]
    with warnings.catch_warnings(action="ignore"):
        made = Segmentation(
            images, pixels, SegmentationTypeValues[kind],
            descriptions or [_described(number, f"JANE DOE {number}") for number in range(1, count + 1)],
            generate_uid(), 9, generate_uid(), 1, "maker", "model", "1", "0", omit_empty_frames=True,
            max_fractional_value=200, **changes,
        )  # fmt: skip
    made.save_as(path)
    return made


def _structure_set(path, images, contours, names=("GTV JANE DOE",), kind="CLOSED_PLANAR", refer=True):
    """Write contours {ROI: [(k, points (n, 2) as i, j)]} as a structure set."""
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.481.3", generate_uid()
    made.Modality, made.StudyInstanceUID, made.SeriesInstanceUID = "RTSTRUCT", images[0].StudyInstanceUID, "1.2.3"
    made.PatientID, made.PatientName = images[0].PatientID, "DOE^JANE"
    series = Dataset()
    series.SeriesInstanceUID = images[0].SeriesInstanceUID
    series.ContourImageSequence = Sequence([_named(image) for image in images] if refer else [])
    study, frame = Dataset(), Dataset()
    study.RTReferencedSeriesSequence = Sequence([series])
    frame.FrameOfReferenceUID = images[0].FrameOfReferenceUID
    frame.RTReferencedStudySequence = Sequence([study])
    made.ReferencedFrameOfReferenceSequence = Sequence([frame])
    made.StructureSetROISequence, made.ROIContourSequence = Sequence(), Sequence()
    for number, name in enumerate(names, start=1):
        listed, drawn = Dataset(), Dataset()
        listed.ROINumber, listed.ROIName = number, name
        drawn.ReferencedROINumber = number
        drawn.ContourSequence = Sequence(_contour(images, k, points, kind, refer) for k, points in contours[number])
        made.StructureSetROISequence.append(listed)
        made.ROIContourSequence.append(drawn)
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.save_as(path, enforce_file_format=True)


def _named(image):
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return item


def _contour(images, k, points, kind, refer):
    index = np.column_stack([points, np.full(len(points), float(k)), np.ones(len(points))])
    item = Dataset()
    item.ContourGeometricType = kind
    item.ContourData = [f"{value:.4f}" for value in ((index @ OBLIQUE.T)[:, :3] * (-1, -1, 1)).ravel()]
    item.NumberOfContourPoints = len(points)
    if refer and 0 <= k < len(images) and k == int(k):
        item.ContourImageSequence = Sequence([_named(images[int(k)])])
    return item


def _box_contours(i, j, k):
    low, high = (i.start - 0.5, j.start - 0.5), (i.stop - 0.5, j.stop - 0.5)
    points = np.array([low, (high[0], low[1]), high, (low[0], high[1])])
    return [(float(place), points) for place in range(k.start, k.stop)]


def _lesions(result):
    """Class → mask, (i, j, k), and the affine of the first."""
    found, affines = {}, []
    for row in result.catalog.lesions.to_dicts():
        image = nib.load(result.catalog.folder / row["mask_path"])
        found[row["lesion_class"]] = np.asarray(image.dataobj) == row["mask_value"]
        affines.append(image.affine)
        assert row["volume_mm3"] == pytest.approx(found[row["lesion_class"]].sum() * 9.0, rel=1e-4)
    assert all(np.allclose(affine, OBLIQUE, atol=1e-3) for affine in affines)
    return found


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_segments_of_every_kind_come_onto_the_series_by_position(inputs, run_ingest, series, kind, syntax):
    if (kind, syntax) == ("BINARY", RLELossless):
        pytest.skip("bits are not stored as RLE")
    overlap = TWO if kind != "LABELMAP" else (slice(6, 9), *TWO[1:])
    mask = _mask(ONE, overlap)
    both = [_described(1, "a"), _described(2, "b", codes.SCT.Kidney)]
    order = [3, 0, 4, 2, 1]
    _segmentation(inputs.root / "s.dcm", series, mask, kind, both, order, transfer_syntax_uid=syntax)
    result = run_ingest()
    assert result.reasons() == []
    found = _lesions(result)
    np.testing.assert_array_equal(found["Liver"], mask[..., 0] == 1)
    np.testing.assert_array_equal(found["Kidney"], mask[..., 1] == 1)


def test_frames_in_another_order_and_turned_planes_give_the_same_voxels(inputs, run_ingest, series):
    mask = _mask(ONE)
    made = _segmentation(inputs.root / "s.dcm", series, mask)
    frames = made.pixel_array
    made.PerFrameFunctionalGroupsSequence = made.PerFrameFunctionalGroupsSequence[::-1]
    turned = frames[::-1, ::-1, :]  # the last row first
    made.PixelData = np.packbits(turned.ravel(), bitorder="little").tobytes()
    made.PixelData += b"\0" * (len(made.PixelData) % 2)
    orientation = made.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    down = np.array(orientation.ImageOrientationPatient[3:], float)
    orientation.ImageOrientationPatient[3:] = [-value for value in orientation.ImageOrientationPatient[3:]]
    for item in made.PerFrameFunctionalGroupsSequence:
        place = item.PlanePositionSequence[0]
        moved = np.array(place.ImagePositionPatient, float) + down * 1.5 * (SHAPE[1] - 1)
        place.ImagePositionPatient = [f"{value:.6f}" for value in moved]
    made.save_as(inputs.root / "s.dcm")
    np.testing.assert_array_equal(_lesions(run_ingest())["Liver"], mask[..., 0] == 1)


def test_classes_come_from_the_mapping_or_from_our_dictionary_never_from_free_text(inputs, run_ingest, series):
    local = pydicom.sr.coding.Code("JD1", "99LOCAL", "Jane Doe's tumor")
    both = [_described(1, "JANE DOE"), _described(2, "GTV of JANE", local)]
    _segmentation(inputs.root / "s.dcm", series, _mask(ONE, TWO), descriptions=both)
    plain = run_ingest()
    assert set(_lesions(plain)) == {"Liver"}
    (row,) = plain.catalog.quarantine.to_dicts()
    assert (row["reason"], row["found"][:6]) == ("UNMAPPED_STRUCTURE", "1 of 2")
    assert "JANE" not in str(plain.catalog.quarantine.to_dicts()) + str(plain.catalog.lesions.to_dicts()).upper()
    by_label = run_ingest(workspace="b", lesion_classes={"gtv*": "tumor"})
    by_code = run_ingest(workspace="c", lesion_classes={"99local:jd1": "tumor"})
    for mapped in (by_label, by_code):
        np.testing.assert_array_equal(_lesions(mapped)["tumor"], _mask(TWO)[..., 0] == 1)
        assert (len(mapped.catalog.lesions), mapped.reasons()) == (1, [])
    assert run_ingest(workspace="d", lesion_classes={"none": "tumor"}).reasons() == ["UNMAPPED_STRUCTURE"]


def _shifted(made, amount_mm):
    for item in made.PerFrameFunctionalGroupsSequence:
        place = item.PlanePositionSequence[0]
        normal = OBLIQUE[:3, 2] / 4 * (-1, -1, 1)
        moved = np.array(place.ImagePositionPatient, float) + normal * amount_mm
        place.ImagePositionPatient = [f"{value:.6f}" for value in moved]


@pytest.mark.parametrize(
    ("change", "reason", "found"),
    [
        (lambda made: _shifted(made, 2.0), "MASK_GRID_MISMATCH", "2 mm beside"),
        (lambda made: _shifted(made, 12.0), "OUTSIDE_GRID", "8 mm beyond"),
        (
            lambda made: setattr(
                made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0], "PixelSpacing", ["1.5", "3"]
            ),
            "MASK_GRID_MISMATCH",
            "3 x 1.5 mm pixels",
        ),
        (
            lambda made: setattr(
                made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0], "PixelSpacing", ["1.5", "1.56"]
            ),
            "MASK_GRID_MISMATCH",
            "mm beside",
        ),
        (
            lambda made: setattr(
                made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0], "SpacingBetweenSlices", 8
            ),
            "MASK_GRID_MISMATCH",
            "8 mm apart on slices 4 mm apart",
        ),
        (lambda made: setattr(made, "PixelData", made.PixelData[:20]), "TRUNCATED", "20 of 45 bytes"),
        (lambda made: setattr(made, "NumberOfFrames", 4), "FRAME_COUNT", "4 frames"),
        (lambda made: setattr(made, "Rows", 0), "PIXEL_CLAIM", "0 x 12"),
        (
            lambda made: setattr(
                made.PerFrameFunctionalGroupsSequence[0], "PlanePositionSequence",
                made.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence,
            ),
            "REPEATED_FRAMES",
            "one place",
        ),
        (lambda made: setattr(made, "SegmentSequence", Sequence()), "EMPTY_STRUCTURE_SET", "no segment"),
        (lambda made: setattr(made, "TotalPixelMatrixRows", 10), "UNSUPPORTED_SEGMENTATION", "of a slide"),
    ],
    ids="between outside pixels drift gaps truncated frames rows repeated segments slide".split(),  # noqa: SIM905
)  # fmt: skip
def test_a_segmentation_with_a_fault_is_refused_with_numbers(inputs, run_ingest, series, change, reason, found):
    made = _segmentation(inputs.root / "s.dcm", series, _mask(ONE))
    with warnings.catch_warnings(action="ignore"):
        change(made)
        made.save_as(inputs.root / "s.dcm")
    result = run_ingest()
    (row,) = result.catalog.quarantine.to_dicts()
    assert (row["reason"], len(result.catalog.lesions)) == (reason, 0)
    assert found in row["found"]


def test_a_segmentation_of_another_series_fits_by_frame_of_reference_where_one_grid_matches(inputs, run_ingest, series):
    _segmentation(inputs.root / "s.dcm", series, _mask(ONE))
    shutil.rmtree(inputs.root / "ct")
    twin = inputs.identity(name="twin")
    _written(inputs.root / "mr", np.abs(inputs.voxels(1, SHAPE)), OBLIQUE, "MR", twin)
    other = OBLIQUE.copy()
    other[:3, 3] += 0.7
    _written(inputs.root / "ct2", inputs.voxels(2, SHAPE), other, "CT", inputs.identity(name="other"))
    result = run_ingest()
    np.testing.assert_array_equal(_lesions(result)["Liver"], _mask(ONE)[..., 0] == 1)
    (row,) = [row for row in result.catalog.series.to_dicts() if row["modality"] == "MR"]
    assert result.catalog.lesions["series_id"].to_list() == [row["series_id"]]
    _written(inputs.root / "ct3", inputs.voxels(3, SHAPE), OBLIQUE, "CT", inputs.identity(name="third"))
    assert run_ingest(workspace="b").reasons() == ["AMBIGUOUS_REFERENCE"]


def test_contours_come_onto_the_series_and_stay_apart_where_they_overlap(inputs, run_ingest, series):
    names = ("GTV JANE", "Kidney", "Couch")
    contours = {1: _box_contours(*ONE), 2: _box_contours(*TWO), 3: [(99.0, np.zeros((4, 2)))]}
    _structure_set(inputs.root / "rs.dcm", series, contours, names)
    result = run_ingest(lesion_classes={"gtv*": "tumor", "kidney": "organ"})
    assert result.reasons() == []
    found = _lesions(result)
    np.testing.assert_array_equal(found["tumor"], _mask(ONE)[..., 0] == 1)
    np.testing.assert_array_equal(found["organ"], _mask(TWO)[..., 0] == 1)
    assert "JANE" not in str(result.catalog.lesions.to_dicts())
    unmapped = run_ingest(workspace="b")
    (row,) = unmapped.catalog.quarantine.to_dicts()
    assert (row["reason"], row["found"][:12], len(unmapped.catalog.lesions)) == (
        "UNMAPPED_STRUCTURE",
        "3 structures",
        0,
    )


def test_contours_that_name_no_image_fit_by_their_planes(inputs, run_ingest, series):
    _structure_set(inputs.root / "rs.dcm", series, {1: _box_contours(*ONE)}, refer=False)
    found = _lesions(run_ingest(lesion_classes={"*": "tumor"}))
    np.testing.assert_array_equal(found["tumor"], _mask(ONE)[..., 0] == 1)


@pytest.mark.parametrize(
    ("contours", "kind", "reasons"),
    [
        ({1: [(1.5, np.array([[2, 2], [5, 2], [5, 5.0]]))]}, "CLOSED_PLANAR", ["CONTOUR_OFF_SLICE"]),
        ({1: [(7.0, np.array([[2, 2], [5, 2], [5, 5.0]]))]}, "CLOSED_PLANAR", ["OUTSIDE_GRID"]),
        ({1: [(1.0, np.array([[2, 2], [5, 2], [50, 5.0]]))]}, "CLOSED_PLANAR", ["OUTSIDE_GRID"]),
        ({1: [(1.0, np.array([[2, 2], [5, 2], [5, 5.0]]))]}, "OPEN_PLANAR", ["NO_CLOSED_CONTOUR"]),
        ({1: [(1.0, np.array([[2, 2.0]]))]}, "POINT", ["NO_CLOSED_CONTOUR"]),
        ({1: []}, "CLOSED_PLANAR", ["EMPTY_STRUCTURE_SET"]),
        ({1: [*_box_contours(*ONE), (1.0, np.array([[2, 2.0]]))]}, "CLOSED_PLANAR", ["OPEN_CONTOUR"]),
    ],
)
def test_contours_with_a_fault_are_refused(inputs, run_ingest, series, contours, kind, reasons):
    _structure_set(inputs.root / "rs.dcm", series, contours, kind=kind)
    result = run_ingest(lesion_classes={"*": "tumor"})
    assert result.reasons() == reasons
    assert len(result.catalog.lesions) == (reasons == ["OPEN_CONTOUR"])


def test_structures_of_a_series_that_is_not_there_are_refused_with_counts(inputs, run_ingest, series):
    _structure_set(inputs.root / "rs.dcm", series, {1: _box_contours(*ONE)})
    shutil.rmtree(inputs.root / "ct")
    inputs.dicom("other", 1)
    result = run_ingest(lesion_classes={"*": "tumor"})
    (row,) = result.catalog.quarantine.to_dicts()
    assert (row["reason"], row["found"][:21]) == ("MISSING_REFERENCE", "5 images in 1 series ")


def test_broken_coordinates_cost_their_region_alone_and_nothing_where_it_is_not_wanted(inputs, run_ingest, series):
    path = inputs.root / "rs.dcm"
    _structure_set(path, series, {1: _box_contours(*ONE), 2: _box_contours(*TWO)}, ("GTV", "Couch"))
    made = pydicom.dcmread(path)
    contour = made.ROIContourSequence[1].ContourSequence[0]
    contour.ContourData = contour.ContourData[:-1]
    made.save_as(path)
    assert run_ingest(lesion_classes={"GTV": "tumor"}).reasons() == []
    result = run_ingest(workspace="b", lesion_classes={"*": "tumor"})
    (row,) = result.catalog.quarantine.to_dicts()
    assert (row["reason"], row["found"][:21]) == ("MALFORMED_CONTOUR", "1 of 2 structures: a ")
    np.testing.assert_array_equal(_lesions(result)["tumor"], _mask(ONE)[..., 0] == 1)


def test_a_structure_that_fits_nowhere_does_not_decide_between_two_volumes(inputs, run_ingest, series):
    _written(inputs.root / "mr", np.abs(inputs.voxels(1, SHAPE)), OBLIQUE, "MR", inputs.identity(name="twin"))
    between = [(1.5, np.array([[2, 2], [5, 2], [5, 5.0]]))]
    path = inputs.root / "rs.dcm"
    _structure_set(path, series, {1: _box_contours(*ONE), 2: between}, ("GTV", "CTV"), refer=False)
    made = pydicom.dcmread(path)
    del made.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence
    made.save_as(path)
    assert run_ingest(lesion_classes={"*": "tumor"}).reasons() == ["AMBIGUOUS_REFERENCE"]


needs_real = pytest.mark.skipif(REAL is None, reason="SCANLOOM_TEST_DATA names no folder of real data")


@needs_real
@pytest.mark.real_data
def test_real_segmentations_equal_what_highdicom_reads_of_them(run_ingest):
    source = Path(REAL or "") / "dicom_odd/dcmqi/segmentations"
    result = run_ingest(source)
    assert result.reasons() == []
    expected = {}
    with warnings.catch_warnings(action="ignore"):
        for name in ("liver.dcm", "partial_overlaps.dcm", "24x38x3/seg/label.seg", "23x38x3/seg/label.seg"):
            read = hd.seg.segread(source / name)
            for number in read.segment_numbers:
                volume = read.get_volume(segment_numbers=[number])
                expected[name, number] = int(volume.array.sum()) * float(np.prod(volume.spacing))
    assert sorted(result.catalog.lesions["volume_mm3"]) == pytest.approx(sorted(expected.values()), rel=1e-4)
    assert result.catalog.lesions["lesion_class"].to_list().count("Liver") == 3


@needs_real
@pytest.mark.real_data
def test_real_structure_sets_are_drawn_or_refused_for_their_fault(run_ingest):
    result = run_ingest(Path(REAL or "") / "rtstruct", min_slices=1, lesion_classes={"ROI-*": "roi"})
    refused = [row for row in result.catalog.quarantine.to_dicts() if row["reason"] == "MISSING_REFERENCE"]
    assert [row["found"][:49] for row in refused] == ["4 of 4 structures: 1 of 3 contours on images that"] * 2
    assert "DUPLICATE_STRUCTURES" in result.reasons()  # two of the four files are one
    (row,) = result.catalog.lesions.to_dicts()
    mask = np.asarray(nib.load(result.catalog.folder / row["mask_path"]).dataobj) == row["mask_value"]
    square = 24.0**2  # from -51 to -27 mm, with an octagon as hole
    octagon = 16.0**2 - 4 * 0.5
    assert mask[:, :, 1].sum() == 0
    assert row["volume_mm3"] / 5.0 == pytest.approx(square - octagon, abs=(4 * 24 + 4 * 16) * 0.25)


def _rows(inputs, *rows):
    inputs.text("lesions.csv", "mask_path,image_path,structure,lesion_class\n" + "\n".join(rows) + "\n")


def test_a_table_names_segments_and_regions_by_number_or_name_and_alone_decides(inputs, run_ingest, series):
    _segmentation(inputs.root / "s.dcm", series, _mask(ONE, TWO), descriptions=[_described(1, "a"), _described(2, "B")])
    boxes = {1: _box_contours(*TWO), 2: _box_contours(*ONE), 3: _box_contours(*ONE)}
    _structure_set(inputs.root / "rs.dcm", series, boxes, ("GTV JANE", "3", "Couch"))
    _rows(inputs, "s.dcm,ct,2,second", "s.dcm,ct, A ,first", "rs.dcm,ct/0001.dcm,gtv jane,tumor", "rs.dcm,ct,3,couch")
    result = run_ingest(lesion_classes={"*": "other"})
    assert result.reasons() == []
    found = _lesions(result)
    one, two = _mask(ONE, TWO).transpose(3, 0, 1, 2) == 1
    assert sorted(found) == ["couch", "first", "second", "tumor"]
    for lesion_class, truth in {"first": one, "second": two, "tumor": two, "couch": one}.items():
        np.testing.assert_array_equal(found[lesion_class], truth)


def test_rows_of_structures_and_images_that_are_not_there_are_refused_by_line(inputs, run_ingest, series):
    boxes = {1: _box_contours(*ONE), 2: _box_contours(*TWO)}
    _structure_set(inputs.root / "rs.dcm", series, boxes, ("GTV JANE", "gtv jane"))
    _rows(
        inputs, "rs.dcm,ct,GTV JANE,tumor", "rs.dcm,ct,1,first", "rs.dcm,ct,Liver,liver", "gone.dcm,ct,1,x",
        "rs.dcm,gone,1,x", "ct/0001.dcm,ct,1,x",
    )  # fmt: skip
    result = run_ingest()
    rows = [(row["reason"], row["found"]) for row in result.catalog.quarantine.to_dicts()]
    assert {row for row in rows if row[0] in {"STRUCTURE_ABSENT", "MISSING_REFERENCE"}} == {
        ("STRUCTURE_ABSENT", "line 2: 2 structures of 2 with the number or name that it tells"),
        ("STRUCTURE_ABSENT", "line 4: 0 structures of 2 with the number or name that it tells"),
        ("MISSING_REFERENCE", "line 5: a mask that is not in the input"),
        ("MISSING_REFERENCE", "line 6: an image that is not among the scans"),
    }  # fmt: skip
    assert len(rows) == 5
    np.testing.assert_array_equal(_lesions(result)["first"], _mask(ONE)[..., 0] == 1)


def test_one_structure_of_two_classes_is_refused_though_named_in_two_ways(inputs, run_ingest, series):
    _structure_set(inputs.root / "rs.dcm", series, {1: _box_contours(*ONE)}, ("GTV",))
    _rows(inputs, "rs.dcm,ct,GTV,tumor", "rs.dcm,ct,1,organ")
    result = run_ingest()
    (row,) = result.catalog.quarantine.to_dicts()
    assert row["found"] == "line 3: a structure that an earlier line gives another class"
    assert sorted(_lesions(result)) == ["tumor"]


def test_a_copy_of_a_file_is_drawn_once(inputs, run_ingest, series):
    _segmentation(inputs.root / "s.dcm", series, _mask(ONE))
    shutil.copy(inputs.root / "s.dcm", inputs.root / "t.dcm")
    result = run_ingest()
    assert (result.reasons(), len(result.catalog.lesions)) == (["DUPLICATE_STRUCTURES"], 1)


def test_a_slice_without_contour_between_others_is_left_empty_and_reported(inputs, run_ingest, series):
    kept = [contour for contour in _box_contours(*BOXES[0], slice(0, 5)) if contour[0] != 2]
    _structure_set(inputs.root / "rs.dcm", series, {1: kept, 2: _box_contours(*ONE)}, ("GTV", "CTV"))
    result = run_ingest(lesion_classes={"GTV": "tumor", "CTV": "target"})
    (row,) = result.catalog.quarantine.to_dicts()
    assert (row["reason"], row["found"]) == (
        "CONTOUR_GAP",
        "1 of 2 structures: 1 slices without contour between others",
    )
    assert _lesions(result)["tumor"].any(axis=(0, 1)).tolist() == [True, True, False, True, True]


@pytest.mark.parametrize("kind", ["FRACTIONAL", "BINARY"])
def test_a_segmentation_of_fractions_flags_its_series(inputs, run_ingest, series, kind):
    _segmentation(inputs.root / "s.dcm", series, _mask(ONE), kind)
    inputs.dicom("other", 5)
    rows = run_ingest().catalog.series.to_dicts()
    flagged = sum("MASK_THRESHOLDED" in row["flags"] for row in rows)
    assert (len(rows), flagged) == (2, int(kind == "FRACTIONAL"))


@pytest.mark.parametrize("value", [99, 100])
def test_half_of_the_largest_fraction_is_lesion_and_less_is_not(inputs, run_ingest, series, value):
    made = _segmentation(inputs.root / "s.dcm", series, _mask(ONE), "FRACTIONAL")
    pixels = np.frombuffer(made.PixelData, np.uint8)
    assert (made.MaximumFractionalValue, sorted(set(pixels.tolist()))) == (200, [0, 150])
    made.PixelData = np.where(pixels == 150, np.uint8(value), np.uint8(0)).tobytes()
    made.save_as(inputs.root / "s.dcm")
    assert len(run_ingest().catalog.lesions) == int(value == 100)
