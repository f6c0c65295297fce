"""What the top of the report advises, and when."""

import pytest

from pipeline.report.decisions import decide
from pipeline.results import Cell, Column, Results, ResultTable, Verdict


def verdict(key: str, outcome: str) -> Verdict:
    return Verdict.model_validate({"key": key, "outcome": outcome, "sentence": f"{key} is {outcome}.", "rule": "r"})


def cohort(**outcomes: str) -> Results:
    found = tuple(verdict(key, outcome) for key, outcome in outcomes.items())
    return Results(track="lesions", headlines=(), verdicts=found, tables=())


def pseudo_ct(*rows: dict[str, Cell], **outcomes: str) -> Results:
    columns = (Column(key="mae", title="MAE", unit="HU", low_key="mae_low", high_key="mae_high"),)
    table = ResultTable(key="mr_to_ct_summary", title="", caption="", columns=columns, rows=rows)
    found = tuple(verdict(key, outcome) for key, outcome in outcomes.items())
    return Results(track="mr_to_ct", headlines=(), verdicts=found, tables=(table,) if rows else ())


OWN: dict[str, Cell] = {"method": "pseudo_ct", "cases": 12, "mae": 71.26, "mae_low": 60.0, "mae_high": 82.5}
LOOKUP: dict[str, Cell] = {"method": "intensity_lookup", "cases": 12, "mae": 123.5}


@pytest.mark.parametrize(
    ("outcomes", "outcome", "advice"),
    [
        ({"utility": "good", "release_gate": "good", "leakage": "good"}, "good", "Use this cohort"),
        ({"utility": "neutral", "release_gate": "good"}, "neutral", "No reason to use this cohort"),
        ({"utility": "bad", "release_gate": "good"}, "bad", "Do not use this cohort"),
        ({"utility": "good", "release_gate": "bad"}, "bad", "Do not use this cohort"),
        ({"utility": "good", "leakage": "bad"}, "bad", "Do not use this cohort"),
        ({"release_gate": "good"}, "neutral", "Not judged"),
        ({}, "neutral", "Not judged"),
    ],
)
def test_one_bad_verdict_is_enough_to_advise_against_a_cohort(
    outcomes: dict[str, str], outcome: str, advice: str
) -> None:
    decision = decide(cohort(**outcomes))
    assert (decision.outcome, decision.advice) == (outcome, advice)
    for key, found in outcomes.items():
        if found == "bad":
            assert f"{key} is bad." in decision.sentence


def test_a_pseudo_ct_is_trusted_when_its_interval_keeps_clear_of_the_lookup() -> None:
    decision = decide(pseudo_ct(OWN, LOOKUP, against_lookup="good", geometry="good"))
    assert decision.advice == "Trust this pseudo-CT"
    figures = "Mean absolute error 71.3 [60.0, 82.5] HU over 12 cases, against 123.5 of the best intensity lookup."
    assert figures in decision.sentence
    assert "geometry is good." in decision.sentence


@pytest.mark.parametrize(
    ("own", "lookup", "why"),
    [
        (OWN | {"mae_high": 130.0}, LOOKUP, "The interval reaches the error of that lookup."),
        (OWN | {"mae_low": None, "mae_high": None}, LOOKUP, "One subject gives no interval."),
        (OWN, {"method": "mean_ct", "mae": 300.0}, "There is no baseline to compare with."),
    ],
)
def test_a_pseudo_ct_that_cannot_be_told_from_a_lookup_is_trusted_with_care(
    own: dict[str, Cell], lookup: dict[str, Cell], why: str
) -> None:
    decision = decide(pseudo_ct(own, lookup, against_lookup="good", geometry="good"))
    assert (decision.outcome, decision.advice) == ("neutral", "Trust it with care")
    assert why in decision.sentence


def test_a_flipped_pseudo_ct_is_not_trusted_however_small_its_error() -> None:
    decision = decide(pseudo_ct(OWN, LOOKUP, against_lookup="good", geometry="bad"))
    assert (decision.outcome, decision.advice) == ("bad", "Do not trust this pseudo-CT")
    assert "geometry is bad." in decision.sentence
    assert "71.3" in decision.sentence


def test_without_a_scored_case_nothing_is_judged() -> None:
    assert decide(pseudo_ct()).advice == "Not judged"
