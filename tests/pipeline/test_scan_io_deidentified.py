"""Every attribute of a written pseudo-CT against the basic confidentiality profile, PS3.15 table E.1-1."""

import shutil
import subprocess

import numpy as np
import pydicom
import pytest

from pipeline.generate.pseudo_ct import write_volume
from pipeline.geometry import Geometry
from pipeline.scan_io import Algorithm, Deidentification, SourceSeries, uid_from, write_pseudo_ct_series

SHAPE = (5, 6, 4)
AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])
ALGORITHM = Algorithm("mr_to_ct", "0.1.0", "CycleGAN trained on digital phantoms")
UIDS = {name: uid_from(name) for name in ("study", "series", "frame", "first")}

PROFILE = {
    "U": "MediaStorageSOPInstanceUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID "
    "ReferencedSOPInstanceUID",
    "Z": "StudyTime AccessionNumber ReferringPhysicianName PatientName PatientBirthDate PatientSex StudyID",
    "Z or shifted": "StudyDate",
    "Z/D": "PatientID",
    "X, written anew": "SeriesDescription DerivationDescription ImageComments ContributionDescription",
    "X/Z/U*": "SourceImageSequence",
    "not in the table": "FileMetaInformationGroupLength FileMetaInformationVersion MediaStorageSOPClassUID "
    "TransferSyntaxUID ImplementationClassUID ImplementationVersionName SpecificCharacterSet ImageType SOPClassUID "
    "SyntheticData Modality Manufacturer ManufacturerModelName ReferencedSOPClassUID PurposeOfReferenceCodeSequence "
    "CodeValue CodingSchemeDesignator CodeMeaning DerivationCodeSequence PatientIdentityRemoved DeidentificationMethod "
    "DeidentificationMethodCodeSequence BodyPartExamined SliceThickness KVP SoftwareVersions PatientPosition "
    "ContributingEquipmentSequence SeriesNumber AcquisitionNumber InstanceNumber ImagePositionPatient "
    "ImageOrientationPatient PositionReferenceIndicator SliceLocation DerivationAlgorithmSequence "
    "AlgorithmFamilyCodeSequence AlgorithmVersion AlgorithmName SamplesPerPixel PhotometricInterpretation Rows Columns "
    "PixelSpacing BitsAllocated BitsStored HighBit PixelRepresentation RecognizableVisualFeatures "
    "LongitudinalTemporalInformationModified WindowCenter WindowWidth RescaleIntercept RescaleSlope RescaleType "
    "PixelData SpatialLocationsPreserved",
}
"""Attributes that are written → what the profile asks for."""
ACTION = {keyword: action for action, keywords in PROFILE.items() for keyword in keywords.split()}
OUR_TEXTS = {
    "SeriesDescription": "Pseudo-CT from MR, NOT FOR CLINICAL USE",
    "ImageComments": "Synthetic image for research, NOT FOR CLINICAL USE",
    "DerivationDescription": "Pseudo-CT computed from MR: CycleGAN trained on digital phantoms. NOT FOR CLINICAL USE.",
    "ContributionDescription": "Pseudo-CT synthesis from MR",
}


def _row(**changes):
    """A catalog row of an MR as ingest writes it: pseudonyms, remapped UIDs, defined terms."""
    row = {
        "subject_id": "sub-0123456789", "series_id": "ser-0123456789abcdef", "shape": list(SHAPE),
        "affine": AFFINE.ravel().tolist(), "study_uid": UIDS["study"], "series_uid": UIDS["series"],
        "frame_of_reference_uid": UIDS["frame"], "sop_instance_uids": [UIDS["first"]], "patient_position": "HFS",
        "body_part": "HEAD", "study_date": None, "flags": [],
    }  # fmt: skip
    return row | changes


def _written(tmp_path, **changes):
    case = write_volume(tmp_path, _row(**changes), np.zeros((4, 6, 5), np.int16), AFFINE, ALGORITHM, dicom=True)
    paths = sorted((tmp_path / case["dicom_folder"]).iterdir())
    return [pydicom.dcmread(path) for path in paths]


def _elements(item):
    yield from item.file_meta
    yield from item.iterall()


@pytest.mark.parametrize("changes", [{}, {"study_date": "20180704", "flags": ["DEFACED"]}])
def test_every_written_attribute_is_what_the_profile_asks_for(tmp_path, changes):
    for item in _written(tmp_path, **changes):
        assert item.preamble == bytes(128)
        for element in _elements(item):
            assert not element.tag.is_private
            action = ACTION[element.keyword]  # a KeyError here is an attribute that nobody has judged
            if action == "Z":
                assert not element.value, element.keyword
            elif action == "Z or shifted":
                assert element.value == (changes.get("study_date") or "")
            elif action == "U":
                assert str(element.value).startswith("2.25."), element.keyword
            elif action == "Z/D":
                assert element.value == "sub-0123456789"
            elif action == "X, written anew":
                assert element.value == OUR_TEXTS[element.keyword]


@pytest.mark.parametrize(
    ("changes", "codes", "dates", "features"),
    [
        ({}, ["113100"], "REMOVED", None),
        ({"study_date": "20180704"}, ["113100", "113107"], "MODIFIED", None),
        ({"flags": ["DEFACED"]}, ["113100", "113102"], "REMOVED", "NO"),
        ({"flags": ["OTHER", "DEFACED"], "study_date": "20180704"}, ["113100", "113102", "113107"], "MODIFIED", "NO"),
    ],
)  # fmt: skip
def test_a_series_says_how_it_was_deidentified(tmp_path, changes, codes, dates, features):
    for item in _written(tmp_path, **changes):
        assert item.PatientIdentityRemoved == "YES"
        assert 0 < len(item.DeidentificationMethod) <= 64
        assert [each.CodeValue for each in item.DeidentificationMethodCodeSequence] == codes
        assert {each.CodingSchemeDesignator for each in item.DeidentificationMethodCodeSequence} == {"DCM"}
        assert item.LongitudinalTemporalInformationModified == dates
        assert item.get("RecognizableVisualFeatures") == features


def test_codes_have_the_meanings_of_the_standard(tmp_path):
    from pydicom.sr.codedict import codes

    (sequence,) = {tuple((i.CodeValue, i.CodeMeaning) for i in item.DeidentificationMethodCodeSequence)
                   for item in _written(tmp_path, study_date="20180704", flags=["DEFACED"])}  # fmt: skip
    known = {code.value: code.meaning for code in (getattr(codes.CID7050, name) for name in codes.CID7050.dir())}
    assert all(known[value] == meaning for value, meaning in sequence)


def test_a_series_with_original_identities_claims_nothing(tmp_path):
    source = SourceSeries("PHANTOM-1", *(UIDS[name] for name in ("study", "series", "frame")), (UIDS["first"],), "HFS")
    paths = write_pseudo_ct_series(tmp_path / "ct", np.zeros(SHAPE), Geometry(SHAPE, AFFINE), source, ALGORITHM)
    assert all("PatientIdentityRemoved" not in pydicom.dcmread(path) for path in paths)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian dicom3tools) is not installed")
@pytest.mark.parametrize("changes", [{}, {"study_date": "20180704", "flags": ["DEFACED"]}])
def test_the_validator_has_nothing_against_it(tmp_path, changes):
    (path, *_) = [item.filename for item in _written(tmp_path, **changes)]
    result = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
    errors = [line for line in (result.stdout + result.stderr).splitlines() if line.startswith("Error")]
    assert errors == [
        "Error - </(0008,001c)> - Attribute with an even group number is not a recognized standard attribute"
    ]


def test_nothing_is_claimed_by_default():
    assert Deidentification() == Deidentification(dates_shifted=False, defaced=False)
