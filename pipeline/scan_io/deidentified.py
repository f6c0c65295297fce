"""The attributes by which a DICOM object says that, and how, it was de-identified.

Patient Identity Removed, De-identification Method and its codes (PS3.3 C.7.1.1), Longitudinal Temporal Information
Modified (C.7.6.1.1.8, PS3.15 E.3.6), Recognizable Visual Features (C.7.6.1, PS3.15 E.3.3). Codes are those of PS3.16
CID 7050.
"""

from dataclasses import dataclass

from pydicom import Dataset

BASIC_PROFILE = ("113100", "Basic Application Confidentiality Profile")
CLEAN_FEATURES = ("113102", "Clean Recognizable Visual Features Option")
MODIFIED_DATES = ("113107", "Retain Longitudinal Temporal Information Modified Dates Option")
_METHOD = "Allow-list writer: voxels, geometry, terms, keyed pseudonyms"


@dataclass(frozen=True)
class Deidentification:
    """What was done beyond the basic profile.

    Attributes:
        dates_shifted: dates were moved by a secret number of days; False: there are none.
        defaced: the face was blanked.
    """

    dates_shifted: bool = False
    defaced: bool = False


def add_deidentification(header: Dataset, done: Deidentification) -> None:
    """Add the attributes to an object that holds nothing but what the basic profile allows."""
    codes = [BASIC_PROFILE]
    codes += [CLEAN_FEATURES] if done.defaced else []
    codes += [MODIFIED_DATES] if done.dates_shifted else []
    header.PatientIdentityRemoved = "YES"
    header.DeidentificationMethod = _METHOD
    header.DeidentificationMethodCodeSequence = [code(value, "DCM", meaning) for value, meaning in codes]
    header.LongitudinalTemporalInformationModified = "MODIFIED" if done.dates_shifted else "REMOVED"
    if done.defaced:
        header.RecognizableVisualFeatures = "NO"


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """One item of a code sequence (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item
