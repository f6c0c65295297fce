"""One .npz file of arrays ``{train,val,test}_images`` and ``{train,val,test}_labels``, as in MedMNIST v2 (Yang 2023).

Images (N, rows, columns) or (N, rows, columns, 3), labels (N,) or (N, 1) whole numbers. Class names come from a JSON of
the same stem beside it (``{"0": "normal", ...}`` or a list, also under the key "label" or "labels"), else ``class-0``.
"""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError, QuarantineError
from pipeline.ingest.allow_list import is_class_name
from pipeline.ingest.found import Found, FoundImage, Ignored, Layout, Reading
from pipeline.ingest.source_tree import Refusal, SourceFile, SourceTree, read_start
from pipeline.safe_parse import parse_all

SPLITS = {"train": "train", "val": "validation", "test": "test"}
"""Prefix of the arrays → published split."""

_NAMES_LIMIT_BYTES = 1 << 20
Arrays = tuple[NDArray[Any], NDArray[np.int64]]


def recognize(tree: SourceTree) -> str | None:
    """See `Layout.recognize`."""
    archives = _archives(tree)
    return f"{len(archives)} .npz file{'s' if len(archives) > 1 else ''} at the top" if archives else None


def read(reading: Reading) -> Iterator[Found]:
    """See `Layout.read`.

    Raises:
        InputError: there is not exactly one .npz file, or the JSON beside it does not name classes.
    """
    archives = _archives(reading.tree)
    if len(archives) != 1:
        raise InputError(
            "The input must be one .npz file.",
            found=f"{len(archives)} .npz files",
            allowed="one file, given itself or alone in its folder",
            change="Give the path of the file itself with --input.",
        )
    names = _class_names(reading.tree, archives[0])
    yield Ignored(len(reading.tree.files) - 1)
    tasks = [(archives[0].path, prefix) for prefix in SPLITS]
    for count, outcome in enumerate(parse_all(read_split, tasks, reading.limits), start=1):
        prefix = outcome.task[1]
        if outcome.result is not None:
            yield from _images(archives[0], prefix, outcome.result, names)
        elif outcome.refusal is not None:
            yield Refusal((archives[0].name, f"{archives[0].name}#{prefix}")[:1], outcome.refusal)
        reading.progress("arrays read", count, len(tasks))


def read_split(task: tuple[Path, str]) -> Arrays:
    """Images and labels of one split; runs in the parsing process.

    Raises:
        QuarantineError: UNREADABLE, MISSING_ARRAY, BAD_ARRAY.
    """
    path, prefix = task
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in (f"{prefix}_images", f"{prefix}_labels") if name not in archive]
            if missing:
                raise QuarantineError(
                    "MISSING_ARRAY", f"no array {' or '.join(missing)}", "Add it, or ignore this row."
                )
            images, labels = archive[f"{prefix}_images"], archive[f"{prefix}_labels"]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        found = f"{type(error).__name__} while reading the {prefix} arrays"
        raise QuarantineError("UNREADABLE", found, "Arrays of objects are never loaded; save plain arrays.") from error
    return _checked_images(images), _checked_labels(labels, len(images))


def _checked_images(images: NDArray[Any]) -> NDArray[Any]:
    gray_or_color = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
    if not gray_or_color or images.dtype not in (np.uint8, np.uint16) or 0 in images.shape:
        found = f"images of shape {images.shape} and type {images.dtype}"
        advice = "Save (N, rows, columns) or (N, rows, columns, 3) as uint8 or uint16."
        raise QuarantineError("BAD_ARRAY", found, advice)
    return images


def _checked_labels(labels: NDArray[Any], count: int) -> NDArray[np.int64]:
    flat = labels.reshape(-1)
    if labels.shape not in ((count,), (count, 1)) or not np.issubdtype(labels.dtype, np.integer) or flat.min() < 0:
        found = f"labels of shape {labels.shape} and type {labels.dtype} for {count} images"
        raise QuarantineError("BAD_ARRAY", found, "Save one whole number from 0 up for each image.")
    return flat.astype(np.int64)


def _images(file: SourceFile, prefix: str, arrays: Arrays, names: dict[int, str]) -> Iterator[Found]:
    images, labels = arrays
    for index, (pixels, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        yield FoundImage(
            pixels,
            "medmnist_npz",
            f"image\0{file.name}\0{prefix}\0{index}",
            (file.name,),
            lesion_class=names.get(label, f"class-{label}"),
            published_split=SPLITS[prefix],
        )


def _archives(tree: SourceTree) -> list[SourceFile]:
    return [file for file in tree.files if file.suffix == ".npz" and len(file.parts) == 1]


def _class_names(tree: SourceTree, archive: SourceFile) -> dict[int, str]:
    file = tree.named().get(f"{archive.stem}.json")
    if file is None:
        return {}
    try:
        content = json.loads(read_start(file, _NAMES_LIMIT_BYTES))
        if isinstance(content, dict):
            content = content.get("label", content.get("labels", content))
        pairs = enumerate(content) if isinstance(content, list) else content.items()
        names = {int(number): name for number, name in pairs}
    except (ValueError, TypeError, AttributeError, RecursionError):
        names = {0: None}
    if all(isinstance(name, str) and is_class_name(name) for name in names.values()):
        return names
    raise InputError(
        "The JSON beside an .npz file must name its classes.",
        found="something else",
        allowed='{"0": "normal", "1": "pneumonia"} or ["normal", "pneumonia"]; letters, digits and simple signs',
        change="Correct or remove the JSON.",
    )


LAYOUT = Layout(recognize, read)
