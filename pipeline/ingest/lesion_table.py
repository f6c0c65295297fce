"""``lesions.csv``, ``.tsv`` or ``.parquet``: which voxels of which mask are a lesion of which class in which image.

Columns ``mask_path, image_path, mask_value, lesion_class``; paths relative to the root of the input, where the table
lies; ``image_path`` names an image file, a DICOM file or the folder of a DICOM series. A mask that is a DICOM
segmentation or structure set has, instead of ``mask_value``, a ``structure``: Segment Number, ROI Number, Segment Label
or ROI Name. Errors name lines, never the paths in them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.ingest.allow_list import is_class_name
from pipeline.ingest.source_tree import SourceFile
from pipeline.ingest.table_files import TableForm, no_value, read_table, tidy_path
from pipeline.safe_parse import Limits

FORM = TableForm(
    "lesions", "lesions", ("mask_path", "image_path", "lesion_class"), optional=("mask_value", "structure")
)
_MAX_MASK_VALUE = 32767


@dataclass(frozen=True)
class LesionRow:
    """One lesion of the table; paths in POSIX form, relative to the root.

    Attributes:
        mask_path, image_path, lesion_class: as in the table.
        mask_value: of its voxels; None for a structure.
        structure: number or name of a segment or ROI; None for a mask of values.
        place: where it stands, e.g. ``line 2``.
    """

    mask_path: str
    image_path: str
    mask_value: int | None
    lesion_class: str
    structure: str | None = None
    place: str = field(default="", compare=False)


def read_lesion_table(file: SourceFile, limits: Limits) -> list[LesionRow]:
    """Rows in the order of the file, without repetitions.

    Raises:
        InputError: not such a table, a value that is not allowed, one lesion with two classes.
    """
    rows = [_row(values, place) for place, values in read_table(file, FORM, limits)]
    classes: dict[tuple[str, str, int | None, str | None], str] = {}
    for row in rows:
        lesion = (row.mask_path, row.image_path, row.mask_value, row.structure)
        if classes.setdefault(lesion, row.lesion_class) != row.lesion_class:
            raise FORM.error(f"{row.place}: a lesion that an earlier line gives another class")
    return list(dict.fromkeys(rows))


def _row(values: Mapping[str, str], place: str) -> LesionRow:
    value, structure = values.get("mask_value", ""), values.get("structure", "")
    if bool(value) == bool(structure):
        raise FORM.error(f"{place}: {'both' if value else 'neither'} mask_value and structure; one of them is needed")
    if value and not (value.isascii() and value.isdigit() and len(value) < 9 and 0 < int(value) <= _MAX_MASK_VALUE):
        raise FORM.error(f"{place}: mask_value is no whole number from 1 to {_MAX_MASK_VALUE}")
    if not is_class_name(values["lesion_class"]):
        raise FORM.error(f"{place}: lesion_class is empty, longer than 64 characters or holds odd signs")
    if no_value(values, ("mask_path", "image_path")):
        raise FORM.error(f"{place}: an empty path")
    mask, image = tidy_path(values["mask_path"]), tidy_path(values["image_path"])
    return LesionRow(mask, image, int(value) if value else None, values["lesion_class"], structure or None, place)
