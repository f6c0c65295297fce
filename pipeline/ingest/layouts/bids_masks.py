"""Lesions of a BIDS tree: masks and segmentations, joined to the images that they share entities with.

``*_mask`` names its structure in ``label-`` or ``desc-``; ``*_dseg`` holds several, which a lookup table (``dseg.tsv``
with the columns index and name, the nearest one above it whose entities it shares) names. BIDS 1.10, Imaging data
derivatives. A mask belongs to the images of its subject and session that have every entity it names, and of these to
the ones with the fewest others; ``space-T1w`` or ``mod-T1w`` says which contrast. Where several of those lie on its
grid it is refused.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import QuarantineError
from pipeline.geometry import Geometry
from pipeline.ingest.allow_list import is_class_name
from pipeline.ingest.found import Found, FoundMask, Ignored, Reading
from pipeline.ingest.layouts.bids_names import BidsFile, entities_and_suffix
from pipeline.ingest.layouts.nifti_cases import mask_outcomes
from pipeline.ingest.lesion_classes import first_class, lesion_class_of
from pipeline.ingest.lesion_masks import AlignedMask, MaskTask
from pipeline.ingest.source_tree import Refusal, SourceFile, SourceTree, read_start

NO_LESIONS = frozenset({"brain", "head", "body", "skull", "face", "deface", "fov", "background"})
"""Masks with such a ``desc-`` and no ``label-`` are no lesions, unless ``ingest.lesion_classes`` names them."""

_OWN_ENTITIES = frozenset({"label", "desc", "space", "mod", "orig", "res", "den", "seg", "atlas", "hemi", "stat"})
"""Entities that say what a mask is, or where it was drawn, not which image it belongs to."""

_TABLE_LIMIT_BYTES = 1 << 20
_UNMAPPED = "Name the structure in the file name (label-), or add a dseg.tsv with the columns index and name."


@dataclass(frozen=True)
class PlacedImage:
    """An accepted volume: its file, `FoundVolume.word` and grid."""

    bids: BidsFile
    word: str
    geometry: Geometry


@dataclass(frozen=True)
class _Work:
    """A mask to be read: what its values mean, None for any one value, and the images it may belong to."""

    mask: BidsFile
    classes: Mapping[int, str | None] | str
    images: Sequence[PlacedImage]


def read_masks(reading: Reading, masks: Sequence[BidsFile], images: Sequence[PlacedImage]) -> Iterator[Found]:
    """The lesions of every mask on the grid of its image, and why others are none."""
    tables = _tables(reading.tree)
    work = []
    for mask in masks:
        try:
            classes = _classes(mask, tables, reading.settings.lesion_classes)
            if not classes or (not isinstance(classes, str) and not any(classes.values())):
                yield Ignored(1)
            else:
                work.append(_Work(mask, classes, candidates(mask, images)))
        except QuarantineError as refusal:
            yield Refusal((mask.file.name,), refusal)
    tasks = [
        MaskTask(
            item.mask.file.path,
            tuple((image.geometry.shape, tuple(image.geometry.affine.ravel().tolist())) for image in item.images),
        )
        for item in work
    ]
    for count, (item, outcome) in enumerate(zip(work, mask_outcomes(reading, tasks), strict=True), 1):
        if outcome.result is None:
            yield Refusal((item.mask.file.name,), _explained(outcome.refusal))
        else:
            yield from _lesions(item, outcome.result)
        reading.progress("masks read", count, len(tasks))


def candidates(mask: BidsFile, images: Sequence[PlacedImage]) -> list[PlacedImage]:
    """The images that a mask may be drawn on.

    Raises:
        QuarantineError: MISSING_REFERENCE where there is none.
    """
    needed = {key: value for key, value in mask.entities.items() if key not in _OWN_ENTITIES}
    own = [
        image
        for image in images
        if (image.bids.subject, image.bids.session) == (mask.subject, mask.session)
        and needed.items() <= image.bids.entities.items()
    ]
    contrasts = {mask.entities.get(key) for key in ("mod", "space")}
    own = [image for image in own if image.bids.suffix in contrasts] or own
    if not own:
        advice = "Add the image, or give the mask the entities of its image (sub, ses, run, acq ...)."
        raise QuarantineError("MISSING_REFERENCE", "a mask of an image that is not there or was refused", advice)
    fewest = min(len(image.bids.entities) for image in own)
    return [image for image in own if len(image.bids.entities) == fewest]


def _lesions(item: _Work, mask: AlignedMask) -> Iterator[Found]:
    name, image = item.mask.file.name, item.images[mask.grid]
    present = sorted(set(np.unique(mask.voxels).tolist()) - {0})
    if isinstance(item.classes, str):
        classes: Mapping[int, str | None] = dict.fromkeys(present[:1], item.classes)
        advice = "Store one structure a mask, as 1, or several as a dseg with its dseg.tsv."
    else:
        classes, advice = item.classes, "Name every value in dseg.tsv."
    unknown = [value for value in present if value not in classes]
    if unknown:
        found = f"{len(unknown)} of {len(present)} values without a class, e.g. {unknown[0]}"
        yield Refusal((name,), QuarantineError("MASK_VALUE_UNKNOWN", found, advice))
        return
    drawn = {value: lesion for value in present if (lesion := classes[value]) is not None}
    if drawn:
        yield FoundMask(mask.voxels, image.geometry, image.word, drawn, name)


def _explained(refusal: QuarantineError | None) -> QuarantineError:
    """The refusal, with advice for masks that several images fit."""
    if refusal is None:
        return QuarantineError("UNREADABLE", "no result", "Copy it again.")
    if refusal.reason != "AMBIGUOUS_REFERENCE":
        return refusal
    advice = "Say in the name of the mask which image it was drawn on, e.g. space-T1w, or run-1."
    return QuarantineError(refusal.reason, refusal.found, advice)


def _classes(
    mask: BidsFile, tables: Sequence["_Table"], mapping: Mapping[str, str] | None
) -> Mapping[int, str | None] | str | None:
    """Class of the one structure of a mask, None where it is left out; classes by value for a dseg."""
    if mask.suffix == "dseg":
        return {value: _shown(lesion_class_of(name, mapping)) for value, name in _lookup(mask, tables).items()}
    names = [mask.entities[key] for key in ("label", "desc") if key in mask.entities]
    if not names:
        raise QuarantineError("UNMAPPED_STRUCTURE", "a mask that does not name its structure", _UNMAPPED)
    if mapping is not None:
        return first_class(names, mapping)
    return None if "label" not in mask.entities and names[0].lower() in NO_LESIONS else names[0]


def _shown(lesion_class: str | None) -> str | None:
    if lesion_class is None or is_class_name(lesion_class):
        return lesion_class
    found = "a structure whose name cannot be shown as it is"
    raise QuarantineError("UNMAPPED_STRUCTURE", found, "Give it a class with ingest.lesion_classes.")


@dataclass(frozen=True)
class _Table:
    """A lookup table and the entities in its name."""

    file: SourceFile
    entities: Mapping[str, str]


def _tables(tree: SourceTree) -> list[_Table]:
    found = []
    for file in tree.files:
        named = entities_and_suffix(file.stem) if file.suffix == ".tsv" else None
        if named is not None and named[1] == "dseg":
            found.append(_Table(file, named[0]))
    return found


def _lookup(mask: BidsFile, tables: Sequence[_Table]) -> dict[int, str]:
    """Value → name, of the nearest table that holds for a dseg (BIDS inheritance principle)."""
    named = entities_and_suffix(mask.file.stem)
    entities = {} if named is None else named[0]
    above = [
        table
        for table in tables
        if f"{mask.file.folder}/".startswith(f"{table.file.folder}/" if table.file.folder else "")
        and table.entities.items() <= entities.items()
    ]
    if not above:
        raise QuarantineError("UNMAPPED_STRUCTURE", "a segmentation without a lookup table", _UNMAPPED)
    nearest = max(above, key=lambda table: (len(table.file.parts), len(table.entities)))
    return _table_rows(nearest.file)


def _table_rows(file: SourceFile) -> dict[int, str]:
    """Value → name; the background, 0, is left out."""
    try:
        text = read_start(file, _TABLE_LIMIT_BYTES).decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t"))
    except (UnicodeDecodeError, csv.Error):
        rows = []
    pairs = [(row.get("index") or "", row.get("name") or "") for row in rows]
    wrong = sum(not (re.fullmatch("[0-9]{1,5}", index.strip()) and name.strip()) for index, name in pairs)
    names = {} if wrong else {int(index): name.strip() for index, name in pairs}
    if not names or len(names) < len(pairs):
        found = f"a dseg.tsv of {len(pairs)} rows, {wrong} of them without index and name, or with one index twice"
        raise QuarantineError("BAD_TABLE", found, "Correct its columns index and name.")
    return {value: name for value, name in names.items() if value}
