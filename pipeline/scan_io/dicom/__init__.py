"""Read DICOM files into volumes: headers, then grouping, then pixels."""
