"""What the ingest of files from elsewhere refused, as a table and as warnings."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from pipeline.results import Cell, Column, Results, ResultTable

SIDES = {
    "real": "real",
    "synthetic": "synthetic",
    "test": "real test",
    "ct": "CT",
    "pseudo_ct": "pseudo-CT",
    "mr": "MR",
    "mask": "mask",
}
"""Sides of a comparison in words."""


def with_refusals(results: Results, catalogs: Mapping[str, Path]) -> Results:
    """The results with the table of what was refused behind their tables, and its warnings before theirs.

    Args:
        results: of the evaluation.
        catalogs: catalog folders by side.
    """
    refused = refusal_table(catalogs)
    tables = (*results.tables, *((refused,) if refused else ()))
    return results.model_copy(update={"tables": tables, "warnings": (*refusal_notes(catalogs), *results.warnings)})


def refusal_table(catalogs: Mapping[str, Path]) -> ResultTable | None:
    """Refused files by side and reason; None where nothing was refused.

    Args:
        catalogs: catalog folders by side.
    """
    rows: list[dict[str, Cell]] = []
    for side, folder in catalogs.items():
        refused = pl.read_parquet(folder / "quarantine.parquet").sort("reason", "path_hash")
        groups = refused.group_by("reason", maintain_order=True).agg(
            pl.col("files").sum(), pl.col("found").first(), pl.col("advice").first()
        )
        rows += [{"side": SIDES[side]} | row for row in groups.to_dicts()]
    if not rows:
        return None
    return ResultTable(
        key="refused",
        title="Set aside",
        caption="Files that could not be trusted and take no part, by side and reason.",
        columns=(
            Column(key="side", title="side"),
            Column(key="reason", title="reason"),
            Column(key="files", title="files", digits=0),
            Column(key="found", title="found, for example"),
            Column(key="advice", title="what to do"),
        ),
        rows=tuple(rows),
    )


def refusal_notes(catalogs: Mapping[str, Path]) -> list[str]:
    """One warning a side that lost files."""
    notes = []
    for side, folder in catalogs.items():
        files = int(pl.read_parquet(folder / "quarantine.parquet", columns=["files"])["files"].sum())
        if files:
            notes.append(f"{files} {SIDES[side]} files were set aside and take no part.")
    return notes
