"""What every reader returns: voxels, where they lie, and the few header facts that later stages need."""

import re
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from pipeline.geometry import Geometry, check_shape

HU_MINIMUM, HU_MAXIMUM = -1024, 3071
"""Range of HU that 12-bit CT stores with RescaleIntercept −1024; written CT is clipped to it."""

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
"""SOP classes of single-frame CT and MR images (PS3.4 B.5)."""

AIR_HU = -1000
"""HU of air by definition of the Hounsfield scale."""

_SEQUENCES = (
    ("FLAIR", r"flair|dark.?fluid"),
    ("DWI", r"dwi|diff|adc|trace"),
    ("T2*", r"t2\W?\*|t2star|swi|gre.?t2"),
    ("T1", r"(?<![a-z0-9])t1|mprage|spgr|bravo|vibe"),
    ("T2", r"(?<![a-z0-9])t2"),
    ("PD", r"(?<![a-z0-9])pd"),
)


@dataclass(frozen=True)
class ScanFacts:
    """Header facts of a series; ``None`` where the file does not say. They may identify the patient.

    ``sop_instance_uids`` are in slice order (growing k). ``sequence_name`` is one of T1, T2, T2*, PD, FLAIR, DWI, told
    from the series' descriptive texts.
    """

    patient_id: str | None = None
    study_uid: str | None = None
    study_id: str | None = None
    study_date: str | None = None
    study_time: str | None = None
    series_uid: str | None = None
    frame_of_reference_uid: str | None = None
    sop_instance_uids: tuple[str, ...] = ()
    patient_position: str | None = None
    body_part: str | None = None
    sequence_name: str | None = None
    series_description: str | None = None
    patient_sex: str | None = None
    patient_age: str | None = None
    burned_in_annotation: str | None = None
    volume_label: str | None = None
    flags: tuple[str, ...] = ()
    tilt_degrees: float | None = None


@dataclass(frozen=True, eq=False)
class Scan:
    """One volume as read.

    Args:
        voxels: (i, j, k); HU as int16 for CT; int16, or float32 where int16 cannot hold the values, otherwise.
        geometry: the grid of ``voxels``.
        modality: "MR", "CT", or ``None`` where a NIfTI file and its neighbors do not tell.
        facts: header facts.
    """

    voxels: NDArray[Any]
    geometry: Geometry
    modality: str | None = None
    facts: ScanFacts = field(default_factory=ScanFacts)

    def __post_init__(self) -> None:
        check_shape(self.voxels, self.geometry)


def sequence_from_text(*texts: str | None) -> str | None:
    """Name the MR sequence that descriptive texts speak of, or ``None``; the first text that tells wins.

    >>> sequence_from_text("sub-01_T1w"), sequence_from_text("AX T2 FLAIR"), sequence_from_text("localizer")
    ('T1', 'FLAIR', None)
    """
    for text in texts:
        lowered = (text or "").lower().replace("_", " ")
        for name, pattern in _SEQUENCES:
            if re.search(pattern, lowered):
                return name
    return None
