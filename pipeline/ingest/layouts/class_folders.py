"""Images sorted into one folder for each class: ``<class>/*.png`` or ``<train|val|test>/<class>/*.png``.

Each image is one lesion example of its folder's class. There are no subjects in such a set; clusters of near-copies
stand in for them.
"""

from collections import Counter
from collections.abc import Iterator

from pipeline.errors import InputError, QuarantineError
from pipeline.ingest.allow_list import is_class_name
from pipeline.ingest.found import Found, FoundImage, Ignored, Layout, Reading
from pipeline.ingest.images import IMAGE_SUFFIXES, read_images
from pipeline.ingest.isolated import parse_each
from pipeline.ingest.layouts import slice_pairs
from pipeline.ingest.layouts.claims import claimed
from pipeline.ingest.source_tree import Refusal, SourceFile, SourceTree

SPLIT_FOLDERS = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Folder names, in lower case, that are a published split."""


def recognize(tree: SourceTree) -> str | None:
    """See `Layout.recognize`; images that a more special layout knows are left to it."""
    special = claimed(tree)
    placed = [place for file in tree.files if file.name not in special and (place := _place(file)) is not None]
    if not placed or slice_pairs.recognize(tree) is not None:
        return None
    splits = sorted({split for split, _ in placed if split is not None})
    classes = {lesion_class for _, lesion_class in placed}
    published = f", published split {' / '.join(splits)}" if splits else ""
    return f"{len(placed)} images in {len(classes)} class folders{published}"


def read(reading: Reading) -> Iterator[Found]:
    """See `Layout.read`."""
    files = [file for file in reading.tree.files if file.suffix in IMAGE_SUFFIXES]
    places = {file.path: (file, place) for file in files if (place := _place(file)) is not None}
    _check_class_names({lesion_class for _, (_, lesion_class) in places.values()})
    yield Ignored(len(reading.tree.files) - len(files))
    for file in files:
        if file.path not in places:
            found = f"an image {len(file.parts) - 1} folders deep"
            yield Refusal((file.name,), QuarantineError("NO_CLASS", found, "Put it directly into a class folder."))
    for count, outcome in enumerate(parse_each(read_images, list(places), reading.limits), start=1):
        file, (split, lesion_class) = places[outcome.task]
        if outcome.result is None:
            yield Refusal((file.name,), outcome.refusal or _lost())
        else:
            yield FoundImage(
                outcome.result, "class_folders", f"image\0{file.name}", (file.name,),
                lesion_class=lesion_class, published_split=split,
            )  # fmt: skip
        reading.progress("images read", count, len(places))


def _place(file: SourceFile) -> tuple[str | None, str] | None:
    """Published split and class of an image, from the folders it lies in."""
    if file.suffix not in IMAGE_SUFFIXES:
        return None
    folders = file.parts[:-1]
    if len(folders) == 2 and folders[0].lower() in SPLIT_FOLDERS:
        return SPLIT_FOLDERS[folders[0].lower()], folders[1]
    return (None, folders[0]) if len(folders) == 1 and folders[0].lower() not in SPLIT_FOLDERS else None


def _check_class_names(names: set[str]) -> None:
    odd = Counter(is_class_name(name) for name in names)[False]
    if odd:
        raise InputError(
            "A class folder must have a name that can be shown and used as a folder again.",
            found=f"{odd} of {len(names)} folder names with other characters or more than 64 of them",
            allowed="letters, digits, space and _ , . ( ) + & - after a first letter or digit",
            change="Rename these folders.",
        )


def _lost() -> QuarantineError:
    return QuarantineError("UNREADABLE", "no result", "Copy the file again from its source.")


LAYOUT = Layout(recognize, read)
