"""The domain card of a model: what its training scans were like, made when the model is saved.

Training scans form groups by body part and sequence, where the headers say them: a model that was shown heads and
pelves knows both, and nothing between them. The gate asks whether a scan fits one of the groups.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from pipeline.domain_card.ct_reference import CTReference, ct_reference
from pipeline.domain_card.held_out import Calibration
from pipeline.domain_card.measures import CELLS, LEVELS, SHELLS, ScanFacts, ScopeMeasures, measure_mr
from pipeline.domain_card.spread import Spread
from pipeline.intensity import from_int16
from pipeline.prepared_set import VolumeSet

SCOPE_KEY = "scope"
"""Where the domain card lies in a model's ``card.json``."""

_ALONE = {"outline": 1.8, "likeness": 1.2, "orientation": 0.6}
"""Figures of a group that has a single scan, which cannot be compared with others."""

_BODY_CELL = -0.85
"""Cells of a mean layout above this hold body; air around it would make every body look like every other."""

_TURNS: Mapping[str, tuple[tuple[int, int, int], tuple[int, ...]]] = {
    "upside down": ((0, 1, 2), (0,)),
    "front to back": ((0, 1, 2), (1,)),
    "on its side": ((0, 2, 1), ()),
    "on its other side": ((0, 2, 1), (1,)),
    "with rows for slices": ((1, 0, 2), ()),
    "with columns for slices": ((2, 1, 0), ()),
}
"""Order of the axes and reversed axes of layouts that are not as they should be."""


@dataclass(frozen=True)
class Figure:
    """One figure that scans are judged by.

    Attributes:
        words: what it is.
        prior: deviation between subjects that are scanned alike.
        sides: whether too low, too high or either is out of scope.
        unit: of what is shown.
        shown_as: plain; or it is kept as a ``logarithm`` or by ``fisher``'s z, and shown as size or correlation.
        floor: below this it is out of scope whatever the training scans were like.
    """

    words: str
    prior: float
    sides: str = "both"
    unit: str = ""
    shown_as: str = "plain"
    floor: float = -math.inf

    def shown(self, value: float) -> str:
        """The figure for people."""
        if self.shown_as == "logarithm":
            return f"{math.exp(value):.3g}{self.unit}"
        if self.shown_as == "fisher":
            return f"{math.tanh(value):.2f}"
        return f"{value:.2f}{self.unit}"


FIGURES: Mapping[str, Figure] = {
    **{
        f"intensity_{round(100 * level)}": Figure(f"{level:.0%} quantile of the body's MR units", 0.06)
        for level in LEVELS
    },
    **{
        f"depth_{number}": Figure(f"mean MR units at {low:.0%} to {high:.0%} of the depth below the skin", 0.07)
        for number, (low, high) in enumerate(itertools.pairwise(SHELLS))
    },
    "height": Figure("height of the body in the field of view", 0.12, "both", " mm", "logarithm"),
    "front_to_back": Figure("front to back of the body", 0.07, "both", " mm", "logarithm"),
    "width": Figure("width of the body", 0.07, "both", " mm", "logarithm"),
    "cut_off": Figure("share of the outline on the edge of the picture", 0.02, "high"),
    "lower_end": Figure("area of the body in the lowest slices, over its largest", 0.1),
    "upper_end": Figure("area of the body in the highest slices, over its largest", 0.1),
    "pixel_mm": Figure("pixel size of the scan", 0.15, "high", " mm", "logarithm"),
    "slice_mm": Figure("slice distance of the scan", 0.15, "high", " mm", "logarithm"),
    "outline": Figure("correlation with the mean training scan, air included", 0.2, "low", "", "fisher"),
    "likeness": Figure("correlation with the mean training scan inside the body", 0.2, "low", "", "fisher"),
    "orientation": Figure("lead of the way it lies over the best turned one, in Fisher's z", 0.12, "low", floor=-0.2),
}
"""What scans are judged by; priors were read off phantoms and real heads of several scanners, the real heads being
those that the benchmark judges too."""


class ScopeGroup(BaseModel):
    """Training scans of one kind.

    Attributes:
        body_part, sequence: labels; None where headers said nothing.
        figures: spread of each figure, the likeness of each scan to the others among them.
        layout: mean layout.
        planes: planes of the scans' slices; "any" for voxels that are nearly cubes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    body_part: str | None
    sequence: str | None
    figures: dict[str, Spread]
    layout: tuple[float, ...]
    planes: tuple[str, ...]

    @property
    def name(self) -> str:
        """For people."""
        return " ".join(part for part in (self.body_part, self.sequence) if part) or "training scans"


class DomainCard(BaseModel):
    """What a model was trained on.

    Attributes:
        unit: HU or grey.
        spacing_mm: of the prepared grid (R, A, S); None without geometry.
        groups: kinds of MR.
        ct: what training CTs were like.
        held_out: what validation cases came to; None where there were none.
        sequences: MR sequences that are one input, in order; none where every MR is an input of its own.
        more: kinds of each further sequence, as ``groups`` of the first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    unit: str
    spacing_mm: tuple[float, float, float] | None
    groups: tuple[ScopeGroup, ...]
    ct: CTReference | None
    held_out: Calibration | None = None
    sequences: tuple[str, ...] = ()
    more: tuple[tuple[ScopeGroup, ...], ...] = ()

    @model_serializer(mode="wrap")
    def _without_none(self, serialized: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A card of one sequence is written as before there were several."""
        told: dict[str, Any] = serialized(self)
        left_out = () if self.sequences else ("sequences", "more")
        return {name: value for name, value in told.items() if name not in left_out}


def domain_card(volumes: VolumeSet) -> DomainCard:
    """Measure the training scans of a prepared set."""
    scans = [measured_sequences(volumes, row) for row in volumes.volumes("MR", ["train"])]
    first, *more = [_groups([scan[number] for scan in scans]) for number in range(max(1, len(volumes.sequences)))]
    ct_rows = volumes.volumes("CT", ["train"])
    stored = volumes.facts["spacing_mm"]
    return DomainCard(
        unit=volumes.facts["unit"],
        spacing_mm=None if stored is None else tuple(stored),
        groups=first,
        ct=ct_reference(((volumes.voxels(row), volumes.mask(row)) for row in ct_rows), volumes.facts["unit"]),
        sequences=volumes.sequences,
        more=tuple(more),
    )


def measured_sequences(volumes: VolumeSet, row: Mapping[str, Any]) -> list[ScopeMeasures]:
    """What is measured of an MR: of its first sequence, then of each further one under that one's own name."""
    facts, spacing, mask = ScanFacts.of(row), slice_spacing(volumes.facts), np.asarray(volumes.mask(row))
    known = [facts, *(replace(facts, sequence=name) for name in volumes.sequences[1:])]
    return [
        measure_mr(from_int16(voxels), mask, spacing, own)
        for voxels, own in zip(volumes.channels(row), known, strict=True)
    ]


def _groups(scans: Sequence[ScopeMeasures]) -> tuple[ScopeGroup, ...]:
    kinds: dict[tuple[str | None, str | None], list[ScopeMeasures]] = defaultdict(list)
    for scan in scans:
        kinds[scan.facts.body_part, scan.facts.sequence].append(scan)
    return tuple(scope_group(*kind, kinds[kind]) for kind in sorted(kinds, key=str))


def scope_group(body_part: str | None, sequence: str | None, scans: Sequence[ScopeMeasures]) -> ScopeGroup:
    """Summary of the training scans of one kind, one or more."""
    layouts = np.stack([scan.layout for scan in scans])
    names = [name for name in FIGURES if any(name in scan.figures for scan in scans)]
    figures = {name: Spread.of([scan.figures[name] for scan in scans if name in scan.figures]) for name in names}
    figures |= {name: Spread.of(values) for name, values in _likenesses(layouts).items()}
    return ScopeGroup(
        body_part=body_part,
        sequence=sequence,
        figures=figures,
        layout=tuple(round(float(value), 4) for value in layouts.mean(axis=0)),
        planes=tuple(sorted({scan.facts.plane or "any" for scan in scans})),
    )


def layout_figures(layout: npt.NDArray[np.float32], mean: npt.NDArray[Any]) -> dict[str, float]:
    """How a layout resembles the mean of others: as a whole, inside the body, and against the best turned layout."""
    body = np.asarray(mean) > _BODY_CELL
    own, cells = _likeness(layout, mean, body), layout.reshape(CELLS)
    turned = [_likeness(_turned(cells, *turn), mean, body) for turn in _TURNS.values()]
    return {
        "outline": _likeness(layout, mean, np.ones_like(body)),
        "likeness": own,
        "orientation": own - max(turned),
    }


def _likeness(layout: npt.NDArray[np.float32], mean: npt.NDArray[Any], where: npt.NDArray[np.bool_]) -> float:
    """Fisher's z, atanh(r), of the correlation r of two layouts; 0 where one of them is constant or nothing is left."""
    if not where.any():
        return 0.0
    first, second = layout[where] - layout[where].mean(), mean[where] - mean[where].mean()
    scale = float(np.linalg.norm(first) * np.linalg.norm(second))
    return math.atanh(min(0.9999, float(first @ second) / scale)) if scale > 0 else 0.0


def _turned(
    cells: npt.NDArray[np.float32], order: tuple[int, int, int], reversed_axes: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    other = np.flip(cells.transpose(order), reversed_axes)
    return torch.nn.functional.adaptive_avg_pool3d(torch.from_numpy(other.copy())[None], CELLS).numpy().ravel()


def slice_spacing(facts: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """(slices, rows, columns) of a prepared set; None without geometry."""
    stored = facts["spacing_mm"]
    return None if stored is None else (float(stored[2]), float(stored[1]), float(stored[0]))


def read_domain_card(card: Mapping[str, Any]) -> DomainCard | None:
    """The domain card in a model's ``card.json``; None for a model that was saved without one."""
    return DomainCard.model_validate(card[SCOPE_KEY]) if SCOPE_KEY in card else None


def _likenesses(layouts: npt.NDArray[np.float32]) -> dict[str, list[float]]:
    """Figures of each layout against the mean of the others."""
    count, total = len(layouts), layouts.sum(axis=0)
    if count == 1:
        return {name: [value] for name, value in _ALONE.items()}
    found = [layout_figures(layout, (total - layout) / (count - 1)) for layout in layouts]
    return {name: [own[name] for own in found] for name in _ALONE}
