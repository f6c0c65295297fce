"""Which values of a header the quick walk keeps; a reader that asks for another one makes pydicom parse the file."""

from pydicom.datadict import tag_for_keyword

_WORDS = """
    SpecificCharacterSet ImageType SOPClassUID SOPInstanceUID StudyDate SeriesDate AcquisitionDate ContentDate StudyTime
    SeriesTime AcquisitionTime ContentTime AcquisitionDateTime Modality Manufacturer ManufacturerModelName
    StudyDescription SeriesDescription ComplexImageComponent PatientID PatientSex PatientAge BodyPartExamined
    ScanningSequence SequenceVariant SequenceName SliceThickness KVP RepetitionTime EchoTime InversionTime EchoNumbers
    MagneticFieldStrength SpacingBetweenSlices EchoTrainLength SoftwareVersions ProtocolName TriggerTime
    GantryDetectorTilt FlipAngle PatientPosition DiffusionBValue StudyInstanceUID SeriesInstanceUID StudyID SeriesNumber
    AcquisitionNumber InstanceNumber ImagePositionPatient ImageOrientationPatient FrameOfReferenceUID
    TemporalPositionIdentifier NumberOfTemporalPositions TemporalPositionIndex SliceLocation SamplesPerPixel
    PhotometricInterpretation PlanarConfiguration NumberOfFrames Rows Columns PixelSpacing BitsAllocated BitsStored
    HighBit PixelRepresentation PixelPaddingValue PixelPaddingRangeLimit BurnedInAnnotation RescaleIntercept
    RescaleSlope RescaleType LossyImageCompression ModalityLUTSequence MRDiffusionSequence MREchoSequence
    SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence
"""

KEYWORDS = frozenset(_WORDS.split())
"""Attributes, by keyword (PS3.6)."""

PRIVATE = frozenset({(0x0019, 0x0A), (0x0019, 0x0C), (0x0029, 0x10), (0x2001, 0x03), (0x0043, 0x39), (0x0043, 0x2F)})
"""Group and offset in its block of the private elements that it keeps: mosaics, b-values, parts of complex images."""

TAGS = {keyword: int(tag_for_keyword(keyword) or 0) for keyword in KEYWORDS}
