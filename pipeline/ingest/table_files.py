"""Tables that a user lays beside the data, at the root of an input: CSV, TSV or Parquet, read as rows of text.

CSV and TSV are UTF-8, with or without a byte-order mark. A Parquet file is binary and comes from anywhere: it is parsed
in a process of its own. Errors name lines and columns, never what stands in them; what looks like a formula is text.
"""

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.errors import InputError, QuarantineError
from pipeline.ingest.source_tree import SourceFile, SourceTree, open_regular, read_start
from pipeline.safe_parse import Limits, parse_all

ENDINGS = (".csv", ".tsv", ".parquet")
LIMIT_BYTES = 64 << 20
"""Of the file, and of its text."""

LIMIT_ROWS = 2_000_000
_LIMIT_COLUMNS = 64
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_TOO_LARGE = QuarantineError("TOO_LARGE", f"a table of more than {LIMIT_BYTES >> 20} MB", "Split the input.")

Columns = tuple[tuple[str, tuple[str, ...]], ...]
"""Name and values of every column."""


@dataclass(frozen=True)
class TableForm:
    """What a table must look like.

    Attributes:
        stem: file name without its ending.
        what: what the table lists, for errors.
        required, optional: names of its columns.
    """

    stem: str
    what: str
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()

    def error(self, found: str) -> InputError:
        """An error in the table."""
        surplus = f"; it may also have {', '.join(self.optional)}" if self.optional else ""
        return InputError(
            f"{self.stem}.csv, .tsv or .parquet must be a table of {self.what}, in UTF-8 where it is text.",
            found=found,
            allowed=f"the columns {', '.join(self.required)}, each with a value in every line{surplus}",
            change=f"Correct {self.stem}.csv, .tsv or .parquet at the root of the input.",
        )


def table_names(stem: str) -> frozenset[str]:
    """Names that a table may have."""
    return frozenset(f"{stem}{ending}" for ending in ENDINGS)


def find_table(tree: SourceTree, form: TableForm) -> SourceFile | None:
    """The table at the root of an input, None where there is none.

    Raises:
        InputError: there are several.
    """
    files = tree.named()
    found = [files[name] for name in sorted(table_names(form.stem)) if name in files]
    if len(found) > 1:
        raise InputError(
            f"There must be one table of {form.what}.",
            found=", ".join(file.name for file in found),
            allowed="one of them",
            change="Keep the one that holds.",
        )
    return found[0] if found else None


def read_table(file: SourceFile, form: TableForm, limits: Limits) -> Iterator[tuple[str, dict[str, str]]]:
    """Place (``line 2``) and values of every row, by column, without white space around them.

    Args:
        file: what `find_table` found.
        form: what it must look like.
        limits: of the process that parses Parquet.

    Raises:
        InputError: not of that form, or too large.
    """
    if file.suffix == ".parquet":
        yield from _read_parquet(file, form, limits)
        return
    try:
        content = read_start(file, LIMIT_BYTES + 1)
        if len(content) > LIMIT_BYTES:
            raise form.error(_TOO_LARGE.found)
        stream = io.StringIO(content.decode("utf-8-sig"), newline="")
        reader = csv.reader(stream, delimiter=_DELIMITERS[file.suffix], strict=True)
        names = _checked_columns(next(reader, []), form)
        for values in reader:
            if values and len(values) != len(names):
                raise form.error(f"line {reader.line_num} has more or fewer than {len(names)} values")
            if values:
                cells = (value.strip() for value in values)
                yield f"line {reader.line_num}", dict(zip(names, cells, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise form.error(f"{type(error).__name__} while reading it") from None


def parse_parquet(path: Path) -> Columns:
    """Every column of a Parquet file as text, null as nothing; runs in the parsing process.

    Raises:
        QuarantineError: TOO_LARGE, UNREADABLE.
    """
    os.environ["POLARS_MAX_THREADS"] = "1"  # each thread takes a share of the address space
    import polars as pl

    with os.fdopen(open_regular(path), "rb") as stream:
        content = stream.read(LIMIT_BYTES + 1)
    if len(content) > LIMIT_BYTES:
        raise _TOO_LARGE
    try:
        lazy = pl.scan_parquet(io.BytesIO(content))
        columns, rows = len(lazy.collect_schema()), int(lazy.select(pl.len()).collect().item())
        if rows > LIMIT_ROWS or columns > _LIMIT_COLUMNS:
            found = f"a table of {rows} rows and {columns} columns"
            advice = f"At most {LIMIT_ROWS} and {_LIMIT_COLUMNS} are read."
            raise QuarantineError("TOO_LARGE", found, advice)
        table = lazy.select(pl.all().cast(pl.String).fill_null("")).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise QuarantineError("UNREADABLE", f"{type(error).__name__} while parsing", "Write it again.") from None
    if sum(int(column.str.len_bytes().sum() or 0) for column in table) > LIMIT_BYTES:
        raise _TOO_LARGE
    return tuple((column.name, tuple(column.to_list())) for column in table)


def tidy_path(path: str) -> str:
    """A path in POSIX form, no ``./`` and trailing slashes; ``..`` stays and therefore names no file of the input."""
    return PurePosixPath(path.replace("\\", "/")).as_posix()


def no_value(row: Mapping[str, str], names: Sequence[str]) -> str | None:
    """The first of the columns in which a row has no value, or None."""
    return next((name for name in names if not row[name]), None)


def _read_parquet(file: SourceFile, form: TableForm, limits: Limits) -> Iterator[tuple[str, dict[str, str]]]:
    (outcome,) = parse_all(parse_parquet, [file.path], limits)
    if outcome.result is None:
        refusal = outcome.refusal
        raise form.error("no result" if refusal is None else f"{refusal.reason}: {refusal.found}")
    names = _checked_columns([name for name, _ in outcome.result], form)
    for number, values in enumerate(zip(*(column for _, column in outcome.result), strict=True), start=1):
        yield f"row {number}", dict(zip(names, (value.strip() for value in values), strict=True))


def _checked_columns(names: Sequence[str], form: TableForm) -> list[str]:
    found = [name.strip() for name in names]
    missing = [name for name in form.required if name not in found]
    surplus = len(found) - len({*found} & {*form.required, *form.optional})
    if missing or surplus:
        raise form.error(
            f"{len(found)} columns; missing: {', '.join(missing) or 'none'}; unknown or repeated: {surplus}"
        )
    return found
