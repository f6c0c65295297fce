"""Read DICOM files into volumes."""
