"""Scores of pseudo-CT slices, and the two baselines without a network."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.translation_real_data import BONE_HU, GREY_BONE, GREY_OUTLINE, Case, PairSet, Volume, mr_units
from pipeline.train.weak_labels import Atlas, weak_ct

_LEVELS = 256
TISSUE_LIMITS = {"HU": (-350.0, BONE_HU), "grey": (float(GREY_OUTLINE), GREY_BONE)}
"""Upper end of air and lower end of bone."""


def scores_of(pairs: PairSet, test: Sequence[Case], translate: Callable[[Case], Volume]) -> dict[str, Any]:
    """Mean over cases, and each case.

    ``mae`` and ``error`` (signed) count inside the true outline, ``bone_dice`` over the whole image.
    """
    by_case = {case.name: _score(pairs, case, translate(case)) for case in test}
    means = {name: float(np.mean([row[name] for row in by_case.values()])) for name in ("mae", "error", "bone_dice")}
    return {name: round(value, 4) for name, value in means.items()} | {"cases": by_case}


def baselines(pairs: PairSet, rotation: int) -> dict[str, Any]:
    """What needs no network: see ``ways``.

    ``true_tissues`` is the best lookup in each of air, soft tissue and bone of the *true* CT: what a network could do
    that tells tissues without fault, and values by the MR level alone. ``truth_one_pixel_off`` is what a shift costs.
    """
    train, test = pairs.split(rotation)
    table = fit_lookup(train)
    limits = TISSUE_LIMITS[pairs.unit]
    tables = np.stack([fit_lookup(train, lambda case, n=n: _tissues(case, limits) == n) for n in range(3)])  # type: ignore[misc]
    middle = float(np.median(np.concatenate([case.ct[case.outline] for case in train])))
    air = -1000.0 if pairs.unit == "HU" else 0.0

    def masked(case: Case) -> Volume:
        return np.asarray(np.where(mr_units(case)[1] > 0, _looked_up(table, case.mr), air), np.float32)

    atlases = [Atlas(case.ct, case.outline) for case in train]
    ways: dict[str, Callable[[Case], Volume]] = {
        "one_value": lambda case: np.full_like(case.ct, middle),
        "lookup": lambda case: _looked_up(table, case.mr),
        "lookup_times_mask": masked,
        "guess_from_other_cts": lambda case: weak_ct(*mr_units(case), atlases, pairs.unit),
        "true_tissues": lambda case: tables[_tissues(case, limits), _levels(case.mr)].astype(np.float32),
        "truth_one_pixel_off": lambda case: np.roll(case.ct, 1, axis=2),
    }
    return {name: scores_of(pairs, test, way) for name, way in ways.items()}


def fit_lookup(
    train: Sequence[Case], chosen: Callable[[Case], npt.NDArray[np.bool_]] | None = None
) -> npt.NDArray[np.float64]:
    """Median CT of every MR level inside the outline: no table has a smaller error.

    Missing levels are interpolated. ``chosen`` picks pixels of a case; where it picks none at all, the table is 0.
    """
    places = [case.outline & chosen(case) if chosen else case.outline for case in train]
    levels = np.concatenate([_levels(case.mr)[place] for case, place in zip(train, places, strict=True)])
    values = np.concatenate([case.ct[place] for case, place in zip(train, places, strict=True)])
    medians = np.full(_LEVELS, np.nan)
    for level in np.unique(levels):
        medians[level] = np.median(values[levels == level])
    known = np.flatnonzero(~np.isnan(medians))
    if not len(known):
        return np.zeros(_LEVELS)
    return np.interp(np.arange(_LEVELS), known, medians[known])


def dice(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    """2 |A and B| / (|A| + |B|); 1 where both are empty."""
    total = int(first.sum() + second.sum())
    return 2 * int((first & second).sum()) / total if total else 1.0


def _score(pairs: PairSet, case: Case, made: Volume) -> dict[str, float]:
    errors = (made - case.ct)[case.outline]
    if pairs.unit == "HU":
        bones = made > pairs.bone, case.ct > pairs.bone
    else:
        bones = made >= pairs.bone, case.ct >= pairs.bone
    return {
        "mae": round(float(np.abs(errors).mean()), 4),
        "error": round(float(errors.mean()), 4),
        "bone_dice": round(dice(*bones), 4),
    }


def _tissues(case: Case, limits: tuple[float, float]) -> npt.NDArray[np.int64]:
    """0, 1, 2: air, soft tissue, bone of the true CT."""
    return np.searchsorted(limits, case.ct, side="right")


def _levels(mr: Volume) -> npt.NDArray[np.int64]:
    return np.rint(mr).astype(np.int64)


def _looked_up(table: npt.NDArray[np.float64], mr: Volume) -> Volume:
    return table[_levels(mr)].astype(np.float32)
