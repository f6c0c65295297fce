"""Images of one class each: by the folder they lie in, or by a table at the root.

Folders are ``<class>/*.png`` or ``<train|val|test>/<class>/*.png``; ``ingest.lesion_classes`` may rename or leave out
classes. The table ``labels.csv``, ``.tsv`` or ``.parquet`` has the columns ``image_path`` (relative to the root) and
``lesion_class``, and may have ``subject`` and ``split``; where it is there, folders and the mapping mean nothing. Each
image is one lesion example. Without subjects, clusters of near-copies stand in for them.
"""

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from pipeline.errors import InputError, QuarantineError
from pipeline.ingest.allow_list import is_class_name
from pipeline.ingest.found import NEAR_DUPLICATES, Found, FoundImage, Ignored, Layout, Reading
from pipeline.ingest.image_labels import FORM, SPLITS, ImageLabel, read_image_labels
from pipeline.ingest.images import IMAGE_SUFFIXES, read_gray_images
from pipeline.ingest.isolated import CHUNK_FILES, parse_each, spread_outcomes
from pipeline.ingest.layouts import slice_pairs
from pipeline.ingest.layouts.claims import claimed
from pipeline.ingest.lesion_classes import lesion_class_of
from pipeline.ingest.source_tree import Refusal, SourceFile, SourceTree
from pipeline.ingest.table_files import find_table, table_names


@dataclass(frozen=True)
class _Sorted:
    """Images by what is known of them, those that are left out, and what cannot be used."""

    labeled: dict[str, ImageLabel]
    left_out: int
    refusals: list[Refusal]


def recognize(tree: SourceTree) -> str | None:
    """See `Layout.recognize`; images that a more special layout knows are left to it."""
    special = claimed(tree)
    images = [file for file in tree.files if file.name not in special and file.suffix in IMAGE_SUFFIXES]
    tables = sorted(table_names(FORM.stem) & tree.named().keys())
    if images and tables:
        return f"{len(images)} images, with {', '.join(tables)}"
    placed = [place for file in images if (place := _place(file)) is not None]
    if not placed or slice_pairs.recognize(tree) is not None:
        return None
    splits = sorted({split for split, _ in placed if split is not None})
    classes = {lesion_class for _, lesion_class in placed}
    published = f", published split {' / '.join(splits)}" if splits else ""
    return f"{len(placed)} images in {len(classes)} class folders{published}"


def read(reading: Reading) -> Iterator[Found]:
    """See `Layout.read`.

    Raises:
        InputError: a table of another form, folder names that cannot be classes.
    """
    images = {file.name: file for file in reading.tree.files if file.suffix in IMAGE_SUFFIXES}
    table = find_table(reading.tree, FORM)
    labels = None if table is None else read_image_labels(table, reading.limits)
    if labels is None:
        _check_folders(reading.tree)
    arrived: set[str] = set()
    lost: Counter[tuple[str, str]] = Counter()
    found = _by_folder(reading, images) if labels is None else _by_table(labels, images)
    yield Ignored(len(reading.tree.files) - len(images) + found.left_out)
    yield from found.refusals
    files = {images[name].path: images[name] for name in found.labeled}
    parse = partial(parse_each, read_gray_images, limits=reading.limits)
    for count, outcome in enumerate(spread_outcomes(reading.spread, parse, CHUNK_FILES, list(files)), start=1):
        name = files[outcome.task].name
        label = found.labeled[name]
        if outcome.result is None:
            refusal = outcome.refusal or _lost()
            lost[label.lesion_class, refusal.reason] += 1
            yield Refusal((name,), refusal)
        else:
            arrived.add(label.lesion_class)
            yield FoundImage(
                outcome.result, "class_folders", f"image\0{name}", (name,), subject_word=label.subject,
                subject_source=NEAR_DUPLICATES if label.subject is None else "table",
                lesion_class=label.lesion_class, published_split=label.split,
            )  # fmt: skip
        reading.progress("images read", count, len(files))
    _check_arrived(lost, arrived)


def _by_folder(reading: Reading, images: dict[str, SourceFile]) -> _Sorted:
    """Class and split of each image by the folders it lies in."""
    mapping = reading.settings.lesion_classes
    placed = {name: place for name, file in images.items() if (place := _place(file)) is not None}
    if mapping is None:
        _check_class_names({folder for _, folder in placed.values()})
    labeled = {
        name: ImageLabel(lesion_class, split=split)
        for name, (split, folder) in placed.items()
        if (lesion_class := lesion_class_of(folder, mapping)) is not None
    }
    refusals = []
    for name, file in images.items():
        if name not in placed:
            found = f"an image {len(file.parts) - 1} folders deep"
            refusals.append(Refusal((name,), _no_class(found, "Put it directly into a class folder.")))
    return _Sorted(labeled, len(placed) - len(labeled), refusals)


def _by_table(labels: dict[str, ImageLabel], images: dict[str, SourceFile]) -> _Sorted:
    """Labels of the images that are there, and refusals of images and rows without the other."""
    unlabeled = _no_class("an image that the table of labels does not list", "Add a line for it, or take it out.")
    advice = "Correct the path in the table of labels, or add the file."
    refusals = [Refusal((name,), unlabeled) for name in images if name not in labels]
    for name, label in labels.items():
        if name not in images:
            missing = QuarantineError("MISSING_REFERENCE", f"{label.place}: an image that is not in the input", advice)
            refusals.append(Refusal((name,), missing))
    return _Sorted({name: label for name, label in labels.items() if name in images}, 0, refusals)


def _no_class(found: str, advice: str) -> QuarantineError:
    return QuarantineError("NO_CLASS", found, advice)


def _place(file: SourceFile) -> tuple[str | None, str] | None:
    """Published split and class of an image, from the folders it lies in."""
    if file.suffix not in IMAGE_SUFFIXES:
        return None
    folders = file.parts[:-1]
    if len(folders) == 2 and folders[0].lower() in SPLITS:
        return SPLITS[folders[0].lower()], folders[1]
    return (None, folders[0]) if len(folders) == 1 and folders[0].lower() not in SPLITS else None


def _check_class_names(names: set[str]) -> None:
    odd = Counter(is_class_name(name) for name in names)[False]
    if odd:
        raise InputError(
            "A class folder must have a name that can be shown and used as a folder again.",
            found=f"{odd} of {len(names)} folder names with other characters or more than 64 of them",
            allowed="letters, digits, space and _ , . ( ) + & - after a first letter or digit",
            change="Rename these folders.",
        )


def _check_folders(tree: SourceTree) -> None:
    """Refuse class folders that hold nothing: a class that silently goes missing is found out late."""
    used = {folder for file in tree.files for folder in itertools.accumulate(file.parts[:-1], "{}/{}".format)}
    with os.scandir(tree.root) as entries:
        first = [entry for entry in entries if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")]
    empty = sum(entry.name not in used for entry in first)
    if empty:
        raise InputError(
            "Every class folder holds images.",
            found=f"{empty} of {len(first)} folders of the input without any file",
            allowed="folders with images",
            change="Put images of the class there, or take the folder out.",
        )


def _check_arrived(lost: Counter[tuple[str, str]], arrived: set[str]) -> None:
    """Refuse a class of which no image could be used; ``lost`` counts images by class and reason."""
    missing = sorted({lesion_class for lesion_class, _ in lost} - arrived)
    if not arrived or not missing:
        return
    told = []
    for name in missing:
        reasons = {reason: count for (own, reason), count in sorted(lost.items()) if own == name}
        why = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        told.append(f"{name}: none of {sum(reasons.values())} images ({why})")
    raise InputError(
        "Every class needs an image that can be used.",
        found="; ".join(told),
        allowed="one image at least, and some hundred to learn from",
        change="Copy damaged images again from their source, convert those in color to gray, or leave the class out "
        "with ingest.lesion_classes.",
    )


def _lost() -> QuarantineError:
    return QuarantineError("UNREADABLE", "no result", "Copy the file again from its source.")


LAYOUT = Layout(recognize, read)
