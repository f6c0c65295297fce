"""Odd, old and broken public files, each accepted or refused for what it is.

The reasons were written down from what the files hold (their own README, and a dump of each), one file at a time.
"""

import os
from pathlib import Path

import numpy as np
import pydicom
import pytest

from pipeline.errors import QuarantineError
from pipeline.scan_io import read_dicom_series
from pipeline.scan_io.dicom.grouping import group_headers
from pipeline.scan_io.dicom.read_header import read_header
from pipeline.scan_io.dicom.read_volume import read_volume
from pipeline.scan_io.dicom.volume_plan import DicomPolicy

DATA = Path(os.environ.get("SCANLOOM_TEST_DATA", "/nonexistent")) / "dicom_odd"
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA.is_dir(), reason="SCANLOOM_TEST_DATA names no folder with dicom_odd"),
    pytest.mark.filterwarnings("ignore:::pydicom"),
]

OTHER_MODALITY = "UNSUPPORTED_MODALITY"
EXPECTED = {
    # no DICOM magic after a preamble: these open only by force
    "ExplVR_BigEndNoMeta": "NOT_DICOM",
    "ExplVR_LitEndNoMeta": "NOT_DICOM",
    "OT-PAL-8-face": "NOT_DICOM",
    "no_meta": "NOT_DICOM",
    "rtstruct": "NOT_DICOM",
    # file meta information without the transfer syntax; cut inside an element
    "meta_missing_tsyntax": "MISSING_SYNTAX",
    "rtplan_truncated": "TRUNCATED",
    # plans, doses, reports, and data sets of a few attributes
    "badVR": "NOT_AN_IMAGE",
    "rtdose": "NOT_AN_IMAGE",
    "rtdose_1frame": "NOT_AN_IMAGE",
    "rtdose_expb": "NOT_AN_IMAGE",
    "rtdose_expb_1frame": "NOT_AN_IMAGE",
    "rtdose_rle": "NOT_AN_IMAGE",
    "rtdose_rle_1frame": "NOT_AN_IMAGE",
    "rtplan": "NOT_AN_IMAGE",
    "reportsi": "NOT_AN_IMAGE",
    "reportsi_with_empty_number_tags": "NOT_AN_IMAGE",
    "test-SR": "NOT_AN_IMAGE",
    "empty_charset_LEI": "NOT_AN_IMAGE",
    "nested_priv_SQ": "NOT_AN_IMAGE",
    "no_meta_group_length": "NOT_AN_IMAGE",
    "priv_SQ": "NOT_AN_IMAGE",
    # ultrasound, nuclear medicine, radiography, and test patterns of modality OT
    "ExplVR_BigEnd": OTHER_MODALITY,
    "JPEG-LL": OTHER_MODALITY,
    "JPEG-lossy": OTHER_MODALITY,
    "JPEG2000": OTHER_MODALITY,
    "JPEG2000_UNC": OTHER_MODALITY,
    "JPGLosslessP14SV1_1s_1f_8b": OTHER_MODALITY,
    "OBXXXX1A": OTHER_MODALITY,
    "OBXXXX1A_expb": OTHER_MODALITY,
    "OBXXXX1A_rle": OTHER_MODALITY,
    "OBXXXX1A_rle_2frame": OTHER_MODALITY,
    "RG3_J2KI": OTHER_MODALITY,
    "US1_J2KI": OTHER_MODALITY,
    "US1_J2KR": OTHER_MODALITY,
    "color-pl": OTHER_MODALITY,
    "color-px": OTHER_MODALITY,
    "image_dfl": OTHER_MODALITY,
    "mlut_18": OTHER_MODALITY,
    "vlut_04": OTHER_MODALITY,
    # ImageType begins with DERIVED: reformats, secondary MR, a perfusion map
    "MR-SIEMENS-DICOM-WithOverlays": "DERIVED",
    "MR2_J2KR": "DERIVED",
    "MR_small": "DERIVED",
    "MR_small_RLE": "DERIVED",
    "MR_small_bigendian": "DERIVED",
    "MR_small_expb": "DERIVED",
    "MR_small_implicit": "DERIVED",
    "MR_small_jp2klossless": "DERIVED",
    "MR_small_jpeg_ls_lossless": "DERIVED",
    "MR_small_padded": "DERIVED",
    "MR_truncated": "DERIVED",
    "eCT_Supplemental": "DERIVED",
    # enhanced MR of which somebody has deleted the functional groups
    "emri_small": "MISSING_GEOMETRY",
    "emri_small_RLE": "MISSING_GEOMETRY",
    "emri_small_big_endian": "MISSING_GEOMETRY",
    "emri_small_jpeg_2k_lossless": "MISSING_GEOMETRY",
    "emri_small_jpeg_2k_lossless_too_short": "MISSING_GEOMETRY",
    "emri_small_jpeg_ls_lossless": "MISSING_GEOMETRY",
    # segmentations go to their own reader
    "liver": "segmentation",
    "liver_1frame": "segmentation",
    "liver_expb": "segmentation",
    "liver_expb_1frame": "segmentation",
    # CT and MR that are sound, whatever their encoding
    "693_J2KI": "accepted",
    "693_J2KR": "accepted",
    "693_UNCI": "accepted",
    "693_UNCR": "accepted",
    "CT_small": "accepted",
    "MR2_J2KI": "accepted",
    "bad_sequence": "accepted",
    "explicit_VR-UN": "accepted",
}
SEGMENTATIONS = {
    "segmentations/23x38x3/seg/label.seg",
    "segmentations/24x38x3/seg/label.seg",
    "segmentations/liver.dcm",
    "segmentations/partial_overlaps.dcm",
    "sr-example/seg.dcm",
}


def fate(path, policy=DicomPolicy()):  # noqa: B008  # frozen
    """Reason of a single file, what it is handed over as, or accepted."""
    try:
        grouping = group_headers([(path, read_header(path))], policy)
        for plan in grouping.plans:
            read_volume(plan)
    except QuarantineError as error:
        return error.reason
    if grouping.refused:
        return grouping.refused[0].error.reason
    return grouping.structures[0][1].kind if grouping.structures else "accepted"


def odd():
    for path in sorted((DATA / "pydicom").glob("*.dcm")):
        color = path.stem.startswith("SC_")  # color test patterns of modality OT
        yield pytest.param(path, OTHER_MODALITY if color else EXPECTED[path.stem], id=path.stem)
    for path in sorted((DATA / "dcmqi").glob("**/*")):
        name = path.relative_to(DATA / "dcmqi").as_posix()
        if path.suffix in (".dcm", ".seg"):
            image = name.startswith("segmentations/") and name not in SEGMENTATIONS
            expected = "accepted" if image else "segmentation" if name in SEGMENTATIONS else "NOT_AN_IMAGE"
            yield pytest.param(path, expected, id=name)


@pytest.mark.parametrize(("path", "expected"), list(odd()) if DATA.is_dir() else [])
def test_every_odd_file_meets_the_fate_that_it_deserves(path, expected):
    assert fate(path) == expected


def test_a_cut_derived_file_is_truncated_where_derived_images_are_read():
    assert fate(DATA / "pydicom/MR_truncated.dcm", DicomPolicy(derived="keep")) == "TRUNCATED"


@pytest.mark.parametrize("name", ["RLE", "bigendian", "expb", "implicit", "jp2klossless", "jpeg_ls_lossless", "padded"])
def test_one_image_in_many_encodings_has_one_set_of_values(name):
    def read(stem):
        path = DATA / f"pydicom/{stem}.dcm"
        (plan,) = group_headers([(path, read_header(path))], DicomPolicy(derived="keep")).plans
        return read_volume(plan).voxels

    np.testing.assert_array_equal(read(f"MR_small_{name}"), read("MR_small"))


def test_a_lossy_file_is_flagged_and_near_its_lossless_twin():
    def read(stem):
        path = DATA / f"pydicom/{stem}.dcm"
        (plan,) = group_headers([(path, read_header(path))], DicomPolicy()).plans
        return read_volume(plan)

    lossy, decompressed = read("693_J2KI"), read("693_UNCI")
    assert lossy.facts.flags == ("LOSSY",)
    np.testing.assert_array_equal(lossy.voxels, decompressed.voxels)


def test_overlays_in_the_high_bits_do_not_reach_the_values():
    path = DATA / "pydicom/MR-SIEMENS-DICOM-WithOverlays.dcm"
    (plan,) = group_headers([(path, read_header(path))], DicomPolicy(derived="keep")).plans
    assert read_volume(plan).voxels.max() < 4096


def test_a_stream_that_breaks_its_own_standard_is_refused_by_name(tmp_path):
    """A nuclear medicine image in the dress of an MR slice; its README tells of "Invalid SOS parameters"."""
    item = pydicom.dcmread(DATA / "pydicom/JPEG-lossy.dcm")
    item.SOPClassUID, item.Modality, item.ImageType = "1.2.840.10008.5.1.4.1.1.4", "MR", ["ORIGINAL", "PRIMARY", "M"]
    item.ImagePositionPatient, item.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    item.save_as(tmp_path / "mr.dcm")
    with pytest.raises(QuarantineError, match="DECODE_FAILED: RuntimeError"):
        read_dicom_series([tmp_path / "mr.dcm"])
