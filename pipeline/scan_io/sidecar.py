"""Modality and facts of an image file that has no such header: the JSON beside it, else the BIDS suffix of its name.

The fields are those that dcm2niix and BIDS write.
"""

import json
import re
from pathlib import Path
from typing import Any

from pipeline.errors import QuarantineError
from pipeline.scan_io.scan import ScanFacts, sequence_from_text

MR_SUFFIXES = frozenset(
    {
        *("T1w", "T2w", "FLAIR", "PDw", "T2starw", "PDT2", "inplaneT1", "inplaneT2", "inplanePD", "UNIT1", "angio"),
        *("T1map", "T2map", "T2starmap", "PDmap", "MEGRE", "MESE"),
    }
)
"""BIDS suffixes of anatomical MR images (BIDS 1.10, Magnetic Resonance Imaging)."""

CT_SUFFIXES = frozenset({"ct", "CT"})
"""Suffixes in use for CT, which BIDS itself has not yet named (BEP024)."""

_SEQUENCE_OF_SUFFIX = {"T2starw": "T2*", "T2starmap": "T2*", "UNIT1": "T1", "PDT2": "PD"}
_ENDING = re.compile(r"\.(nii(\.gz)?|mha|mhd|nrrd|nhdr)$", re.IGNORECASE)
_LIMIT_BYTES = 1 << 20


def stem(path: Path) -> str:
    """File name without the ending of an image.

    >>> stem(Path("a/sub-01_T1w.nii.gz")), stem(Path("ct.MHA"))
    ('sub-01_T1w', 'ct')
    """
    return _ENDING.sub("", path.name)


def modality_of_suffix(suffix: str) -> str | None:
    """MR or CT by BIDS suffix, or None."""
    if suffix in MR_SUFFIXES:
        return "MR"
    return "CT" if suffix in CT_SUFFIXES else None


def facts_beside(path: Path, placed_as: str | None = None) -> tuple[str | None, ScanFacts]:
    """Modality and facts from the JSON beside an image, else from its BIDS suffix.

    Args:
        path: the image.
        placed_as: modality that the place of the file tells; it takes the place of the suffix.

    Raises:
        QuarantineError: BAD_SIDECAR, UNSUPPORTED_MODALITY, MODALITY_CONFLICT.
    """
    name = stem(path)
    sidecar = _read(path.with_name(name + ".json"))
    suffix = name.rsplit("_", 1)[-1]
    modality = _field(sidecar, "Modality") or placed_as or modality_of_suffix(suffix)
    if modality not in (None, "MR", "CT"):
        raise QuarantineError("UNSUPPORTED_MODALITY", f"modality {modality[:16]}", "only MR and CT images are read")
    if placed_as not in (None, modality):
        found = f"a file placed as {placed_as} that says it is {modality}"
        raise QuarantineError("MODALITY_CONFLICT", found, "Correct the place of the file, or the JSON beside it.")
    texts = [_field(sidecar, name) for name in ("SeriesDescription", "ProtocolName", "SequenceName")]
    sequence = _SEQUENCE_OF_SUFFIX.get(suffix) or sequence_from_text(suffix, *texts)
    return modality, ScanFacts(
        patient_position=_field(sidecar, "PatientPosition"),
        body_part=_field(sidecar, "BodyPartExamined"),
        sequence_name=sequence if modality == "MR" else None,
        series_description=texts[0],
        patient_sex=_field(sidecar, "PatientSex"),
        patient_age=_field(sidecar, "PatientAge"),
        study_uid=_field(sidecar, "StudyInstanceUID"),
        series_uid=_field(sidecar, "SeriesInstanceUID"),
        patient_id=_field(sidecar, "PatientID"),
        burned_in_annotation=_field(sidecar, "BurnedInAnnotation"),
    )


def _read(path: Path) -> dict[str, Any]:
    if path.is_symlink() or not path.is_file():
        return {}
    try:
        if path.stat().st_size > _LIMIT_BYTES:
            raise ValueError
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise QuarantineError("BAD_SIDECAR", type(error).__name__, "repair or remove the JSON beside it") from error
    if not isinstance(content, dict):
        raise QuarantineError("BAD_SIDECAR", "JSON that is not an object", "repair or remove the JSON beside it")
    return content


def _field(sidecar: dict[str, Any], name: str) -> str | None:
    value = sidecar.get(name)
    return (str(value).strip() or None) if isinstance(value, str | int | float) else None
