"""``labels.csv``, ``.tsv`` or ``.parquet``: the class of each image of a folder, and whose it is.

Columns ``image_path, lesion_class``, and maybe ``subject`` and ``split``; paths relative to the root of the input,
where the table lies. Subjects are pseudonymized as PatientIDs are. Errors name lines, never what stands in them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pipeline.deidentify import names_a_patient
from pipeline.ingest.allow_list import is_class_name
from pipeline.ingest.source_tree import SourceFile
from pipeline.ingest.table_files import TableForm, no_value, read_table, tidy_path
from pipeline.safe_parse import Limits

FORM = TableForm("labels", "image classes", ("image_path", "lesion_class"), optional=("subject", "split"))

SPLITS = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Names, in lower case, of the parts of a published split."""


@dataclass(frozen=True)
class ImageLabel:
    """What is known of an image.

    Attributes:
        lesion_class: its class.
        subject: names its subject; None where the source has none.
        split: train, validation, test or None.
        place: where the table says so, e.g. ``line 2``.
    """

    lesion_class: str
    subject: str | None = None
    split: str | None = None
    place: str = field(default="", compare=False)


def read_image_labels(file: SourceFile, limits: Limits) -> dict[str, ImageLabel]:
    """Label of each image by its path, in the order of the file.

    Raises:
        InputError: not such a table, a value that is not allowed, an image with two labels, a subject in two parts of
            the split.
    """
    labels: dict[str, ImageLabel] = {}
    parts: dict[str, str | None] = {}
    for place, values in read_table(file, FORM, limits):
        label = _label(values, place)
        if labels.setdefault(tidy_path(values["image_path"]), label) != label:
            raise FORM.error(f"{place}: an image that an earlier line gives another class, subject or split")
        if label.subject is not None and parts.setdefault(label.subject, label.split) != label.split:
            raise FORM.error(f"{place}: a subject that an earlier line puts into another part of the split")
    return labels


def _label(values: Mapping[str, str], place: str) -> ImageLabel:
    if (empty := no_value(values, list(values))) is not None:
        raise FORM.error(f"{place}: {empty} is empty")
    if not is_class_name(values["lesion_class"]):
        raise FORM.error(f"{place}: lesion_class is longer than 64 characters or holds odd signs")
    if not names_a_patient(values.get("subject", "someone")):
        raise FORM.error(f"{place}: subject is a placeholder, which would make one subject of many")
    label = ImageLabel(values["lesion_class"], values.get("subject"), place=place)
    if "split" not in values:
        return label
    split = SPLITS.get(values["split"].lower())
    if split is None:
        raise FORM.error(f"{place}: split is none of train, validation, test")
    return replace(label, split=split)
