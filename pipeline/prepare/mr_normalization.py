"""MR intensities to network units, by two percentiles, by mean and deviation, or by histogram landmarks.

- ``percentiles``: two percentiles of the body become −1 and 0.6 (`pipeline.intensity.robust_mr_scale`).
- ``z_score``: the mean of the body becomes 0, 2.5 standard deviations span one unit.
- ``landmarks``: the deciles of the body are moved to where they lie on average in the training subjects (Nyúl and
  Udupa, Magn Reson Med 42:1072, 1999; Nyúl et al., IEEE TMI 19:143, 2000). Scans of one MR sequence share a standard.
  No scan but those of training subjects says where it lies.

All three have an inverse where they do not clip.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.intensity import MR_UNIT_AT_HIGH, MRScale, PiecewiseLinearMap, robust_mr_scale

MRMap = MRScale | PiecewiseLinearMap
Z_PER_UNIT = 2.5
"""Standard deviations in one unit."""

INNER_PERCENTILES = (10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0)
_SMALLEST_STEP = 1e-3
"""Share of the range by which neighboring landmarks differ at least; closer ones count as one."""


@dataclass(frozen=True)
class StandardHistogram:
    """Where landmarks lie on average.

    Attributes:
        units: for each sequence, the unit of every landmark, from the lower to the upper percentile.
        percentiles: lower and upper percentile of the body.
    """

    units: Mapping[str, tuple[float, ...]]
    percentiles: tuple[float, float]

    @classmethod
    def fit(
        cls, landmarks: Iterable[tuple[str, npt.NDArray[np.float64]]], percentiles: tuple[float, float]
    ) -> "StandardHistogram":
        """Average the landmarks of training scans, each given with its sequence, after a linear scaling."""
        scaled: dict[str, list[npt.NDArray[np.float64]]] = defaultdict(list)
        for sequence, found in landmarks:
            share = (found - found[0]) / (found[-1] - found[0])
            scaled[sequence].append(share * (MR_UNIT_AT_HIGH + 1) - 1)
        means = {name: np.mean(rows, axis=0) for name, rows in sorted(scaled.items())}
        return cls({name: tuple(float(unit) for unit in mean) for name, mean in means.items()}, percentiles)

    def map(self, found: npt.NDArray[np.float64], sequence: str) -> PiecewiseLinearMap:
        """The map of a scan from its own landmarks; the last piece goes on up to unit 1.

        Raises:
            InputError: no training scan has this sequence.
        """
        if sequence not in self.units:
            raise InputError(
                "Landmarks of an MR sequence come from training subjects.",
                found=f"{sequence}, which no training subject has",
                allowed=", ".join(self.units) or "none",
                change="Add training subjects, leave the scan out, or set mr_normalization: percentiles.",
            )
        kept = [0]
        for number in range(1, len(found)):
            if found[number] - found[kept[-1]] > _SMALLEST_STEP * (found[-1] - found[0]):
                kept.append(number)
        kept[-1] = len(found) - 1
        knots = [float(found[number]) for number in kept]
        units = [self.units[sequence][number] for number in kept]
        slope = (knots[-1] - knots[-2]) / (units[-1] - units[-2])
        return PiecewiseLinearMap((*knots, knots[-1] + slope * (1 - units[-1])), (*units, 1.0))

    def facts(self) -> dict[str, Any]:
        """As stored with the prepared set."""
        places = [self.percentiles[0], *INNER_PERCENTILES, self.percentiles[1]]
        return {"percentiles": places, "units": {name: list(units) for name, units in self.units.items()}}


def landmarks_of(
    voxels: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_], percentiles: tuple[float, float]
) -> npt.NDArray[np.float64]:
    """Intensities of the landmarks of one scan, from the lower to the upper percentile of its body.

    Raises:
        InputError: the mask is empty, or the body is constant.
    """
    scale = robust_mr_scale(voxels, mask, percentiles)  # refuses what has no contrast
    inner = np.percentile(voxels[mask], INNER_PERCENTILES)
    return np.asarray(np.clip([scale.low, *inner, scale.high], scale.low, scale.high), dtype=np.float64)


def z_score_scale(voxels: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_]) -> MRScale:
    """Mean of the body at unit 0, `Z_PER_UNIT` standard deviations to the unit.

    Raises:
        InputError: the mask is empty, or the body is constant.
    """
    robust_mr_scale(voxels, mask, (0.0, 100.0))  # refuses what has no contrast
    inside = voxels[mask].astype(np.float64)
    mean, unit = float(inside.mean()), Z_PER_UNIT * float(inside.std())
    return MRScale(mean - unit, mean + MR_UNIT_AT_HIGH * unit)


def sequence_of(row: Mapping[str, Any]) -> str:
    """Name of an MR's sequence, ``unknown`` where its header does not tell."""
    return str(row["sequence"] or "unknown")


def knots_of(scale: MRMap) -> dict[str, Any]:
    """Columns of the prepared set that say how intensities became units."""
    if isinstance(scale, MRScale):
        return {"mr_low": scale.low, "mr_high": scale.high, "mr_knots": None, "mr_knots_unit": None}
    high = float(scale.decode(np.array(MR_UNIT_AT_HIGH)))
    knots: Sequence[float] = scale.knots_hu
    return {"mr_low": knots[0], "mr_high": high, "mr_knots": list(knots), "mr_knots_unit": list(scale.knots_unit)}
