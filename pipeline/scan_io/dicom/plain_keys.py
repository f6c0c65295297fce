"""Which values of a header the quick walk keeps; a reader that asks for another one makes pydicom parse the file.

They stand here with their tags, so that plain files are read without loading pydicom.
"""

_WORDS = """
    00080005 SpecificCharacterSet 00080008 ImageType 00080016 SOPClassUID 00080018 SOPInstanceUID 00080020 StudyDate
    00080021 SeriesDate 00080022 AcquisitionDate 00080023 ContentDate 0008002A AcquisitionDateTime 00080030 StudyTime
    00080031 SeriesTime 00080032 AcquisitionTime 00080033 ContentTime 00080060 Modality 00080070 Manufacturer
    00081030 StudyDescription 0008103E SeriesDescription 00081090 ManufacturerModelName 00089208 ComplexImageComponent
    00100020 PatientID 00100040 PatientSex 00101010 PatientAge 00180015 BodyPartExamined 00180020 ScanningSequence
    00180021 SequenceVariant 00180024 SequenceName 00180050 SliceThickness 00180060 KVP 00180080 RepetitionTime
    00180081 EchoTime 00180082 InversionTime 00180086 EchoNumbers 00180087 MagneticFieldStrength
    00180088 SpacingBetweenSlices 00180091 EchoTrainLength 00181020 SoftwareVersions 00181030 ProtocolName
    00181060 TriggerTime 00181120 GantryDetectorTilt 00181314 FlipAngle 00185100 PatientPosition
    00189087 DiffusionBValue 00189114 MREchoSequence 00189117 MRDiffusionSequence 0020000D StudyInstanceUID
    0020000E SeriesInstanceUID 00200010 StudyID 00200011 SeriesNumber 00200012 AcquisitionNumber
    00200013 InstanceNumber 00200032 ImagePositionPatient 00200037 ImageOrientationPatient
    00200052 FrameOfReferenceUID 00200100 TemporalPositionIdentifier 00200105 NumberOfTemporalPositions
    00201041 SliceLocation 00209128 TemporalPositionIndex 00280002 SamplesPerPixel 00280004 PhotometricInterpretation
    00280006 PlanarConfiguration 00280008 NumberOfFrames 00280010 Rows 00280011 Columns 00280030 PixelSpacing
    00280100 BitsAllocated 00280101 BitsStored 00280102 HighBit 00280103 PixelRepresentation
    00280120 PixelPaddingValue 00280121 PixelPaddingRangeLimit 00280301 BurnedInAnnotation 00281052 RescaleIntercept
    00281053 RescaleSlope 00281054 RescaleType 00282110 LossyImageCompression 00283000 ModalityLUTSequence
    52009229 SharedFunctionalGroupsSequence 52009230 PerFrameFunctionalGroupsSequence
"""

TAGS = {keyword: int(tag, 16) for tag, keyword in zip(*[iter(_WORDS.split())] * 2, strict=True)}
"""Attributes: tag by keyword (PS3.6)."""

PRIVATE = frozenset({(0x0019, 0x0A), (0x0019, 0x0C), (0x0029, 0x10), (0x2001, 0x03), (0x0043, 0x39), (0x0043, 0x2F)})
"""Group and offset in its block of the private elements that it keeps: mosaics, b-values, parts of complex images."""

CHARACTER_SETS = frozenset(
    {"", "GB18030", "GBK", "ISO 2022 58", "ISO 2022 GBK", "ISO_IR 6", "ISO_IR 13", "ISO_IR 192", "ISO 2022 IR 6"}
    | {f"ISO_IR {number}" for number in (100, 101, 109, 110, 126, 127, 138, 144, 148, 166)}
    | {f"ISO 2022 IR {number}" for number in (13, 58, 87, 100, 101, 109, 110, 126, 127, 138, 144, 148, 149, 159, 166)}
)
"""Terms of SpecificCharacterSet that pydicom knows (PS3.3 C.12.1.1.2)."""
