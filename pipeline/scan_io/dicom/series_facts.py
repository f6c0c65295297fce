"""What the patient, study and series modules of a header say (PS3.3 C.7.1 to C.7.3)."""

from pipeline.scan_io.dicom.attributes import Attributes
from pipeline.scan_io.scan import ScanFacts, sequence_from_text


def series_facts(attributes: Attributes) -> ScanFacts:
    """Facts that all images of a series share; they may identify the patient."""
    text = attributes.text
    description = text("SeriesDescription")
    is_mr = (text("Modality") or "").upper() == "MR"
    return ScanFacts(
        patient_id=text("PatientID"),
        study_uid=text("StudyInstanceUID"),
        study_id=text("StudyID"),
        study_date=text("StudyDate"),
        study_time=text("StudyTime"),
        series_uid=text("SeriesInstanceUID"),
        frame_of_reference_uid=text("FrameOfReferenceUID"),
        patient_position=text("PatientPosition"),
        body_part=text("BodyPartExamined"),
        sequence_name=sequence_from_text(description, text("ProtocolName"), text("SequenceName")) if is_mr else None,
        series_description=description,
        patient_sex=text("PatientSex"),
        patient_age=text("PatientAge"),
        burned_in_annotation=text("BurnedInAnnotation"),
    )
