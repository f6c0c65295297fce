"""Registered MR and CT of a subject in one folder: ``<subject>/{mr,ct,mask}.nii.gz`` or ``.mha``, as in SynthRAD.

Thummerer et al., Med Phys 50:4664, 2023 (SynthRAD2023, NIfTI) and SynthRAD2025 (MetaImage). MR and CT of a folder are
registered and on one grid; they are given one frame of reference, so that they are paired. Where the grids differ the
pair is refused: it is not what the layout promises. The folder names the subject, whatever lies above it, unless a JSON
beside a file tells a PatientID. The mask, an outline of the patient, is not read.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

from pipeline.errors import QuarantineError
from pipeline.ingest.found import Found, FoundVolume, Ignored, Layout, Reading
from pipeline.ingest.images import IMAGE_SUFFIXES
from pipeline.ingest.layouts.nifti_cases import IMAGE_FILE_SUFFIXES, NiftiCase, of_one_subject, read_cases, with_frame
from pipeline.ingest.lesion_masks import GRID_TOLERANCE_MM
from pipeline.ingest.lesion_table import FORM
from pipeline.ingest.source_tree import Refusal, SourceFile, SourceTree
from pipeline.ingest.table_files import table_names

MODALITIES = {"mr": "MR", "ct": "CT"}
"""File name without ending → modality."""

MASK, CONE_BEAM = "mask", "cbct"
OVERVIEWS = frozenset({"overview", "overviews"})
"""Folders of preview images, which are no data."""

_STEMS = frozenset({*MODALITIES, MASK, CONE_BEAM})


def recognize(tree: SourceTree) -> str | None:
    """See `Layout.recognize`; it takes an MR and a CT, or one of them and a mask, in one folder.

    A tree with a lesion table is left to `scans`: there the masks are drawn lesions.
    """
    folders = _folders(tree)
    if table_names(FORM.stem) & tree.named().keys():
        return None
    pairs = sum(set(MODALITIES) <= stems for stems in folders.values())
    if not any(len(stems) > 1 and stems & set(MODALITIES) for stems in folders.values()):
        return None
    single = sum(len(stems & set(MODALITIES)) == 1 for stems in folders.values())
    return f"{pairs} folders with mr and ct, {single} with one of them"


def claims(tree: SourceTree) -> frozenset[str]:
    """Names of the files that this layout knows, none where a tree is not of it."""
    if recognize(tree) is None:
        return frozenset()
    return frozenset(file.name for file in tree.files if _is_member(file) or _is_overview(file))


def read(reading: Reading) -> Iterator[Found]:
    """See `Layout.read`."""
    cases = []
    ignored = 0
    for file in reading.tree.files:
        if _is_member(file) and file.stem in MODALITIES:
            cases.append(NiftiCase(file, MODALITIES[file.stem], file.parts[-2]))
        elif (refusal := _refusal(file)) is not None:
            yield Refusal((file.name,), refusal)
        else:
            ignored += 1
    yield Ignored(ignored)
    cases.sort(key=lambda case: (case.file.folder, case.file.name))
    for folder, members in groupby(read_cases(reading, cases), key=lambda item: item[0].file.folder):
        outcomes = [outcome for _, outcome in members]
        yield from (outcome for outcome in outcomes if isinstance(outcome, Refusal))
        yield from _registered(folder, [outcome for outcome in outcomes if isinstance(outcome, FoundVolume)])


def _registered(folder: str, volumes: Sequence[FoundVolume]) -> Iterator[Found]:
    """The volumes of a folder in one frame of reference; a lone volume, which is registered to nothing, as it is."""
    modalities = [volume.scan.modality for volume in volumes]
    if len(set(modalities)) < len(modalities):
        for volume in volumes:
            found = f"{len(volumes)} files in a folder that should hold one mr and one ct"
            yield Refusal(volume.names, QuarantineError("AMBIGUOUS_CASE", found, "Keep one of each, in one format."))
    elif len(volumes) < 2:
        yield from volumes
    elif volumes[0].scan.geometry.matches(volumes[1].scan.geometry, GRID_TOLERANCE_MM):
        yield from (with_frame(volume, f"synthrad\0{folder}") for volume in of_one_subject(volumes))
    else:
        for volume in volumes:
            yield Refusal(volume.names, _grids_differ(volumes))


def _grids_differ(volumes: Sequence[FoundVolume]) -> QuarantineError:
    first, second = (volume.scan.geometry for volume in volumes)
    if first.shape == second.shape:
        found = f"MR and CT of {first.shape} voxels that lie up to {first.distance_mm(second):.3f} mm apart"
    else:
        shapes = {volume.scan.modality: volume.scan.geometry.shape for volume in volumes}
        found = f"MR of {shapes['MR']} and CT of {shapes['CT']} voxels"
    return QuarantineError("PAIR_GRID_MISMATCH", found, "Resample the CT to the grid of the MR.")


def _refusal(file: SourceFile) -> QuarantineError | None:
    """Why an image file other than mr and ct is of no use; None for what is not read, such as masks and tables."""
    if file.suffix not in IMAGE_FILE_SUFFIXES or (_is_member(file) and file.stem == MASK):
        return None
    if not _is_member(file):
        advice = "Put it into its subject's folder as mr.nii.gz or ct.nii.gz, or take it out."
        return QuarantineError("NO_CASE", "an image that is no mr, ct or mask in a subject's folder", advice)
    advice = "Nothing to do; cone-beam CT is neither MR nor a CT in HU."
    return QuarantineError("CONE_BEAM_CT", "a cone-beam CT", advice)


def _is_member(file: SourceFile) -> bool:
    return len(file.parts) > 1 and file.suffix in IMAGE_FILE_SUFFIXES and file.stem in _STEMS


def _is_overview(file: SourceFile) -> bool:
    return file.suffix in IMAGE_SUFFIXES and len(file.parts) > 1 and file.parts[-2].lower() in OVERVIEWS


def _folders(tree: SourceTree) -> dict[str, set[str]]:
    """Folder → which of the known names lie in it."""
    folders: dict[str, set[str]] = {}
    for file in tree.files:
        if _is_member(file):
            folders.setdefault(file.folder, set()).add(file.stem)
    return folders


LAYOUT = Layout(recognize, read)
