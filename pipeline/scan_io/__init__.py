"""Read and write scans: NIfTI files and DICOM series, always as a `Scan` with voxels (i, j, k) and a RAS+ geometry.

Names are imported when they are first used, so that a process that reads one format does not load the libraries of all.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.scan_io.deidentified import Deidentification
    from pipeline.scan_io.dicom.series import find_dicom_series, is_dicom, read_dicom_series, read_dicom_volumes
    from pipeline.scan_io.dicom_write import Acquisition, SeriesIdentity, uid_from, write_dicom_series
    from pipeline.scan_io.image_policy import STRICT, ImagePolicy
    from pipeline.scan_io.metaimage import is_metaimage, read_image, read_metaimage
    from pipeline.scan_io.nifti import is_nifti, read_nifti
    from pipeline.scan_io.nifti_write import write_nifti
    from pipeline.scan_io.pseudo_ct import Algorithm, SourceSeries, description_of, write_pseudo_ct_series
    from pipeline.scan_io.scan import AIR_HU, HU_MAXIMUM, HU_MINIMUM, Scan, ScanFacts, sequence_from_text

__all__ = [
    "AIR_HU",
    "HU_MAXIMUM",
    "HU_MINIMUM",
    "STRICT",
    "Acquisition",
    "Algorithm",
    "Deidentification",
    "ImagePolicy",
    "Scan",
    "ScanFacts",
    "SeriesIdentity",
    "SourceSeries",
    "description_of",
    "find_dicom_series",
    "is_dicom",
    "is_metaimage",
    "is_nifti",
    "read_dicom_series",
    "read_dicom_volumes",
    "read_image",
    "read_metaimage",
    "read_nifti",
    "sequence_from_text",
    "uid_from",
    "write_dicom_series",
    "write_nifti",
    "write_pseudo_ct_series",
]

_MODULES = {
    "pipeline.scan_io.deidentified": ("Deidentification",),
    "pipeline.scan_io.dicom.series": (
        "find_dicom_series",
        "is_dicom",
        "read_dicom_series",
        "read_dicom_volumes",
    ),
    "pipeline.scan_io.dicom_write": (
        "Acquisition",
        "SeriesIdentity",
        "uid_from",
        "write_dicom_series",
    ),
    "pipeline.scan_io.image_policy": (
        "STRICT",
        "ImagePolicy",
    ),
    "pipeline.scan_io.metaimage": (
        "is_metaimage",
        "read_image",
        "read_metaimage",
    ),
    "pipeline.scan_io.nifti": (
        "is_nifti",
        "read_nifti",
    ),
    "pipeline.scan_io.nifti_write": ("write_nifti",),
    "pipeline.scan_io.pseudo_ct": (
        "Algorithm",
        "SourceSeries",
        "description_of",
        "write_pseudo_ct_series",
    ),
    "pipeline.scan_io.scan": (
        "AIR_HU",
        "HU_MAXIMUM",
        "HU_MINIMUM",
        "Scan",
        "ScanFacts",
        "sequence_from_text",
    ),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """A public name, from the module that defines it."""
    try:
        value = getattr(import_module(_HOMES[name]), name)
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    globals()[name] = value
    return value
