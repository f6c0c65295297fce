"""What a translator knows, and whether a scan is of that kind: the domain card of a model, and the gate."""

from pipeline.domain_card.card import (
    SCOPE_KEY,
    DomainCard,
    ScopeGroup,
    domain_card,
    measured_sequences,
    read_domain_card,
    scope_group,
    slice_spacing,
)
from pipeline.domain_card.ct_reference import EDGES, CTMeasures, CTReference, histogram_distance, measure_ct
from pipeline.domain_card.gate import TAIL, Finding, ScopeVerdict, judge
from pipeline.domain_card.held_out import AnswerKind, Calibration, CaseFigures
from pipeline.domain_card.measures import ScanFacts, ScopeMeasures, measure_mr
from pipeline.domain_card.spread import Spread

__all__ = [
    "EDGES",
    "SCOPE_KEY",
    "TAIL",
    "AnswerKind",
    "CTMeasures",
    "CTReference",
    "Calibration",
    "CaseFigures",
    "DomainCard",
    "Finding",
    "ScanFacts",
    "ScopeGroup",
    "ScopeMeasures",
    "ScopeVerdict",
    "Spread",
    "domain_card",
    "histogram_distance",
    "judge",
    "measure_ct",
    "measure_mr",
    "measured_sequences",
    "read_domain_card",
    "scope_group",
    "slice_spacing",
]
