"""A dataset in the form of BIDS: ``sub-<label>/[ses-<label>/]anat/`` (or ``ct/``), lesion masks in ``derivatives/``.

Gorgolewski et al., Sci Data 3:160044, 2016; BIDS 1.10. The ``sub-`` label names the subject, each session is a study
of its own, suffixes tell modality and sequence. Only anatomical images are read: functional, diffusion and other
images are set aside with a reason, as are images in ``derivatives/`` other than masks. ``sourcedata/`` and ``code/``
are not looked at, nor is what ``.bidsignore`` names. A tree that also holds DICOM files elsewhere, or a lesion table
at its root, is left to `scans`.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from pipeline.errors import QuarantineError
from pipeline.ingest.found import Found, FoundVolume, Ignored, Layout, Reading
from pipeline.ingest.layouts.bids_ignore import ignored_by
from pipeline.ingest.layouts.bids_masks import PlacedImage, read_masks
from pipeline.ingest.layouts.bids_names import ANATOMICAL, DERIVATIVES, UNREAD_FOLDERS, BidsFile, bids_file
from pipeline.ingest.layouts.dicom_names import may_be_dicom
from pipeline.ingest.layouts.nifti_cases import IMAGE_FILE_SUFFIXES, NiftiCase, read_cases, refused_pairs
from pipeline.ingest.lesion_table import FORM
from pipeline.ingest.source_tree import Refusal, SourceFile, SourceTree, looks_dicom, read_start
from pipeline.ingest.table_files import table_names
from pipeline.scan_io.sidecar import modality_of_suffix

DESCRIPTION, PARTICIPANTS = "dataset_description.json", "participants.tsv"
_TABLE_LIMIT_BYTES = 16 << 20
_FOLDERS = UNREAD_FOLDERS | {DERIVATIVES}


def recognize(tree: SourceTree) -> str | None:
    """See `Layout.recognize`."""
    if table_names(FORM.stem) & tree.named().keys():
        return None
    images = [found for file in tree.files if (found := bids_file(file)) is not None and _is_image(found)]
    if not images or any(
        looks_dicom(file) for file in tree.files if file.parts[0] not in UNREAD_FOLDERS and may_be_dicom(file)
    ):
        return None
    subjects = len({image.subject for image in images})
    sessions = len({(image.subject, image.session) for image in images if image.session is not None})
    described = f"{DESCRIPTION}, " if DESCRIPTION in tree.named() else ""
    return f"{described}{len(images)} images in anat/ or ct/ of {subjects} sub- folders, {sessions} sessions"


def claims(tree: SourceTree) -> frozenset[str]:
    """Names of the files that this layout knows, none where a tree is not of it."""
    if recognize(tree) is None:
        return frozenset()
    return frozenset(
        file.name
        for file in tree.files
        if len(file.parts) > 1 and (file.parts[0].startswith("sub-") or file.parts[0] in _FOLDERS)
    )


def read(reading: Reading) -> Iterator[Found]:
    """See `Layout.read`."""
    sorted_out = _sort(reading.tree)
    yield Ignored(sorted_out.ignored)
    yield from sorted_out.refusals
    by_name = {image.file.name: image for image in sorted_out.images}
    cases = [
        NiftiCase(image.file, modality_of_suffix(image.suffix), f"sub-{image.subject}") for image in sorted_out.images
    ]
    placed = []
    for case, outcome in read_cases(reading, cases):
        if isinstance(outcome, FoundVolume):
            volume = _as_bids(outcome, by_name[case.file.name])
            placed.append(PlacedImage(by_name[case.file.name], volume.word, volume.scan.geometry))
            yield volume
        else:
            yield outcome
    yield from read_masks(reading, sorted_out.masks, placed)
    yield from _absent(reading.tree, {f"sub-{image.subject}" for image in sorted_out.images})


@dataclass
class _Sorted:
    """The files of a tree by what becomes of them."""

    images: list[BidsFile] = field(default_factory=list)
    masks: list[BidsFile] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    ignored: int = 0


def _sort(tree: SourceTree) -> _Sorted:
    result = _Sorted()
    is_ignored = ignored_by(tree)
    kept = [file for file in tree.files if file.parts[0] not in UNREAD_FOLDERS and not is_ignored(file.name)]
    result.refusals += refused_pairs(kept)
    derived, seen = [], {name for pair in result.refusals for name in pair.names}
    for file in kept:
        if file.suffix not in IMAGE_FILE_SUFFIXES:
            result.ignored += file.name not in seen
            continue
        found = bids_file(file)
        if found is not None and found.is_mask:
            result.masks.append(found)
        elif file.parts[0] == DERIVATIVES:
            derived.append(file.name)
        elif found is not None and _is_image(found):
            result.images.append(found)
        else:
            result.refusals.append(Refusal((file.name,), _not_anatomical(found)))
    if derived:
        found_text = f"{len(derived)} images in {DERIVATIVES}/ that are no masks"
        advice = "Nothing to do; the images they were made from are read. Read a derived set as an input of its own."
        result.refusals.append(Refusal(tuple(derived), QuarantineError("DERIVED", found_text, advice)))
    result.ignored += len(tree.files) - len(kept)
    _refuse_doubles(result)
    return result


def _refuse_doubles(result: _Sorted) -> None:
    """Refuse images of one name in two formats: neither is known to be right."""
    counts = Counter((image.file.folder, image.file.stem) for image in result.images)
    double = [image for image in result.images if counts[image.file.folder, image.file.stem] > 1]
    error = QuarantineError("AMBIGUOUS_CASE", "an image in two formats under one name", "Keep one of them.")
    result.refusals += [Refusal((image.file.name,), error) for image in double]
    result.images = [image for image in result.images if image not in double]


def _is_image(found: BidsFile) -> bool:
    return not found.derived and not found.is_mask and found.data_type in ANATOMICAL


def _as_bids(volume: FoundVolume, image: BidsFile) -> FoundVolume:
    """The volume under its ``sub-`` label, its session as its study where the JSON beside it names none."""
    facts = volume.scan.facts
    session = None if image.session is None else f"bids\0sub-{image.subject}\0ses-{image.session}"
    labels = [label for label in (image.volume_label, facts.volume_label) if label]
    facts = replace(facts, study_uid=facts.study_uid or session, volume_label="; ".join(labels) or None)
    scan = replace(volume.scan, facts=facts)
    return replace(volume, scan=scan, subject_word=f"sub-{image.subject}", subject_source="bids")


def _not_anatomical(found: BidsFile | None) -> QuarantineError:
    if found is None or found.data_type is None:
        text = "an image that is not named or placed as BIDS has it"
        return QuarantineError("NOT_BIDS", text, "Name it sub-<label>_..._<suffix> in sub-<label>/[ses-<label>/]anat/.")
    text = f"an image of data type {found.data_type}"
    return QuarantineError("NOT_ANATOMICAL", text, "Nothing to do; only images in anat/ and ct/ are read.")


def _absent(tree: SourceTree, subjects: Iterable[str]) -> Iterator[Refusal]:
    """A row on subjects that ``participants.tsv`` lists and that have no image."""
    file = tree.named().get(PARTICIPANTS)
    if file is None:
        return
    listed = _listed(file)
    if not listed:
        error = QuarantineError("BAD_TABLE", "no column participant_id with values", f"Correct {PARTICIPANTS}.")
        yield Refusal((file.name,), error)
    elif absent := len(set(listed) - set(subjects)):
        found = f"{absent} of {len(set(listed))} subjects in {PARTICIPANTS} have no image in anat/ or ct/"
        yield Refusal((file.name,), QuarantineError("MISSING_REFERENCE", found, "Add their images, or go on without."))


def _listed(file: SourceFile) -> Sequence[str]:
    """Subjects of the table, with ``sub-`` before their label; nothing else of it is kept."""
    try:
        text = read_start(file, _TABLE_LIMIT_BYTES).decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t"))
    except (UnicodeDecodeError, csv.Error):
        return []
    labels = [(row.get("participant_id") or "").strip().removeprefix("sub-") for row in rows]
    return [f"sub-{label}" for label in labels if label]


LAYOUT = Layout(recognize, read)
