"""One sentence a track on top of the report: use this cohort or not, trust this pseudo-CT or not, by a stated rule.

Evaluations give verdicts on single questions. The decision is stricter than any of them: one bad verdict is enough to
advise against, and a good one needs an interval that keeps clear of what it is compared with.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.report.tables import number_text
from pipeline.results import Cell, Results, Verdict

Outcome = Literal["good", "neutral", "bad"]

LESIONS_RULE = (
    "Use: every verdict below allows it, and the utility verdict is good. Do not use: any verdict below is bad. Else "
    "there is no reason to use it, and none against."
)
TRANSLATION_RULE = (
    "Trust: every verdict below allows it, and the 95 % interval of the mean absolute error lies below the error of "
    "the best intensity lookup. Do not trust: any verdict below is bad. Else with care. No dose is claimed."
)


@dataclass(frozen=True)
class Decision:
    """What to do with one track's output.

    Attributes:
        track: lesions or mr_to_ct.
        outcome: good, neutral or bad.
        advice: in a few words.
        sentence: why, with figures.
        rule: how it was chosen.
    """

    track: str
    outcome: Outcome
    advice: str
    sentence: str
    rule: str


def decide(results: Results) -> Decision:
    """The decision on one track."""
    return _cohort(results) if results.track == "lesions" else _pseudo_ct(results)


def _cohort(results: Results) -> Decision:
    bad, utility = _bad(results), _verdict(results, "utility")
    if bad:
        return Decision("lesions", "bad", "Do not use this cohort", _joined(bad), LESIONS_RULE)
    if utility is None:
        words = "Its use for a classifier was not measured."
        return Decision("lesions", "neutral", "Not judged", words, LESIONS_RULE)
    gate = _verdict(results, "release_gate")
    sentence = _joined([utility] + ([gate] if gate else []))
    if utility.outcome == "good":
        return Decision("lesions", "good", "Use this cohort", sentence, LESIONS_RULE)
    return Decision("lesions", "neutral", "No reason to use this cohort", sentence, LESIONS_RULE)


def _pseudo_ct(results: Results) -> Decision:
    bad, rows = _bad(results), _summary_rows(results)
    own, lookup = rows.get("pseudo_ct", {}), rows.get("intensity_lookup", {})
    figures = _error_sentence(own, lookup, _unit(results))
    if bad:
        return Decision("mr_to_ct", "bad", "Do not trust this pseudo-CT", _joined(bad, figures), TRANSLATION_RULE)
    if not own:
        words = "No case could be scored against a CT."
        return Decision("mr_to_ct", "neutral", "Not judged", words, TRANSLATION_RULE)
    high, reference = own.get("mae_high"), lookup.get("mae")
    good = [verdict for verdict in results.verdicts if verdict.outcome == "good"]
    if isinstance(high, float) and isinstance(reference, float) and high < reference:
        return Decision("mr_to_ct", "good", "Trust this pseudo-CT", _joined(good, figures), TRANSLATION_RULE)
    why = (
        "There is no baseline to compare with."
        if not isinstance(reference, float)
        else "One subject gives no interval."
        if not isinstance(high, float)
        else "The interval reaches the error of that lookup."
    )
    return Decision("mr_to_ct", "neutral", "Trust it with care", f"{figures} {why}", TRANSLATION_RULE)


def _error_sentence(own: Mapping[str, Cell], lookup: Mapping[str, Cell], unit: str) -> str:
    if not isinstance(own.get("mae"), float):
        return ""
    against = f", against {_interval(lookup)} of the best intensity lookup" if lookup else ""
    cases = own.get("cases")
    over = f" over {cases} case{'s' if cases != 1 else ''}" if isinstance(cases, int) else ""
    return f"Mean absolute error {_interval(own)} {unit}{over}{against}."


def _interval(row: Mapping[str, Cell]) -> str:
    ends: list[Any] = [row.get(name) for name in ("mae", "mae_low", "mae_high")]
    texts = [number_text(float(end), 1) for end in ends if end is not None]
    return f"{texts[0]} [{texts[1]}, {texts[2]}]" if len(texts) == 3 else texts[0]


def _summary_rows(results: Results) -> dict[str, Mapping[str, Cell]]:
    tables = [table for table in results.tables if table.key == "mr_to_ct_summary"]
    return {str(row.get("method")): row for table in tables for row in table.rows}


def _unit(results: Results) -> str:
    units = [column.unit for table in results.tables for column in table.columns if column.key == "mae"]
    return units[0] if units else ""


def _bad(results: Results) -> list[Verdict]:
    return [verdict for verdict in results.verdicts if verdict.outcome == "bad"]


def _verdict(results: Results, key: str) -> Verdict | None:
    return next((verdict for verdict in results.verdicts if verdict.key == key), None)


def _joined(verdicts: list[Verdict], more: str = "") -> str:
    return " ".join([*(verdict.sentence for verdict in verdicts), more]).strip()
