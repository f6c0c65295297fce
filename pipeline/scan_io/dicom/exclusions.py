"""Which DICOM objects are no MR or CT volume, and why: told from SOP class, modality and ImageType alone.

SOP classes after PS3.4 B.5, values of ImageType after PS3.3 C.7.6.1.1.2, C.8.2.1.1.1 (CT), C.8.3.1.1.1 (MR) and, for
CT, the vendors' terms for planning views and protocol pages.
"""

from collections.abc import Sequence
from functools import lru_cache

from pipeline.scan_io.dicom.attributes import Attributes
from pipeline.scan_io.dicom.header import Kind

Refused = tuple[str, str, str]

SEGMENTATION_CLASSES = frozenset({"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"})
STRUCTURE_SET_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
ENHANCED_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2.1": "CT",  # Enhanced CT
    "1.2.840.10008.5.1.4.1.1.2.2": "CT",  # Legacy Converted Enhanced CT
    "1.2.840.10008.5.1.4.1.1.4.1": "MR",  # Enhanced MR
    "1.2.840.10008.5.1.4.1.1.4.3": "MR",  # Enhanced MR Color
    "1.2.840.10008.5.1.4.1.1.4.4": "MR",  # Legacy Converted Enhanced MR
}
_CLASSIC_CLASSES = {"1.2.840.10008.5.1.4.1.1.2": "CT", "1.2.840.10008.5.1.4.1.1.4": "MR"}
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_DOSE_REPORTS = tuple(f"1.2.840.10008.5.1.4.1.1.88.{number}" for number in (67, 68, 73, 74, 75, 76))
_LOCALIZERS = frozenset({"LOCALIZER", "TOPOGRAM", "SCOUT", "CT_SOM5 TOP", "CT_SOM7 TOP"})
_DOSE_PAGES = frozenset({"DOSE_INFO", "DOSE", "DOSE REPORT", "CT_SOM5 PROT", "CT_SOM7 PROT"})


def kind_of(sop_class_uid: str) -> Kind:
    """What a file holds, by its SOP class; a file without one may be an image."""
    if sop_class_uid in SEGMENTATION_CLASSES:
        return "segmentation"
    if sop_class_uid == STRUCTURE_SET_CLASS:
        return "structure_set"
    if sop_class_uid in ENHANCED_CLASSES or sop_class_uid in _CLASSIC_CLASSES:
        return "image"
    return "image" if not sop_class_uid or "Image Storage" in _name(sop_class_uid) else "other"


def exclusion(sop_class_uid: str, image_type: Sequence[str], attributes: Attributes) -> Refused | None:
    """Why an object of kind image or other is left out, or None.

    Args:
        sop_class_uid: of the object, empty where it has none.
        image_type: values of ImageType, upper case.
        attributes: the header.
    """
    modality = (attributes.text("Modality") or "").upper()
    return (
        _no_image(sop_class_uid, attributes)
        or _unsupported(sop_class_uid, modality, attributes)
        or _not_anatomy(sop_class_uid, image_type)
    )


def _no_image(sop_class_uid: str, attributes: Attributes) -> Refused | None:
    if sop_class_uid in _DOSE_REPORTS:
        return "DOSE_REPORT", _name(sop_class_uid), "Nothing to do; dose reports are not read."
    if kind_of(sop_class_uid) == "other":
        return "NOT_AN_IMAGE", _name(sop_class_uid), "Nothing to do; only MR and CT images are read."
    if not attributes.whole("Rows") or not attributes.whole("Columns"):
        name = f"{_name(sop_class_uid)} without" if sop_class_uid else "an object without SOP class,"
        return "NOT_AN_IMAGE", f"{name} rows or columns", "Export the images again."
    return None


def _unsupported(sop_class_uid: str, modality: str, attributes: Attributes) -> Refused | None:
    """Other modalities, color, and classes that contradict their modality."""
    if modality not in ("MR", "CT"):
        return "UNSUPPORTED_MODALITY", f"modality {modality or None}", "Only MR and CT images are read."
    samples = attributes.whole("SamplesPerPixel") or 1
    color = (attributes.text("PhotometricInterpretation") or "").upper()
    if samples != 1 or color == "PALETTE COLOR":
        return "UNSUPPORTED_COLOR", f"{samples} samples a pixel", "Only gray images are read; export without colors."
    told = (ENHANCED_CLASSES | _CLASSIC_CLASSES).get(sop_class_uid, modality)
    if told != modality:
        return "MODALITY_CONFLICT", f"modality {modality} in an object of class {told}", "Correct the modality."
    return None


def _not_anatomy(sop_class_uid: str, image_type: Sequence[str]) -> Refused | None:
    """Planning views, pages of text, screen shots."""
    terms = frozenset(image_type)
    if terms & _LOCALIZERS:
        return "LOCALIZER", "ImageType names a localizer", "Nothing to do; localizers are no volumes."
    if terms & _DOSE_PAGES:
        return "DOSE_REPORT", "ImageType names a dose or protocol page", "Nothing to do; dose reports are not read."
    if sop_class_uid.startswith(_SECONDARY_CAPTURE):
        return "SECONDARY_CAPTURE", _name(sop_class_uid), "Export the original images instead of captures."
    return None


def is_derived(image_type: Sequence[str], lossy: bool) -> bool:
    """Whether an image was computed from others; lossy compression alone also makes it DERIVED and PRIMARY."""
    if not image_type or image_type[0] != "DERIVED":
        return False
    return not (lossy and len(image_type) > 1 and image_type[1] == "PRIMARY")


@lru_cache(64)
def _name(uid: str) -> str:
    """Standard name of a SOP class; nothing of the UID itself, which a writer may have made from an identity."""
    from pydicom.uid import UID

    known = UID(uid)
    return str(known.name) if known.name != uid else "an object of a class outside the standard"
