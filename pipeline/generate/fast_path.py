"""Whether a faster way of translating may be taken: bfloat16, fewer windows, whole slices.

Some slices are translated both ways. Where validation subjects have a registered CT, the mean absolute error (MAE) of
both is known, and may differ by a limit, 1 HU by default. Where they have none, the mean distance of both stands for
it, which is never less than that difference:

    | MAE(fast) − MAE(exact) |  ≤  mean | fast − exact |
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.inference import Member, WindowPlan, translate_slices
from pipeline.prepared_set import VolumeSet
from pipeline.translated_case import CaseSource, case_source

_MOST_CASES = 3
_SLICES = 6


@dataclass(frozen=True)
class FastPath:
    """What was decided.

    Attributes:
        plan: to take.
        taken: whether it is the faster one.
        change: of the MAE, or the bound of it.
        basis: what it was measured on, in words.
    """

    plan: WindowPlan
    taken: bool
    change: float
    basis: str

    def facts(self, unit: str) -> dict[str, Any]:
        """For the record."""
        return {"taken": self.taken, "change": round(self.change, 3), "unit": unit, "basis": self.basis}


def choose_plan(
    asked: WindowPlan,
    member: Member,
    volumes: VolumeSet,
    rows: Sequence[Mapping[str, Any]],
    device: torch.device,
    limit: float,
) -> FastPath | None:
    """The faster plan where it changes little, else the exact one; None where an exact plan was asked for.

    Args:
        asked: the plan of the settings.
        member: network that both ways are tried with.
        volumes: prepared set.
        rows: MR that will be translated.
        device: where the network lives.
        limit: largest change.
    """
    exact = asked.exact()
    if asked == exact:
        return None
    paired = [row for row in volumes.volumes("MR", ["validation"]) if row["pair_volume"] >= 0][:_MOST_CASES]
    chosen = paired or list(rows)[:_MOST_CASES]
    away, errors = [], []
    for row in chosen:
        source = case_source(volumes, row)
        indices = _spread_slices(source)
        ways = [_translated(source, member, plan, device, indices) for plan in (asked, exact)]
        inside = source.volume.mask[indices] > 0
        away.append(np.abs(ways[0] - ways[1])[inside])
        if paired:
            ct = volumes.voxels(volumes.row(row["pair_volume"]))[indices].astype(np.float64)
            errors.append(np.stack([np.abs(way - ct)[inside] for way in ways]))
    if paired:
        means = np.concatenate(errors, axis=1).mean(axis=1)
        change, basis = float(abs(means[0] - means[1])), f"MAE against {len(chosen)} validation CT"
    else:
        change, basis = float(np.concatenate(away).mean()), f"mean distance on {len(chosen)} MR, no validation CT"
    taken = change <= limit
    return FastPath(asked if taken else exact, taken, change, basis)


def _translated(
    source: CaseSource, member: Member, plan: WindowPlan, device: torch.device, indices: Sequence[int]
) -> npt.NDArray[np.float64]:
    found = translate_slices(source.volume, member, plan, source.ct_map.decode, device, indices)
    return np.stack(list(found)).astype(np.float64)


def _spread_slices(source: CaseSource) -> list[int]:
    """Slices at the centers of equal parts of the body's height."""
    inside = np.flatnonzero(source.volume.mask.any(axis=(1, 2)))
    inside = inside if len(inside) else np.arange(len(source.volume.mask))
    parts = min(_SLICES, len(inside))
    return [int(inside[int((part + 0.5) * len(inside) / parts)]) for part in range(parts)]
