"""``dataset.json`` of segmentation sets: what the Decathlon and nnU-Net formats share.

A Decathlon set names modalities and classes as ``{"0": "CT"}`` and ``{"1": "liver"}`` (Antonelli et al., Nat Commun
13:4128, 2022), nnU-Net v2 as ``{"0": "CT"}`` and ``{"liver": 1}`` (its documentation, dataset_format.md). Errors count
entries and never quote them: free text may hold anything.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.errors import InputError
from pipeline.ingest.allow_list import is_class_name
from pipeline.ingest.lesion_classes import lesion_class_of
from pipeline.ingest.source_tree import SourceTree, read_start
from pipeline.scan_io import sequence_from_text

FILE_NAME = "dataset.json"
MAX_VALUE = 32767
"""Masks are stored as int16."""

_LIMIT_BYTES = 16 << 20
_MR_WORDS = frozenset({"mr", "mri"})


def read_dataset_json(tree: SourceTree) -> dict[str, Any] | None:
    """The object in ``dataset.json`` at the root, or None where there is none that can be read."""
    file = tree.named().get(FILE_NAME)
    if file is None or file.size > _LIMIT_BYTES:
        return None
    try:
        content = json.loads(read_start(file, _LIMIT_BYTES))
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def contrast(name: object) -> tuple[str | None, str | None]:
    """Modality and MR sequence that a modality or channel is called by; None for what it does not tell.

    >>> contrast("CT"), contrast("MRI"), contrast("t1gd"), contrast("PET")
    (('CT', None), ('MR', None), ('MR', 'T1'), (None, None))
    """
    if not isinstance(name, str):
        return None, None
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    sequence = sequence_from_text(name)
    is_mr = bool(words & _MR_WORDS) or sequence is not None
    if "ct" in words:
        return (None, None) if is_mr else ("CT", None)
    return ("MR", sequence) if is_mr else (None, None)


def lesion_classes(
    labels: Iterable[tuple[object, object]], mapping: Mapping[str, str] | None = None
) -> tuple[dict[int, str], frozenset[int]]:
    """Mask value → class, and the values that are left out, from pairs of value and name; 0 is background.

    Args:
        labels: value and name each.
        mapping: ``ingest.lesion_classes``; None lets names be classes.

    Raises:
        InputError: a value that is no single whole number, given twice, or a name that cannot be shown; no label that
            the mapping names.
    """
    pairs = [(_whole_number(value), name) for value, name in labels]
    shown = [(value, name) for value, name in pairs if isinstance(name, str) and (mapping or is_class_name(name))]
    names = {value: name for value, name in shown if value}
    lesions = [value for value, _ in pairs if value != 0]
    if not lesions or len(names) != len(lesions):
        raise dataset_error(
            f"{len(lesions)} labels beside background, {len(names)} of them with a value and a name of their own",
            f"one whole number from 1 to {MAX_VALUE} and one name a label, no regions of several values; letters, "
            "digits, space and _ , . ( ) + & - in names",
        )
    found = {value: lesion_class_of(name, mapping) for value, name in names.items()}
    classes = {value: lesion_class for value, lesion_class in found.items() if lesion_class is not None}
    if not classes:
        raise InputError(
            "A label of the set must be a lesion class.",
            found=f"{len(names)} labels, none of them named in ingest.lesion_classes",
            allowed="at least one label that it names; * and ? may stand for signs",
            change="Correct ingest.lesion_classes, or take it out of the settings to keep every label.",
        )
    return classes, frozenset(names) - frozenset(classes)


def dataset_error(found: str, allowed: str) -> InputError:
    """An error in ``dataset.json``."""
    return InputError(
        f"{FILE_NAME} must describe its set.", found=found, allowed=allowed, change=f"Correct {FILE_NAME}."
    )


def table(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A JSON object under a key.

    Raises:
        InputError: there is none.
    """
    value = content.get(key)
    if isinstance(value, dict):
        return value
    raise dataset_error(f'no object under "{key}"', f'"{key}": {{"…": …}}')


def _whole_number(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(MAX_VALUE)):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_VALUE:
        return value
    return None
