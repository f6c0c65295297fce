"""Result tables to what the page shows: formatted cells with intervals, headings with units and definitions."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.report.glossary import OWN, definition_of, source_of
from pipeline.results import Cell, Column, ResultTable

MISSING = "–"
"""Shown where a number does not apply."""


@dataclass(frozen=True)
class CellView:
    """One cell.

    Attributes:
        text: what is shown.
        interval: the interval in brackets, or empty.
        low, high: its ends in plain decimal notation.
        sort_key: what sorting compares; a number in plain decimal notation, or the text.
        numeric: right-aligned.
    """

    text: str
    interval: str
    sort_key: str
    numeric: bool
    low: str = ""
    high: str = ""


@dataclass(frozen=True)
class HeadingView:
    """One column heading.

    Attributes:
        title, unit: as shown.
        definition: what the number is.
        source: the work that defines it, as `references` names it.
        numeric: right-aligned.
    """

    title: str
    unit: str
    definition: str
    source: str
    numeric: bool

    @property
    def explained(self) -> str:
        """Definition and source in one line."""
        words = self.definition.rstrip(".")
        source = "" if self.source == OWN else f" ({self.source})"
        return f"{words[:1].upper()}{words[1:]}{source}."


@dataclass(frozen=True)
class TableView:
    """One table, ready for the template."""

    key: str
    title: str
    caption: str
    headings: tuple[HeadingView, ...]
    rows: tuple[tuple[CellView, ...], ...]

    @property
    def defined(self) -> tuple[HeadingView, ...]:
        """Headings that come with a definition."""
        return tuple(heading for heading in self.headings if heading.definition)


def table_view(table: ResultTable) -> TableView:
    """Format a result table."""
    rows = tuple(tuple(_cell(column, row) for column in table.columns) for row in table.rows)
    headings = tuple(
        HeadingView(
            column.title,
            column.unit,
            column.definition or definition_of(table.key, column.key),
            source_of(table.key, column.key),
            bool(rows) and all(cells[place].numeric for cells in rows),
        )
        for place, column in enumerate(table.columns)
    )
    return TableView(table.key, table.title, table.caption, headings, rows)


def number_text(value: float, digits: int) -> str:
    """A number with ``digits`` decimals, thousands set apart by a narrow no-break space, a true minus sign."""
    if not math.isfinite(value):
        return "not finite" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    text = f"{value:,.{digits}f}".replace(",", "\u202f")
    negative = text.startswith("-") and any(sign in "123456789" for sign in text)
    return ("−" if negative else "") + text.lstrip("-")


def grouped_text(count: int) -> str:
    """A count, thousands set apart by a narrow no-break space."""
    return number_text(count, 0)


def significant_text(value: float) -> str:
    """A number with four significant digits, at most six decimals; whole numbers without decimals."""
    if not math.isfinite(value) or value == int(value):
        return number_text(value, 0)
    return number_text(value, min(6, max(0, 3 - math.floor(math.log10(abs(value))))))


def _cell(column: Column, row: Mapping[str, Cell]) -> CellView:
    value = row.get(column.key)
    if value is None:
        return CellView(MISSING, "", "", True)
    if isinstance(value, bool):
        return CellView("yes" if value else "no", "", "1" if value else "0", False)
    if isinstance(value, str):
        return CellView(value, "", value, False)
    digits = 0 if isinstance(value, int) else column.digits
    text, ends = number_text(value, digits), _ends(column, row)
    if ends is None:
        return CellView(text, "", repr(float(value)), True)
    low, high = ends
    digits = digits if all(isinstance(end, int) for end in ends) else max(digits, column.digits)
    interval = f"[{number_text(low, digits)}, {number_text(high, digits)}]"
    return CellView(text, interval, repr(float(value)), True, repr(float(low)), repr(float(high)))


def _ends(column: Column, row: Mapping[str, Cell]) -> tuple[float, float] | None:
    low, high = (row.get(key) if key else None for key in (column.low_key, column.high_key))
    return (low, high) if isinstance(low, int | float) and isinstance(high, int | float) else None
