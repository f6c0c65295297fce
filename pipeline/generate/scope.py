"""The scope gate at translation: which MR are refused, and how an accepted risk is stamped on what comes of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.domain_card import (
    TAIL,
    Calibration,
    CaseFigures,
    ScopeVerdict,
    judge,
    measured_sequences,
)
from pipeline.errors import InputError
from pipeline.generate.translators import Translators
from pipeline.prepared_set import VolumeSet

IN_SCOPE, OUT_OF_SCOPE, NOT_CHECKED = "in scope", "out of scope", "not checked"
CAUTION = "OUT OF SCOPE"
"""In the series description of a pseudo-CT whose MR the model does not know."""

_STAMPED = 3


@dataclass(frozen=True)
class CaseScope:
    """What the gate says of one case.

    Attributes:
        outcome: `IN_SCOPE`, `OUT_OF_SCOPE` or `NOT_CHECKED`.
        kind: kind of training scan that it is nearest to; empty where not checked.
        findings: reasons, gravest first.
        severity: how near it comes to a limit, 1 at the limit; None where not checked.
        accepted_risk: why it is translated all the same; None where it is in scope, or refused.
    """

    outcome: str
    kind: str = ""
    findings: tuple[str, ...] = ()
    severity: float | None = None
    accepted_risk: str | None = None

    @property
    def refused(self) -> bool:
        """Whether it must not be translated."""
        return self.outcome == OUT_OF_SCOPE and self.accepted_risk is None

    @property
    def stamp(self) -> str:
        """For descriptions: empty in scope."""
        if self.outcome != OUT_OF_SCOPE:
            return ""
        reasons = "; ".join(self.findings[:_STAMPED])
        return f"{CAUTION} of the model ({reasons}); risk accepted: {self.accepted_risk}"

    def columns(self) -> dict[str, Any]:
        """For ``cases.parquet``."""
        return {
            "scope": self.outcome,
            "scope_kind": self.kind,
            "scope_findings": list(self.findings),
            "scope_severity": self.severity,
            "accepted_risk": self.accepted_risk,
        }

    @classmethod
    def of_columns(cls, columns: Mapping[str, Any]) -> "CaseScope":
        """Inverse of `columns`."""
        return cls(
            columns["scope"],
            columns["scope_kind"],
            tuple(columns["scope_findings"]),
            columns["scope_severity"],
            columns["accepted_risk"],
        )


def case_scope(
    volumes: VolumeSet, row: Mapping[str, Any], translators: Translators, accept_risk: str | None
) -> CaseScope:
    """Hold an MR against the domain card of every network; the gravest verdict counts."""
    cards = [card for card in translators.cards if card is not None]
    if not cards:
        return CaseScope(NOT_CHECKED)
    measured, *more = measured_sequences(volumes, row)
    verdicts = [judge(card, measured, volumes.facts, more) for card in cards]
    worst: ScopeVerdict = max(verdicts, key=lambda verdict: (not verdict.in_scope, verdict.nearest))
    if worst.in_scope:
        return CaseScope(IN_SCOPE, worst.group, (), worst.nearest)
    findings = tuple(finding.sentence() for finding in worst.findings)
    return CaseScope(OUT_OF_SCOPE, worst.group, findings, worst.nearest, accept_risk)


def with_spread(
    scope: CaseScope, figures: CaseFigures, calibration: Calibration | None, accept_risk: str | None
) -> CaseScope:
    """The scope of a case once it is translated: out of it where its answers disagree as those of no held-out case do.

    The limit is exceeded by one in two thousand of the cases that are like the held-out ones, as for the scan's own
    figures.
    """
    limit = None if calibration is None else calibration.limit("uncertainty", TAIL)
    value = figures.uncertainty
    if calibration is None or limit is None or value is None or value <= limit:
        return scope
    unit, count = calibration.unit, calibration.count("uncertainty")
    found = (
        f"mean uncertainty in the body: {value:.3g} {unit}, where at most {limit:.3g} {unit} is known of {count} "
        "held-out cases"
    )
    severity = max(scope.severity or 0.0, value / limit)
    return CaseScope(OUT_OF_SCOPE, scope.kind, (*scope.findings, found), severity, accept_risk)


def require_any(scopes: Sequence[CaseScope]) -> None:
    """Refuse a translation of which nothing is left.

    Raises:
        InputError: every MR is out of scope, with the reasons for the first.
    """
    if any(not scope.refused for scope in scopes):
        return
    first = scopes[0]
    raise InputError(
        "A model translates MR of the kind that it was trained on.",
        found=f"{len(scopes)} MR out of scope; the first: {'; '.join(first.findings[:_STAMPED])}",
        allowed=f"MR like its training scans, nearest: {first.kind}",
        change='Take a model for such MR, or add --accept-risk "why"; the outputs then say so.',
    )
