"""What training CTs are like, which a pseudo-CT should resemble even where no CT of the subject exists.

- HU histogram inside the body. Two of them differ by the mean distance of equal quantiles, ∫ |Q₁(p) − Q₂(p)| dp, which
  is the earth mover's distance (Vallender, Theory Probab. Appl. 18:784, 1974), in HU.
- Bone continuity: the share of bone voxels that have bone within 2 pixels of their place in a neighboring slice. Bone
  that comes and goes from slice to slice lowers it.
- Fragments: the share of bone voxels in pieces smaller than a hundredth of all bone.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from scipy import ndimage

from pipeline.domain_card.spread import Spread

BONE_FROM = {"HU": 250.0, "grey": 250.0}
"""Bone above this, by unit."""

EDGES: dict[str, tuple[float, ...]] = {
    "HU": tuple(float(edge) for edge in range(-1024, 2049, 64)),
    "grey": tuple(float(edge) for edge in range(0, 257, 8)),
}
"""Edges of the histogram's bins; what lies beyond counts into the outermost ones."""

_LEVELS = np.linspace(0.005, 0.995, 100)
_REACH_PX = 2
_SMALL_PIECE = 0.01


@dataclass(frozen=True)
class CTMeasures:
    """What was measured of one CT or pseudo-CT.

    Attributes:
        quantiles: HU at 100 levels, inside the body.
        shares: of the body's voxels in each bin of `EDGES`.
        continuity, fragments: of bone; None without any.
    """

    quantiles: npt.NDArray[np.float64]
    shares: npt.NDArray[np.float64]
    continuity: float | None
    fragments: float | None


class CTReference(BaseModel):
    """What training CTs are like.

    Attributes:
        quantiles: mean over CTs.
        shares: mean over CTs.
        distance: of each CT's histogram from the mean of the others, in HU or grey levels.
        continuity, fragments: of bone; None where no CT shows any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    quantiles: tuple[float, ...]
    shares: tuple[float, ...]
    distance: Spread
    continuity: Spread | None
    fragments: Spread | None


def measure_ct(voxels: npt.NDArray[Any], mask: npt.NDArray[Any], unit: str) -> CTMeasures | None:
    """Measure a CT (K, H, W) inside its body; None without a body."""
    body = np.asarray(mask) > 0
    if not body.any():
        return None
    inside = np.asarray(voxels)[body].astype(np.float64)
    edges = EDGES[unit]
    counts, _ = np.histogram(np.clip(inside, edges[0], edges[-1]), edges)
    bone = (np.asarray(voxels) >= BONE_FROM[unit]) & body
    return CTMeasures(np.quantile(inside, _LEVELS), counts / len(inside), _continuity(bone), _fragments(bone))


def ct_reference(scans: Iterable[tuple[npt.NDArray[Any], npt.NDArray[Any]]], unit: str) -> CTReference | None:
    """Summary of training CTs, voxels and mask (K, H, W) each; None where none has a body."""
    found = [own for voxels, mask in scans if (own := measure_ct(voxels, mask, unit)) is not None]
    if not found:
        return None
    quantiles = np.stack([own.quantiles for own in found])
    total = quantiles.sum(axis=0)
    others = [(total - own) / max(1, len(found) - 1) if len(found) > 1 else own for own in quantiles]
    distances = [histogram_distance(own, rest) for own, rest in zip(quantiles, others, strict=True)]
    return CTReference(
        quantiles=tuple(round(float(value), 2) for value in quantiles.mean(axis=0)),
        shares=tuple(round(float(value), 6) for value in np.mean([own.shares for own in found], axis=0)),
        distance=Spread.of(distances),
        continuity=_spread([own.continuity for own in found]),
        fragments=_spread([own.fragments for own in found]),
    )


def histogram_distance(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> float:
    """Earth mover's distance of two histograms by their quantiles."""
    return float(np.abs(np.asarray(first) - np.asarray(second)).mean())


def _spread(values: list[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    return Spread.of(known) if known else None


def _continuity(bone: npt.NDArray[np.bool_]) -> float | None:
    if not bone.any() or len(bone) < 2:
        return None
    reach = ndimage.binary_dilation(bone, np.ones((1, 2 * _REACH_PX + 1, 2 * _REACH_PX + 1), bool))
    beside = np.zeros_like(bone)
    beside[1:] |= reach[:-1]
    beside[:-1] |= reach[1:]
    return float((bone & beside).sum() / bone.sum())


def _fragments(bone: npt.NDArray[np.bool_]) -> float | None:
    if not bone.any():
        return None
    pieces, count = ndimage.label(bone, np.ones((3, 3, 3), bool))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    return float(sizes[sizes < _SMALL_PIECE * sizes.sum()].sum() / sizes.sum())
