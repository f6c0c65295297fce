"""Values of the tissues of a guessed CT, from the CT slices of other subjects that lie over an MR.

The median minimizes the mean absolute error (Koenker 1978), and a few voters that lie wrong do not move it.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Volume = npt.NDArray[np.float32]
Tissues = npt.NDArray[np.int64]

LEVELS = 64
"""MR levels over [-1, 1] that have a value of their own."""

FEWEST = 50
"""Votes that a level needs; others lie between those that have them."""


def by_place(voters: Volume, tissue: Tissues, limits: Sequence[float], typical: Sequence[float]) -> Volume:
    """Of each pixel, the median of the voters that have its tissue there; the typical value where none has.

    Args:
        voters: (V, H, W) CT values; V may be 0.
        tissue: (H, W) tissue of each pixel.
        limits: upper end of each tissue but the last, in CT values.
        typical: value of each tissue.

    Returns:
        (H, W) CT values.
    """
    result = np.asarray(typical, np.float32)[tissue]
    if not len(voters):
        return result
    agree = np.searchsorted(limits, voters, side="right") == tissue
    count = agree.sum(axis=0)
    ordered = np.sort(np.where(agree, voters, np.inf), axis=0)
    middles = (np.maximum(count - 1, 0) // 2, np.minimum(count // 2, len(voters) - 1))
    low, high = (np.take_along_axis(ordered, place[None], axis=0)[0] for place in middles)
    some = count > 0
    result[some] = (low[some] + high[some]) / 2
    return result


class LevelValues:
    """Of each tissue and MR level, the median of all votes in a volume: what lies a pixel off there evens out.

    Args:
        limits: upper end of each tissue but the last, in CT values.
        tissues: those that are asked for; votes for others are not kept.
    """

    def __init__(self, limits: Sequence[float], tissues: Sequence[int]) -> None:
        self._limits = limits
        self._votes: dict[int, list[tuple[npt.NDArray[np.int64], Volume]]] = {number: [] for number in tissues}

    def add(self, voters: Volume, tissue: Tissues, mr_units: Volume) -> None:
        """Take votes (V, ...) of places with these tissues and MR units in [-1, 1], both (...)."""
        levels, agree = _levels(mr_units), np.searchsorted(self._limits, voters, side="right") == tissue
        for number, votes in self._votes.items():
            chosen = agree & (tissue == number)
            votes.append((np.broadcast_to(levels, voters.shape)[chosen], voters[chosen]))

    def fill(self, values: Volume, tissue: Tissues, mr_units: Volume) -> None:
        """Write the values of the tissues into (K, H, W); one without enough votes keeps what is there."""
        levels = _levels(mr_units)
        for number in self._votes:
            table = self._table(number)
            if table is not None:
                here = tissue == number
                values[here] = table[levels[here]]

    def _table(self, number: int) -> npt.NDArray[np.float64] | None:
        levels, votes = (np.concatenate(parts) for parts in zip(*self._votes[number], strict=True))
        order = np.argsort(levels, kind="stable")
        parts = np.split(votes[order], np.searchsorted(levels[order], np.arange(1, LEVELS)))
        known = [level for level, part in enumerate(parts) if len(part) >= FEWEST]
        if not known:
            return None
        return np.interp(np.arange(LEVELS), known, [float(np.median(parts[level])) for level in known])


def _levels(mr_units: Volume) -> npt.NDArray[np.int64]:
    return np.clip(((mr_units + 1) / 2 * LEVELS).astype(np.int64), 0, LEVELS - 1)
