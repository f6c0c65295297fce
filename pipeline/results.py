"""What an evaluation found: headline figures, verdicts, tables whose every column states its unit and definition.

Evaluate writes it, report and the command line read it; the same numbers are kept as JSON and as one Parquet a table.
"""

from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import BaseModel, ConfigDict

from pipeline.files import read_json, write_json

Cell = str | int | float | bool | None


class Column(BaseModel):
    """One column of a table.

    Attributes:
        key: name in the rows.
        title: heading.
        unit: e.g. ``HU``; empty for counts, shares and words.
        definition: what the number is, with its dialect.
        digits: decimals shown.
        low_key, high_key: keys of the interval's ends where the number has one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    key: str
    title: str
    unit: str = ""
    definition: str = ""
    digits: int = 3
    low_key: str | None = None
    high_key: str | None = None


class ResultTable(BaseModel):
    """One table: ``rows`` map column keys (and interval keys) to cells; None means not applicable."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    key: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[dict[str, Cell], ...]


class Headline(BaseModel):
    """One figure that is printed at the end of a run, beside what it is to be compared with."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    key: str
    text: str
    value: float | None
    reference: float | None = None
    reference_text: str = ""


class Verdict(BaseModel):
    """A sentence chosen by a stated rule."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    key: str
    outcome: Literal["good", "neutral", "bad"]
    sentence: str
    rule: str


class Results(BaseModel):
    """Everything one track's evaluation found."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    track: Literal["lesions", "mr_to_ct"]
    headlines: tuple[Headline, ...]
    verdicts: tuple[Verdict, ...]
    tables: tuple[ResultTable, ...]
    warnings: tuple[str, ...] = ()


RESULTS_FILE = "results.json"


def write_results(folder: Path, results: Results) -> None:
    """Write ``results.json`` and one Parquet file a table."""
    write_json(folder / RESULTS_FILE, results.model_dump(mode="json"))
    for table in results.tables:
        pl.DataFrame(list(table.rows), infer_schema_length=None).write_parquet(folder / f"{table.key}.parquet")


def read_results(folder: Path) -> Results:
    """Read what `write_results` wrote."""
    return Results.model_validate(read_json(folder / RESULTS_FILE))
