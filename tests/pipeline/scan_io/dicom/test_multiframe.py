"""Enhanced MR and CT made by the test from a classic series: the same volumes, frame by frame."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from pipeline.scan_io import read_dicom_series, read_dicom_volumes, uid_from

CLASSES = {"MR": "1.2.840.10008.5.1.4.1.1.4.1", "CT": "1.2.840.10008.5.1.4.1.1.2.1"}


def item(**values):
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, Sequence([value]) if isinstance(value, Dataset) else value)
    return made


def group(frame, shared, content=None, extra=None):
    """Functional groups of one classic slice: what is shared stays out of the frame's own."""
    own = item(PlanePositionSequence=item(ImagePositionPatient=frame.ImagePositionPatient))
    if not shared:
        own.PlaneOrientationSequence = Sequence([item(ImageOrientationPatient=frame.ImageOrientationPatient)])
        own.PixelMeasuresSequence = Sequence([item(PixelSpacing=frame.PixelSpacing)])
    if "RescaleSlope" in frame:
        rescale = item(RescaleSlope=frame.RescaleSlope, RescaleIntercept=frame.RescaleIntercept, RescaleType="US")
        own.PixelValueTransformationSequence = Sequence([rescale])
    if content:
        own.FrameContentSequence = Sequence([item(**content)])
    for name, value in (extra or {}).items():
        setattr(own, name, Sequence([item(**value)]))
    return own


def enhanced(folder, classic, *, shared=True, order=None, content=None, extra=None, syntax=None):
    """One file of all slices; ``content`` and ``extra`` give values of a frame by its number in the file."""
    frames = [pydicom.dcmread(path) for path in classic]
    order = list(range(len(frames))) if order is None else order
    made = Dataset()
    for element in frames[0]:
        if element.keyword not in ("PixelData", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
            made.add(element)
    for name in ("RescaleSlope", "RescaleIntercept", "RescaleType", "AcquisitionNumber"):
        if name in made:
            delattr(made, name)
    made.SOPClassUID = CLASSES[str(made.Modality)]
    made.SOPInstanceUID = uid_from("enhanced", str(folder))
    made.NumberOfFrames = len(frames)
    made.SharedFunctionalGroupsSequence = Sequence([Dataset()])
    if shared:
        made.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence = Sequence(
            [item(ImageOrientationPatient=frames[0].ImageOrientationPatient)]
        )
        made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = Sequence(
            [item(PixelSpacing=frames[0].PixelSpacing)]
        )
    made.PerFrameFunctionalGroupsSequence = Sequence(
        [
            group(frames[index], shared, content and content(number), extra and extra(number))
            for number, index in enumerate(order)
        ]
    )
    made.PixelData = b"".join(frames[index].PixelData for index in order)
    made["PixelData"].VR = "OW"
    made.file_meta = frames[0].file_meta
    made.file_meta.MediaStorageSOPClassUID, made.file_meta.MediaStorageSOPInstanceUID = (
        made.SOPClassUID,
        made.SOPInstanceUID,
    )
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = folder / "enhanced.dcm"
    folder.mkdir(exist_ok=True)
    made.save_as(path, enforce_file_format=True)
    if syntax is not None:
        written = pydicom.dcmread(path)
        written.compress(syntax, generate_instance_uid=False)
        written.save_as(path)
    return path


@pytest.mark.parametrize("modality", ["MR", "CT"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("syntax", [None, RLELossless])
def test_enhanced_equals_its_classic_twin_whatever_the_order_of_frames(files, modality, shared, syntax):
    fields = {"RescaleIntercept": lambda k: str(k)} if modality == "CT" else {}
    classic = files.write("classic", files.voxels(), modality, **fields)
    order = [3, 0, 5, 1, 4, 2]
    path = enhanced(files.root / "enhanced", classic, shared=shared, order=order, syntax=syntax)
    twin, scan = read_dicom_series(classic), read_dicom_series([path])
    np.testing.assert_array_equal(scan.voxels, twin.voxels)
    np.testing.assert_array_equal(scan.geometry.affine, twin.geometry.affine)
    assert (scan.modality, scan.facts.patient_id, scan.facts.volume_label) == (modality, "P", None)
    assert scan.facts.sop_instance_uids == (uid_from("enhanced", str(path.parent)),) * 6


def two_series(files):
    classic = files.write("a", files.voxels(1)) + files.write("b", files.voxels(2))
    return classic, {1: files.voxels(1), 2: files.voxels(2)}


@pytest.mark.parametrize(
    ("content", "extra", "labels"),
    [
        (lambda n: {"TemporalPositionIndex": 1 + n // 6, "StackID": "1"}, None, "time {}"),
        (None, lambda n: {"MREchoSequence": {"EffectiveEchoTime": 20.0 * (1 + n // 6)}}, "echo {}"),
        (None, lambda n: {"MRDiffusionSequence": {"DiffusionBValue": 500.0 * (1 + n // 6)}}, "b {}"),
        (
            None,
            lambda n: {"MRImageFrameTypeSequence": {"FrameType": ["ORIGINAL", "PRIMARY", "T1", "NONE"],
                       "ComplexImageComponent": ("MAGNITUDE", "PHASE")[n // 6]}},
            "part {}",
        ),
        (None, None, "repeat {}"),
        (lambda n: {"StackID": str(1 + n // 6)}, None, "stack {}"),
    ],
    ids=["time", "echo", "b", "part", "order", "stack"],
)  # fmt: skip
def test_frames_of_several_volumes_are_told_apart(files, content, extra, labels):
    classic, truth = two_series(files)
    path = enhanced(files.root / "enhanced", classic, content=content, extra=extra)
    names = {"b {}": ("500", "1000"), "part {}": ("M", "P")}.get(labels, ("1", "2"))
    found = {scan.facts.volume_label: scan.voxels for scan in read_dicom_volumes([path])}
    assert set(found) == {labels.format(name) for name in names}
    for number, name in enumerate(names, start=1):
        np.testing.assert_array_equal(found[labels.format(name)], truth[number])


def test_frames_without_place_are_refused(files, refusal):
    path = enhanced(files.root / "enhanced", files.write("a"))

    def lose(made):
        del made.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence

    files.edit([path], lose)
    error = refusal([path])
    assert (error.reason, error.found) == ("MISSING_GEOMETRY", "no usable ImagePositionPatient")


def test_fewer_groups_than_frames_are_refused(files, refusal):
    path = enhanced(files.root / "enhanced", files.write("a"))
    files.edit([path], lambda made: made.PerFrameFunctionalGroupsSequence.pop())
    assert refusal([path]).found == "6 frames with 5 functional groups"


def test_a_frame_cut_off_the_end_is_truncation(files, refusal):
    path = enhanced(files.root / "enhanced", files.write("a"))
    files.edit([path], lambda made: setattr(made, "PixelData", made.PixelData[:-10]))
    error = refusal([path])
    assert (error.reason, error.found) == ("TRUNCATED", "410 of 420 bytes of pixel data")
