"""Study dates that keep their distances and lose their place in the calendar.

PS3.15 E.3.6, Retain Longitudinal Temporal Information With Modified Dates: every date of a patient moves by the same
number of days, which is secret and differs between patients and workspaces.
"""

import re
from datetime import date, timedelta

_DATE = re.compile(r"(\d{4})([.:-]?)(\d{2})\2(\d{2})")
"""DICOM DA (PS3.5 6.2), its retired form with dots, and what other writers make of it."""


def shifted_date(text: str | None, days: int) -> str | None:
    """A date moved by some days, as YYYYMMDD; None for what is no date, or falls before the year 1.

    >>> shifted_date("20240301", -1), shifted_date("2023.03.01", -1), shifted_date("20230230", -1)
    ('20240229', '20230228', None)
    """
    found = _DATE.fullmatch((text or "").strip())
    if found is None or not found[0].isascii():
        return None
    try:
        moved = date(int(found[1]), int(found[3]), int(found[4])) + timedelta(days=days)
    except (ValueError, OverflowError):
        return None
    return f"{moved.year:04d}{moved.month:02d}{moved.day:02d}"
