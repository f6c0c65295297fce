"""Rows of the catalog: what of a scan's facts may leave, and in which form."""

from typing import Any

from pipeline.deidentify import Pseudonymizer
from pipeline.ingest import allow_list
from pipeline.ingest.dates import shifted_date
from pipeline.ingest.found import FoundVolume

Row = dict[str, Any]


EMPTY_ROW: Row = {
    "modality": None, "body_part": None, "sequence": None, "volume_label": None, "study_date": None, "flags": [],
    "tilt_degrees": None, "spacing_mm": None, "affine": None, "study_uid": None,
    "series_uid": None, "frame_of_reference_uid": None, "sop_instance_uids": None, "patient_position": None,
    "stack_index": -1, "slice_index": -1, "pair_key": None, "published_split": None,
}  # fmt: skip
"""A series of which nothing is known; see `pipeline.catalog.SERIES_SCHEMA`."""


def volume_row(found: FoundVolume, pseudonyms: Pseudonymizer, *, shifted: bool) -> Row:
    """The row of a volume, but for its path and the names of series and subject.

    Args:
        found: the volume.
        pseudonyms: of the workspace.
        shifted: keep the study date, shifted; else it is dropped.
    """
    scan, facts = found.scan, found.scan.facts
    voxels, geometry = scan.voxels, scan.geometry
    return EMPTY_ROW | {
        "subject_source": found.subject_source,
        "kind": "volume",
        "source": found.source,
        "modality": scan.modality,
        "body_part": allow_list.body_part(facts.body_part),
        "sequence": facts.sequence_name,
        "volume_label": facts.volume_label,
        "flags": sorted(facts.flags),
        "tilt_degrees": facts.tilt_degrees,
        "unit": "HU" if scan.modality == "CT" else "signal",
        "shape": list(voxels.shape),
        "spacing_mm": list(geometry.spacing_mm),
        "affine": geometry.affine.ravel().tolist(),
        "study_date": shifted_date(facts.study_date, pseudonyms.days(found.subject_word)) if shifted else None,
        "study_uid": facts.study_uid and pseudonyms.uid(facts.study_uid),
        "series_uid": facts.series_uid and pseudonyms.uid(facts.series_uid),
        "frame_of_reference_uid": facts.frame_of_reference_uid and pseudonyms.uid(facts.frame_of_reference_uid),
        "sop_instance_uids": [pseudonyms.uid(uid) for uid in facts.sop_instance_uids] or None,
        "patient_position": allow_list.patient_position(facts.patient_position),
        "content_sha256": found.content_sha256,
    }
