"""What held-out cases came to when a model translated them, and how far another case may lie from that.

Figures are compared by their logarithms, since they are positive and differ by factors: mean uncertainty u of the
body, mean cycle residual r of the body, and d = 1 − Dice of both body outlines. The limit of a figure x is

    exp(mean of ln x over held-out cases + half width of the prediction interval), see `pipeline.domain_card.spread`,

and never less than a floor below which a figure does no harm. Uncertainties are comparable between cases that were
asked for in the same way alone: as many models, in the same planes, with the mirror image or without.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from pipeline.domain_card.spread import Spread

_SMALLEST = 1e-4
"""Figures below this count as this: a logarithm needs more than 0."""


@dataclass(frozen=True)
class HeldOutFigure:
    """One figure.

    Attributes:
        prior: deviation of its logarithm between cases of one kind.
        floor: least limit, by unit of the CT.
    """

    prior: float
    floor: Mapping[str, float]


HELD_OUT: Mapping[str, HeldOutFigure] = {
    "uncertainty": HeldOutFigure(0.15, {"HU": 10.0, "grey": 2.0}),
    "residual": HeldOutFigure(0.25, {"HU": 0.02, "grey": 0.02}),
    "outline": HeldOutFigure(0.35, {"HU": 0.01, "grey": 0.01}),
}
"""Figures that are calibrated; `outline` as 1 − Dice. Uncertainty of mirror images: two held-out real heads of one data
set differed by a deviation of 0.15, in six trainings; the other two deviations are set, not measured."""


@dataclass(frozen=True)
class CaseFigures:
    """One translated case; None where a figure could not be had.

    Attributes:
        uncertainty, uncertainty_high: mean and 95th percentile in the body, HU or grey levels.
        residual, residual_high: the same of the cycle residual, MR units.
        outline: Dice of the body outlines of MR and pseudo-CT.
    """

    uncertainty: float | None
    uncertainty_high: float | None
    residual: float | None
    residual_high: float | None
    outline: float | None

    def calibrated(self) -> dict[str, float]:
        """The figures of `HELD_OUT` that are known."""
        outline = None if self.outline is None else 1 - self.outline
        known = {"uncertainty": self.uncertainty, "residual": self.residual, "outline": outline}
        return {name: value for name, value in known.items() if value is not None}


class AnswerKind(BaseModel):
    """How often, and in which ways, networks are asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    models: int
    planes: tuple[str, ...]
    mirrored: bool


class Calibration(BaseModel):
    """Held-out cases of a model.

    Attributes:
        kind: how they were translated.
        unit: HU or grey.
        logarithms: spread of the logarithm of each figure of `HELD_OUT`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: AnswerKind
    unit: str
    logarithms: dict[str, Spread]

    @classmethod
    def of(cls, kind: AnswerKind, cases: Sequence[CaseFigures], unit: str) -> "Calibration":
        """Of one case or more."""
        found: dict[str, Spread] = {}
        for name in HELD_OUT:
            values = [own[name] for own in (case.calibrated() for case in cases) if name in own]
            if values:
                found[name] = Spread.of([math.log(max(value, _SMALLEST)) for value in values])
        return cls(kind=kind, unit=unit, logarithms=found)

    def limit(self, name: str, tail: float) -> float | None:
        """What a further case exceeds with the probability ``tail``; None where no held-out case had the figure."""
        spread = self.logarithms.get(name)
        if spread is None:
            return None
        figure = HELD_OUT[name]
        return max(figure.floor[self.unit], math.exp(spread.mean + spread.half_width(figure.prior, tail)))

    def count(self, name: str) -> int:
        """Held-out cases behind a limit."""
        return self.logarithms[name].count
