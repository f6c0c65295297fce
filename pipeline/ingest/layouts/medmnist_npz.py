"""One .npz file of arrays ``{train,val,test}_images`` and ``{train,val,test}_labels``, as in MedMNIST v2 (Yang 2023).

Images (N, rows, columns) or (N, rows, columns, 3), labels (N,) or (N, 1) whole numbers. Class names come from a JSON of
the same stem beside it (``{"0": "normal", ...}`` or a list, also under the key "label" or "labels"), else ``class-0``.
"""

import json
from collections.abc import Iterator

from pipeline.errors import InputError
from pipeline.ingest.allow_list import is_class_name
from pipeline.ingest.found import Found, FoundImage, Ignored, Layout, Reading
from pipeline.ingest.npz_arrays import Arrays, read_split
from pipeline.ingest.source_tree import Refusal, SourceFile, SourceTree, read_start
from pipeline.safe_parse import parse_all

SPLITS = {"train": "train", "val": "validation", "test": "test"}
"""Prefix of the arrays → published split."""

_NAMES_LIMIT_BYTES = 1 << 20


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
        if outcome.result is not None:
            yield from _images(archives[0], outcome.task[1], outcome.result, names)
        elif outcome.refusal is not None:
            yield Refusal((archives[0].name,), outcome.refusal)
        reading.progress("arrays read", count, len(tasks))


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
