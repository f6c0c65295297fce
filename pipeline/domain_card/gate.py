"""The scope gate: whether an MR is of a kind that a model was trained on, and if not, why, in numbers.

A scan is held against every group of the domain card. A figure outside the interval that a further scan of the group
leaves once in a thousand times is a finding, and so are another label, plane or grid. The scan is in scope when one
group has no finding; else the findings of the group that it is nearest to are the reasons.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.domain_card.card import FIGURES, DomainCard, Figure, ScopeGroup, layout_figures, slice_spacing
from pipeline.domain_card.measures import ScopeMeasures
from pipeline.domain_card.spread import Spread

TAIL = 5e-4
"""Share of further scans of a kind that a figure would refuse at either end, were it distributed normally."""

_SPACING_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Finding:
    """One reason.

    Attributes:
        what: what was looked at.
        found: in this scan.
        allowed: in training scans of the group.
        severity: distance from the middle as a multiple of what is allowed; above 1.
    """

    what: str
    found: str
    allowed: str
    severity: float

    def sentence(self) -> str:
        """For people."""
        return f"{self.what}: {self.found}, where {self.allowed} is known"


@dataclass(frozen=True)
class ScopeVerdict:
    """What the gate says of one MR.

    Attributes:
        group: name of the nearest group.
        findings: reasons to refuse it, gravest first; none where it is in scope.
        nearest: severity of the figure that comes nearest to its limit, or goes furthest beyond.
    """

    group: str
    findings: tuple[Finding, ...]
    nearest: float

    @property
    def in_scope(self) -> bool:
        """Whether there is no finding."""
        return not self.findings


def judge(
    card: DomainCard, measured: ScopeMeasures, facts: Mapping[str, Any], more: Sequence[ScopeMeasures] = ()
) -> ScopeVerdict:
    """Hold a scan against a card.

    Args:
        card: of the model.
        measured: the scan's figures.
        facts: of the prepared set that it lies in: ``unit``, ``spacing_mm``.
        more: figures of the further sequences, where several are one input.
    """
    first = _judge_groups(card.groups, measured, _grid_findings(card, facts))
    others = [_judge_groups(groups, own, []) for groups, own in zip(card.more, more, strict=True)]
    findings = list(first.findings)
    for name, other in zip(card.sequences[1:], others, strict=False):
        findings += [replace(finding, what=f"{name}: {finding.what}") for finding in other.findings]
    nearest = max([first.nearest, *(other.nearest for other in others)])
    return ScopeVerdict(first.group, tuple(sorted(findings, key=lambda finding: -finding.severity)), nearest)


def _judge_groups(groups: Sequence[ScopeGroup], measured: ScopeMeasures, common: list[Finding]) -> ScopeVerdict:
    verdicts = [_against(group, measured, common) for group in groups]
    if not verdicts:
        none = Finding("training scans", "an MR", "none: the model was trained without MR", 9.0)
        return ScopeVerdict("nothing", (none,), 9.0)
    return min(verdicts, key=lambda verdict: (len(verdict.findings) > 0, verdict.nearest))


def _grid_findings(card: DomainCard, facts: Mapping[str, Any]) -> list[Finding]:
    if facts["unit"] != card.unit:
        return [Finding("unit of the prepared set", str(facts["unit"]), card.unit, 9.0)]
    own, known = slice_spacing(facts), card.spacing_mm
    if own is None or known is None:
        return [] if own == known else [Finding("geometry", _grid_words(own), _grid_words(known), 9.0)]
    if np.abs(np.subtract(own[::-1], known)).max() > _SPACING_TOLERANCE:
        return [Finding("prepared voxel size", _grid_words(own[::-1]), _grid_words(known), 9.0)]
    return []


def _grid_words(spacing_mm: tuple[float, ...] | None) -> str:
    return "none" if spacing_mm is None else " x ".join(f"{size:g}" for size in spacing_mm) + " mm"


def _against(group: ScopeGroup, measured: ScopeMeasures, common: list[Finding]) -> ScopeVerdict:
    findings, nearest = list(common), max((finding.severity for finding in common), default=0.0)
    figures = dict(measured.figures) | layout_figures(measured.layout, np.asarray(group.layout, np.float32))
    for name, spread in group.figures.items():
        if name not in figures:
            continue
        severity, allowed = _severity(FIGURES[name], spread, figures[name])
        nearest = max(nearest, severity)
        if severity > 1:
            shown = FIGURES[name].shown(figures[name])
            findings.append(Finding(FIGURES[name].words, shown, allowed, severity))
    for label in _label_findings(group, measured):
        findings.append(label)
        nearest = max(nearest, label.severity)
    return ScopeVerdict(group.name, tuple(sorted(findings, key=lambda finding: -finding.severity)), nearest)


def _severity(figure: Figure, spread: Spread, value: float) -> tuple[float, str]:
    half = spread.half_width(figure.prior, TAIL)
    lowest = max(figure.floor, spread.mean - half)
    low, high = figure.shown(lowest), figure.shown(spread.mean + half)
    below, above = (spread.mean - value) / max(1e-6, spread.mean - lowest), (value - spread.mean) / half
    if figure.sides == "high":
        return max(0.0, above), f"at most {high}"
    if figure.sides == "low":
        return max(0.0, below), f"at least {low}"
    return max(below, above), f"{low} to {high}"


def _label_findings(group: ScopeGroup, measured: ScopeMeasures) -> list[Finding]:
    facts = measured.facts
    found = [
        Finding(what, own, known, 5.0)
        for what, own, known in (
            ("sequence by its header", facts.sequence, group.sequence),
            ("body part by its header", facts.body_part, group.body_part),
        )
        if own is not None and known is not None and own != known
    ]
    if facts.plane is not None and facts.plane not in group.planes and group.planes != ("any",):
        found.append(Finding("plane of its slices", facts.plane, ", ".join(group.planes), 5.0))
    return found
