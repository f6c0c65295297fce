from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ingest.dates import shifted_date

DATES = st.dates(date(1900, 1, 1), date(2100, 1, 1))
DAYS = st.integers(-3650, -1)


@given(DATES, DATES, DAYS)
def test_intervals_between_studies_survive_exactly(first, second, days):
    moved = [date.fromisoformat(shifted_date(each.strftime("%Y%m%d"), days)) for each in (first, second)]
    assert moved[1] - moved[0] == second - first
    assert moved[0] == first + timedelta(days=days)


@given(DATES, DAYS, st.sampled_from(["%Y.%m.%d", "%Y-%m-%d", "%Y%m%d ", "%Y:%m:%d"]))
def test_other_spellings_of_a_date_are_the_same_date(day, days, spelling):
    assert shifted_date(day.strftime(spelling), days) == shifted_date(day.strftime("%Y%m%d"), days)


@given(st.text(max_size=12))
def test_what_comes_out_is_a_date_or_nothing(text):
    moved = shifted_date(text, -7)
    assert moved is None or (len(moved) == 8 and date.fromisoformat(moved))


@pytest.mark.parametrize(
    "text",
    [None, "", "20230230", "20231301", "2023", "202303", "2023-03.01", "20240101-20240301", "QZTOKEN", "\u0662" * 8],
)
def test_what_is_no_date_is_dropped(text):
    assert shifted_date(text, -1) is None


def test_a_date_that_would_leave_the_calendar_is_dropped():
    assert shifted_date("00010101", -1) is None


def _dates(ingested):
    return ingested.catalog.series.sort("study_date")["study_date"].to_list()


def test_ingest_drops_dates_unless_asked_to_shift_them(inputs, run_ingest):
    inputs.dicom("first", 1, study_date="20200131")
    assert _dates(run_ingest()) == [None]


def test_ingest_shifts_the_studies_of_a_patient_together(inputs, run_ingest):
    for number, day in enumerate(("20200131", "20200301", "20200230")):
        who = replace(inputs.identity(name=str(number)), study_uid=f"1.2.{number}")
        inputs.dicom(f"study{number}", number, identity=who, study_date=day)
    nothing, first, second = _dates(run_ingest(dates="shift"))
    assert nothing is None
    assert date.fromisoformat(second) - date.fromisoformat(first) == timedelta(days=30)
    assert timedelta(days=1) <= date(2020, 1, 31) - date.fromisoformat(first) <= timedelta(days=3650)
