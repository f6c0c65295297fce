"""What the contact sheet measures of a volume: numbers that the rules of `quality_flags` judge.

A volume is looked at on a coarse grid in patient order (i, j, k closest to right, anterior, superior), so that a
thousand series take minutes; only the extremes and the slice by slice figures are taken from every slice as stored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.body_mask import CORNER_SHARE, CT_SKIN_HU, ct_body_mask, mr_body_mask, mr_noise_threshold
from pipeline.geometry import AxisReordering, Geometry, to_canonical

Volume = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

COARSE_SIDE = 96
"""Voxels along an axis of the coarse grid, at the most."""

QUANTILE_LEVELS = np.linspace(0, 1, 33)
HISTOGRAM_BINS = 64
CT_RANGE = (-1100.0, 2000.0)
"""Ends of a CT histogram, HU."""

AIR_RANGE, SOFT_TISSUE_RANGE, BELOW_AIR_HU = (-1100.0, -850.0), (-200.0, 200.0), -1100.0
"""Ranges of HU that a CT of a patient must, and must not, hold: air is −1000 and water 0 by definition of the scale."""

EMPTY_SHARE = 0.002
"""A slice is empty when no more of its pixels lie above air or noise than this share."""

NEIGHBORS = 3
"""Steps on either side with which a step between two slices is compared."""


@dataclass(frozen=True)
class Measures:
    """Figures of one volume.

    Attributes:
        modality: MR, CT, or None.
        spacing_mm: along right, anterior, superior (of the closest voxel axes), however the axes are stored.
        extent_mm: field of view along the same.
        minimum, maximum: over all voxels.
        low, middle, high: 1st, 50th and 99th percentile of the coarse grid.
        body_low, body_high: 2nd and 98th percentile inside the body; equal to ``low`` and ``high`` without a body.
        body_share: share of the coarse grid inside the body outline.
        at_maximum: share of body voxels that hold the maximum.
        negative: share of voxels below zero.
        corners: median of the four corner columns, in the unit of the volume.
        border: share of the outermost plane that is body, by patient side among R, L, A, P; without the two ends of
            the stack of slices.
        slices: stored slices, along k.
        flat_slices: slices whose voxels are all equal.
        inner_empty_slices: empty slices that lie between filled ones.
        empty_slices: all empty slices.
        jump: largest step between neighboring slices against the median of the steps around it, 0 with few slices.
        jump_share: that step as a share of the range from ``low`` to ``high``.
        jump_slice: slice after which it lies, from 1.
        air, soft_tissue, below_air: shares of voxels in `AIR_RANGE`, in `SOFT_TISSUE_RANGE`, below `BELOW_AIR_HU`; CT.
        quantiles: intensities at `QUANTILE_LEVELS` inside the body, ``body_low`` scaled to 0 and ``body_high`` to 1.
        histogram: counts of the coarse grid in `HISTOGRAM_BINS` bins.
        histogram_range: ends of the histogram.
        center: index of the body's middle in the volume in patient order.
    """

    modality: str | None
    spacing_mm: tuple[float, float, float]
    extent_mm: tuple[float, float, float]
    minimum: float
    maximum: float
    low: float
    middle: float
    high: float
    body_low: float
    body_high: float
    body_share: float
    at_maximum: float
    negative: float
    corners: float
    border: Mapping[str, float]
    slices: int
    flat_slices: int
    inner_empty_slices: int
    empty_slices: int
    jump: float
    jump_share: float
    jump_slice: int
    air: float
    soft_tissue: float
    below_air: float
    quantiles: tuple[float, ...]
    histogram: tuple[int, ...]
    histogram_range: tuple[float, float]
    center: tuple[int, int, int]


def measure(voxels: Volume, geometry: Geometry, modality: str | None) -> Measures:
    """Measure a volume.

    Args:
        voxels: (i, j, k) as stored; HU for CT.
        geometry: its grid.
        modality: MR, CT, or None (then judged like MR).
    """
    coarse, places, spacing, order = _coarse(voxels, geometry)
    r, a, s = order.axes
    own = geometry.spacing_mm
    low, middle, high = (float(value) for value in np.percentile(coarse, (1, 50, 99)))
    body = _body(coarse, spacing, modality)
    inside = coarse[body] if body.any() else coarse.ravel()
    body_low, body_high = (float(value) for value in np.percentile(inside, (2, 98)))
    planes = [(float(voxels[..., k].min()), float(voxels[..., k].max())) for k in range(voxels.shape[2])]
    maximum = max(top for _, top in planes)
    filled = _filled(voxels, modality)
    jump, jump_share, jump_slice = _jump(voxels, filled, high - low)
    ends = CT_RANGE if modality == "CT" else (low, high) if high > low else (low - 0.5, low + 0.5)
    return Measures(
        modality=modality,
        spacing_mm=(own[r], own[a], own[s]),
        extent_mm=(voxels.shape[r] * own[r], voxels.shape[a] * own[a], voxels.shape[s] * own[s]),
        minimum=min(bottom for bottom, _ in planes),
        maximum=maximum,
        low=low,
        middle=middle,
        high=high,
        body_low=body_low,
        body_high=body_high,
        body_share=float(body.mean()),
        at_maximum=float((inside == maximum).mean()),
        negative=float((coarse < 0).mean()),
        corners=_corners(coarse),
        border=_border(body, order.axes.index(2)),
        slices=len(planes),
        flat_slices=sum(bottom == top for bottom, top in planes),
        inner_empty_slices=_inner_gaps(filled),
        empty_slices=int((~filled).sum()),
        jump=jump,
        jump_share=jump_share,
        jump_slice=jump_slice,
        air=_share(coarse, *AIR_RANGE),
        soft_tissue=_share(coarse, *SOFT_TISSUE_RANGE),
        below_air=float((coarse < BELOW_AIR_HU).mean()),
        quantiles=_quantiles(inside, body_low, body_high),
        histogram=tuple(int(count) for count in np.histogram(coarse, HISTOGRAM_BINS, ends)[0]),
        histogram_range=ends,
        center=_center(body, places),
    )


def _coarse(
    voxels: Volume, geometry: Geometry
) -> tuple[Volume, list[npt.NDArray[np.intp]], tuple[float, float, float], AxisReordering]:
    """Coarse grid in patient order, the fine index of each of its planes, its spacing, and how axes were reordered."""
    chosen = [_spread(size) for size in voxels.shape]
    picked = np.asarray(voxels[np.ix_(*chosen)], dtype=np.float32)
    steps = [(places[-1] - places[0]) / max(1, len(places) - 1) or 1.0 for places in chosen]
    affine = geometry.affine @ np.diag([*steps, 1.0])
    coarse, _, order = to_canonical(picked, affine)
    places = []
    for axis, backwards in zip(order.axes, order.reversed_axes, strict=True):
        own = chosen[axis]
        places.append(voxels.shape[axis] - 1 - own[::-1] if backwards else own)
    return coarse, places, order.target.spacing_mm, order


def _spread(size: int) -> npt.NDArray[np.intp]:
    """At most `COARSE_SIDE` indices from the first to the last."""
    return np.unique(np.linspace(0, size - 1, min(size, COARSE_SIDE)).round().astype(np.intp))


def _body(coarse: Volume, spacing: tuple[float, float, float], modality: str | None) -> Mask:
    if coarse.min() == coarse.max():
        return np.zeros(coarse.shape, bool)
    return ct_body_mask(coarse, spacing) if modality == "CT" else mr_body_mask(np.maximum(coarse, 0), spacing)


def _filled(voxels: Volume, modality: str | None) -> Mask:
    """For each stored slice, whether more than `EMPTY_SHARE` of it lies above air or noise."""
    stack = np.asarray(voxels[np.ix_(_spread(voxels.shape[0]), _spread(voxels.shape[1]))], dtype=np.float32)
    threshold = CT_SKIN_HU if modality == "CT" else mr_noise_threshold(stack)
    return np.asarray((stack > threshold).mean(axis=(0, 1)) > EMPTY_SHARE)


def _inner_gaps(filled: Mask) -> int:
    inside = np.flatnonzero(filled)
    return 0 if len(inside) == 0 else int((~filled[inside[0] : inside[-1]]).sum())


def _jump(voxels: Volume, filled: Mask, scale: float) -> tuple[float, float, int]:
    """Largest step between neighboring filled slices against the steps around it.

    Anatomy changes smoothly along a stack; where slices are missing the step is several times those around it.
    """
    if voxels.shape[2] < 2 * NEIGHBORS + 2 or scale <= 0:
        return 0.0, 0.0, 0
    stack = np.asarray(voxels[np.ix_(_spread(voxels.shape[0]), _spread(voxels.shape[1]))], dtype=np.float32)
    steps = np.abs(np.diff(stack, axis=2)).mean(axis=(0, 1)) / scale
    ratios = np.zeros(len(steps))
    for place in range(NEIGHBORS, len(steps) - NEIGHBORS):
        around = np.r_[place - NEIGHBORS : place, place + 1 : place + NEIGHBORS + 1]
        if filled[place - NEIGHBORS : place + NEIGHBORS + 2].all() and steps[around].min() > 0:
            ratios[place] = steps[place] / np.median(steps[around])
    worst = int(np.argmax(ratios))
    return float(ratios[worst]), float(steps[worst]), worst + 1


def _corners(coarse: Volume) -> float:
    rows, columns = (max(1, round(CORNER_SHARE * size)) for size in coarse.shape[:2])
    blocks = [coarse[i, j] for i in (slice(rows), slice(-rows, None)) for j in (slice(columns), slice(-columns, None))]
    return float(np.median(np.concatenate([block.ravel() for block in blocks])))


def _border(body: Mask, stacked: int) -> dict[str, float]:
    """Share of each outermost plane that is body.

    Ends along superior, and those of the stack (axis ``stacked``), are left out: a scan must end somewhere.
    """
    faces = {"R": (0, body[-1]), "L": (0, body[0]), "A": (1, body[:, -1]), "P": (1, body[:, 0])}
    return {side: float(face.mean()) for side, (axis, face) in faces.items() if axis != stacked}


def _share(values: Volume, low: float, high: float) -> float:
    return float(((values >= low) & (values <= high)).mean())


def _quantiles(inside: Volume, low: float, high: float) -> tuple[float, ...]:
    values = np.quantile(inside, QUANTILE_LEVELS)
    scaled = np.clip((values - low) / ((high - low) or 1.0), -0.5, 1.5)
    return tuple(round(float(value), 4) for value in scaled)


def _center(body: Mask, places: list[npt.NDArray[np.intp]]) -> tuple[int, int, int]:
    """Fine index of the middle of the body's bounding box; of the whole volume without a body."""
    found = []
    for axis, own in enumerate(places):
        touched = np.flatnonzero(body.any(axis=tuple(other for other in range(3) if other != axis)))
        ends = (touched[0], touched[-1]) if len(touched) else (0, len(own) - 1)
        found.append(round(float(own[ends[0]] + own[ends[1]]) / 2))
    return found[0], found[1], found[2]
