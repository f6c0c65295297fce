import math

import pytest

from pipeline.report.tables import MISSING, grouped_text, number_text, significant_text, table_view
from pipeline.results import Cell, Column, ResultTable


def cells(column: Column, row: dict[str, Cell]) -> tuple[str, str]:
    view = table_view(ResultTable(key="t", title="T", caption="", columns=(column,), rows=(row,)))
    return view.rows[0][0].text, view.rows[0][0].interval


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.0, 2, "0.00"),
        (-0.001, 2, "0.00"),
        (-1.5, 1, "−1.5"),
        (1234567.891, 1, "1\u202f234\u202f567.9"),
        (math.nan, 1, "not finite"),
        (-math.inf, 1, "−∞"),
    ],
)
def test_numbers_read_as_a_reader_expects(value: float, digits: int, text: str) -> None:
    assert number_text(value, digits) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.8125, "0.8125"),
        (71.264, "71.26"),
        (1234.5, "1\u202f234"),
        (0.00012345, "0.000123"),
        (0, "0"),
        (-5.5, "−5.500"),
        (13.0, "13"),
    ],
)
def test_headlines_have_four_significant_digits(value: float, text: str) -> None:
    assert significant_text(value) == text


def test_counts_are_grouped() -> None:
    assert grouped_text(61440) == "61\u202f440"


def test_an_interval_takes_the_digits_of_its_column() -> None:
    column = Column(key="v", title="V", digits=2, low_key="lo", high_key="hi")
    assert cells(column, {"v": 1.005, "lo": -0.5, "hi": 2}) == ("1.00", "[−0.50, 2.00]")
    assert cells(column, {"v": 3, "lo": 1, "hi": 5}) == ("3", "[1, 5]")
    assert cells(column, {"v": 3.0, "lo": None, "hi": 5.0}) == ("3.00", "")


def test_what_does_not_apply_is_a_dash_whether_null_or_left_out() -> None:
    assert cells(Column(key="v", title="V"), {"v": None}) == (MISSING, "")
    assert cells(Column(key="v", title="V"), {}) == (MISSING, "")


def test_truth_values_and_words_are_not_numbers() -> None:
    columns = (Column(key="a", title="A"), Column(key="b", title="B"), Column(key="c", title="C"))
    rows = ({"a": True, "b": "word", "c": 1}, {"a": False, "b": "1", "c": None})
    view = table_view(ResultTable(key="t", title="T", caption="", columns=columns, rows=rows))
    assert [heading.numeric for heading in view.headings] == [False, False, True]
    assert [cell.text for cell in view.rows[0]] == ["yes", "word", "1"]
    assert view.rows[1][2].sort_key == ""


def test_sorting_compares_full_precision() -> None:
    column = Column(key="v", title="V", digits=0)
    rows = ({"v": 1.4}, {"v": 1.3})
    view = table_view(ResultTable(key="t", title="T", caption="", columns=(column,), rows=rows))
    assert [float(row[0].sort_key) for row in view.rows] == [1.4, 1.3]


def test_a_table_without_rows_still_has_its_headings() -> None:
    view = table_view(ResultTable(key="t", title="T", caption="", columns=(Column(key="v", title="V"),), rows=()))
    assert [heading.title for heading in view.headings] == ["V"]
