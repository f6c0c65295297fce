"""Read and write scans: NIfTI files and DICOM series, always as a `Scan` with voxels (i, j, k) and a RAS+ geometry."""

from pipeline.scan_io.deidentified import Deidentification
from pipeline.scan_io.dicom.series import find_dicom_series, is_dicom, read_dicom_series, read_dicom_volumes
from pipeline.scan_io.dicom_write import Acquisition, SeriesIdentity, uid_from, write_dicom_series
from pipeline.scan_io.image_policy import STRICT, ImagePolicy
from pipeline.scan_io.metaimage import is_metaimage, read_image, read_metaimage
from pipeline.scan_io.nifti import is_nifti, read_nifti
from pipeline.scan_io.nifti_write import write_nifti
from pipeline.scan_io.pseudo_ct import Algorithm, SourceSeries, write_pseudo_ct_series
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
