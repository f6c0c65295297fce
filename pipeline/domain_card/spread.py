"""How far a figure may lie from those of a few training scans: a prediction interval that knows how subjects differ.

The deviation s of n figures is uncertain where n is small, so that it is mixed with s₀, what subjects are known to
differ by, which counts as much as ν₀ figures (the conjugate prior of a variance; Gelman, Bayesian Data Analysis, 3.3):

    s² = (ν₀ s₀² + (n − 1) s_n²) / (ν₀ + n − 1),    mean ± t(ν₀ + n − 1) · s · √(1 + 1/n)
"""

import math
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy import stats

PRIOR_COUNT = 8
"""ν₀: how many figures the prior deviation is worth."""


class Spread(BaseModel):
    """Figures of training scans.

    Attributes:
        count: how many.
        mean, deviation: of the figures; deviation 0 for a single one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    count: int
    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of one figure or more."""
        found = np.asarray(values, dtype=np.float64)
        deviation = float(found.std(ddof=1)) if len(found) > 1 else 0.0
        return cls(count=len(found), mean=float(found.mean()), deviation=deviation)

    def half_width(self, prior_deviation: float, tail: float) -> float:
        """Half of the interval that a further figure leaves with the probability ``tail`` at either end."""
        freedom = PRIOR_COUNT + self.count - 1
        variance = (PRIOR_COUNT * prior_deviation**2 + (self.count - 1) * self.deviation**2) / freedom
        return float(stats.t.ppf(1 - tail, freedom)) * math.sqrt(variance * (1 + 1 / self.count))
