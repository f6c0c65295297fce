"""``lesions.csv``: which voxels of which mask are a lesion of which class in which image.

Columns ``mask_path, image_path, mask_value, lesion_class``; paths relative to the root of the input, where the table
lies; ``image_path`` names a NIfTI file, a DICOM file or the folder of a DICOM series. Errors name row numbers, never
the paths in them.
"""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.errors import InputError
from pipeline.ingest.allow_list import is_class_name
from pipeline.ingest.source_tree import SourceFile, read_start

TABLE_NAME = "lesions.csv"
COLUMNS = ("mask_path", "image_path", "mask_value", "lesion_class")
_LIMIT_BYTES = 64 << 20
_MAX_MASK_VALUE = 32767


@dataclass(frozen=True)
class LesionRow:
    """One lesion of the table; paths in POSIX form, relative to the root."""

    mask_path: str
    image_path: str
    mask_value: int
    lesion_class: str


def read_lesion_table(file: SourceFile) -> list[LesionRow]:
    """Rows in the order of the file, without repetitions.

    Raises:
        InputError: no UTF-8 CSV, other columns, a value that is not allowed, one lesion with two classes.
    """
    try:
        text = read_start(file, _LIMIT_BYTES + 1).decode("utf-8-sig")
        if len(text) > _LIMIT_BYTES:
            raise _table_error(f"a table of more than {_LIMIT_BYTES >> 20} MB")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        _check_columns(reader.fieldnames)
        rows = list(_rows(reader))
    except (UnicodeDecodeError, csv.Error) as error:
        raise _table_error(f"{type(error).__name__} while reading it") from None
    _check_single_class(rows)
    return list(dict.fromkeys(rows))


def _check_columns(names: object) -> None:
    found = [str(name).strip() for name in names] if isinstance(names, list | tuple) else []
    if sorted(found) != sorted(COLUMNS):
        missing = [name for name in COLUMNS if name not in found]
        surplus = len([name for name in found if name not in COLUMNS])
        raise _table_error(f"{len(found)} columns; missing: {', '.join(missing) or 'none'}; unknown: {surplus}")


def _rows(reader: Iterator[Mapping[str | None, object]]) -> Iterator[LesionRow]:
    for number, values in enumerate(reader, start=2):
        fields = {str(name).strip(): value for name, value in values.items()}
        if len(fields) != len(COLUMNS) or not all(isinstance(value, str) for value in fields.values()):
            raise _table_error(f"line {number} has more or fewer than {len(COLUMNS)} values")
        yield _row({name: str(value).strip() for name, value in fields.items()}, number)


def _row(fields: Mapping[str, str], number: int) -> LesionRow:
    value, lesion_class = fields["mask_value"], fields["lesion_class"]
    if not (value.isascii() and value.isdigit() and 0 < int(value) <= _MAX_MASK_VALUE):
        raise _table_error(f"line {number}: mask_value is no whole number from 1 to {_MAX_MASK_VALUE}")
    if not is_class_name(lesion_class):
        raise _table_error(f"line {number}: lesion_class is empty, longer than 64 characters or holds odd signs")
    if not fields["mask_path"] or not fields["image_path"]:
        raise _table_error(f"line {number}: an empty path")
    return LesionRow(tidy_path(fields["mask_path"]), tidy_path(fields["image_path"]), int(value), lesion_class)


def tidy_path(path: str) -> str:
    """A path in POSIX form, no ``./`` and trailing slashes; ``..`` stays and therefore names no file of the input."""
    return PurePosixPath(path.replace("\\", "/")).as_posix()


def _check_single_class(rows: list[LesionRow]) -> None:
    classes: dict[tuple[str, str, int], str] = {}
    for number, row in enumerate(rows, start=2):
        if classes.setdefault((row.mask_path, row.image_path, row.mask_value), row.lesion_class) != row.lesion_class:
            raise _table_error(f"line {number}: a lesion that an earlier line gives another class")


def _table_error(found: str) -> InputError:
    return InputError(
        f"{TABLE_NAME} must be a UTF-8 table of lesions, separated by commas.",
        found=found,
        allowed=f"the columns {', '.join(COLUMNS)}, each with a value in every line",
        change=f"Correct {TABLE_NAME} at the root of the input.",
    )
