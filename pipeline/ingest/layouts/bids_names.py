"""File names of the Brain Imaging Data Structure: ``sub-01_ses-a_run-2_T1w.nii.gz`` in ``sub-01/ses-a/anat/``.

BIDS 1.10, Common principles and Magnetic Resonance Imaging; Gorgolewski et al., Sci Data 3:160044, 2016.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.ingest.layouts.nifti_cases import IMAGE_FILE_SUFFIXES
from pipeline.ingest.source_tree import SourceFile

DERIVATIVES = "derivatives"
UNREAD_FOLDERS = frozenset({"sourcedata", "code", "stimuli"})
"""Folders at the root that hold no images in the form of BIDS, or those that the raw images were made from."""

ANATOMICAL = frozenset({"anat", "ct"})
"""Data types that are read; ``ct`` is in use for CT, which BIDS itself has not yet named (BEP024)."""

MASK_SUFFIXES = frozenset({"mask", "dseg"})
_DATA_TYPES = frozenset(
    {"anat", "ct", "func", "dwi", "fmap", "perf", "pet", "meg", "eeg", "ieeg", "beh", "micr", "nirs", "motion", "mrs"}
)
_LABEL = re.compile(r"[A-Za-z0-9+]+")
_PARTS = {"mag": "M", "phase": "P", "real": "R", "imag": "I"}


@dataclass(frozen=True)
class BidsFile:
    """An image file with a name in the form of BIDS.

    Attributes:
        file: where it lies.
        subject: label after ``sub-``.
        session: label after ``ses-``, or None.
        data_type: folder that the file lies in, where it is one that BIDS names, else None.
        entities: the other entities by key, e.g. run, acq, space.
        suffix: last part of the name, e.g. T1w.
        derived: lies in ``derivatives/``.
    """

    file: SourceFile
    subject: str
    session: str | None
    data_type: str | None
    entities: Mapping[str, str]
    suffix: str
    derived: bool

    @property
    def is_mask(self) -> bool:
        """Whether it is a segmentation, wherever it lies."""
        return self.suffix in MASK_SUFFIXES

    @property
    def volume_label(self) -> str | None:
        """Which of the volumes of one acquisition it is, in defined terms only, e.g. ``echo 2; part P``.

        Labels that a user made up, as of acq, say nothing here: they may hold anything.
        """
        numbers = [
            f"{word} {int(self.entities[key])}"
            for key, word in (("echo", "echo"), ("inv", "inversion"), ("flip", "flip angle"))
            if re.fullmatch("[0-9]{1,4}", self.entities.get(key, ""))
        ]
        part = _PARTS.get(self.entities.get("part", ""))
        return "; ".join([*numbers, f"part {part}"] if part else numbers) or None


def bids_file(file: SourceFile) -> BidsFile | None:
    """What a file is by its path; None where it is no image, or not named and placed as BIDS has it."""
    folders, derived = list(file.parts[:-1]), file.parts[0] == DERIVATIVES
    if file.suffix not in IMAGE_FILE_SUFFIXES or not folders or folders[0] in UNREAD_FOLDERS:
        return None
    named = entities_and_suffix(file.stem)
    if named is None:
        return None
    entities, suffix = named
    subject, session = entities.pop("sub", None), entities.pop("ses", None)
    if subject is None or f"sub-{subject}" not in folders or (not derived and folders[0] != f"sub-{subject}"):
        return None
    if any(folder.startswith("ses-") and folder != f"ses-{session}" for folder in folders):
        return None
    data_type = folders[-1] if folders[-1] in _DATA_TYPES else None
    return BidsFile(file, subject, session, data_type, entities, suffix, derived)


def entities_and_suffix(stem: str) -> tuple[dict[str, str], str] | None:
    """Entities by key and the suffix of a file name without ending; None where it is not of that form.

    >>> entities_and_suffix("sub-01_run-2_T1w"), entities_and_suffix("dseg"), entities_and_suffix("sub-01_x-_y")
    (({'sub': '01', 'run': '2'}, 'T1w'), ({}, 'dseg'), None)
    """
    *pairs, suffix = stem.split("_")
    entities: dict[str, str] = {}
    for pair in pairs:
        key, _, value = pair.partition("-")
        if not key.isalpha() or not _LABEL.fullmatch(value) or key in entities:
            return None
        entities[key] = value
    return (entities, suffix) if _LABEL.fullmatch(suffix) else None
