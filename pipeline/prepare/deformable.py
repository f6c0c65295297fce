"""Deformable registration of a CT to an MR, after the rigid one.

The two are made alike first. Gradient-boosted trees learn, on this very pair as it lies by now,
what HU go with the MR's intensity, its surroundings at three scales, its edges and the depth below the skin, but not
where a voxel lies. Such a guess G cannot follow a bend, since it says the same wherever the MR looks the same. What is
left is a problem of one modality, solved by Gauss-Newton steps on the control points c of a coarse bend (`bend.py`):

    E(c) = Σ_x w(x) (G(x) − CT(x + u(x)))² / σ² · dx³ + λ ∫ Σ (∂²u)² dx

with weights w = 1 / (1 + (r / 2s)²) of the residual r (s from its median) inside the MR's body and 10 mm around it, σ²
the weighted mean of r², G and CT blurred alike. The guess is learned anew each round, on the CT as it is bent by then.
λ and the blur go down from round to round. No random draws: equal input gives equal bends.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from pipeline.geometry import Affine
from pipeline.prepare.bend import Bend, Field, Splines
from pipeline.prepare.registration import (
    CT_RANGE_HU,
    LEVELS_MM,
    Mask,
    Side,
    Transform,
    Volume,
    clipped_ct,
    clipped_mr,
    near_body,
)
from pipeline.resampling import one_thread

CONTROL_SPACING_MM = 60.0
"""Distance of control points: a head has about 250. Closer ones were no better."""

MOST_CONTROL_POINTS = 1200
LEVEL_MM = LEVELS_MM[1]


@dataclass(frozen=True)
class Round:
    """Gauss-Newton steps between two guesses: stiffness λ in mm, blur in mm."""

    stiffness: float
    blur_mm: float
    steps: int = 3


ROUNDS = (Round(1e5, 3.0), Round(2e4, 2.0), Round(1e4, 2.0))

_SURROUNDINGS_MM = (4.0, 8.0, 16.0)
_DEPTH_MM = (-12.0, 60.0)
_LEARNED_VOXELS, _TREES, _RATE, _DEPTH, _LEAF = 40_000, 60, 0.15, 6, 100
_LEAST_SCALE_HU = 20.0
_FIRM = 1e-6
"""Keeps control points that nothing holds where they are."""


class BendSearch:
    """Finds the bend of a pair.

    Args:
        mr: intensities ≥ 0.
        ct: HU, outside the body air.
        rigid: places in the MR to places in the CT.
    """

    def __init__(self, mr: Side, ct: Side, rigid: Affine) -> None:
        self._mr, self._ct, self._rigid = mr.at_level(LEVEL_MM), ct.at_level(LEVEL_MM), rigid
        self._moving = Side(clipped_ct(self._ct), self._ct.grid, self._ct.body)
        self._near = near_body(self._mr)
        self._features = _features(self._mr)[self._near]
        self.splines = Splines.over(self._mr.grid, CONTROL_SPACING_MM, MOST_CONTROL_POINTS)

    def find(self, start: Field | None = None) -> Bend:
        """The bend, from control points (a, b, c, 3) that are all at rest unless told otherwise."""
        points = np.zeros(self.splines.shape) if start is None else start
        with one_thread(), threadpool_limits(1):
            for part in ROUNDS:
                points = self._round(points, part)
        return Bend(self.splines, points)

    def _round(self, points: Field, part: Round) -> Field:
        hu, seen = self._bent(points)
        guess = self._blurred(self._guess(hu, seen), part.blur_mm)
        for step in range(part.steps):
            if step:
                hu, seen = self._bent(points)
            points = points + self._step(points, guess, self._blurred(hu, part.blur_mm), seen, part.stiffness)
        return points

    def _bent(self, points: Field) -> tuple[Volume, Mask]:
        """The CT on the MR's grid, and where its field of view reaches."""
        found = Transform(self._rigid, Bend(self.splines, points))
        hu = found.warp(self._moving.voxels, self._moving.grid.affine, self._mr.grid, np.nan)
        seen = np.isfinite(hu)
        return np.where(seen, hu, CT_RANGE_HU[0]).astype(np.float32), np.asarray(seen)

    def _guess(self, hu: Volume, seen: Mask) -> Volume:
        """What HU the MR makes one expect."""
        known = seen[self._near]
        shown, wanted = self._features[known], hu[self._near][known]
        stride = max(1, len(wanted) // _LEARNED_VOXELS)
        trees = HistGradientBoostingRegressor(
            max_iter=_TREES, learning_rate=_RATE, max_depth=_DEPTH, min_samples_leaf=_LEAF,
            early_stopping=False, random_state=0,
        )  # fmt: skip
        trees.fit(shown[::stride], wanted[::stride])
        guess = np.full(hu.shape, CT_RANGE_HU[0], np.float32)
        guess[self._near] = trees.predict(self._features)
        return guess

    def _step(self, points: Field, guess: Volume, hu: Volume, seen: Mask, stiffness: float) -> Field:
        """One Gauss-Newton step of the control points (a, b, c, 3)."""
        grid, splines = self._mr.grid, self.splines
        slope = _slopes(hu.astype(np.float64), grid.spacing_mm) @ grid.direction.T
        residual = guess.astype(np.float64) - hu
        weights = (self._near & seen).astype(np.float64)
        scale = max(_LEAST_SCALE_HU, 1.4826 * float(np.median(np.abs(residual[weights > 0]))))
        weights /= 1 + (residual / (2 * scale)) ** 2
        variance = float((weights * residual**2).sum() / weights.sum())
        weights *= np.prod(grid.spacing_mm) / variance
        count = int(np.prod(splines.counts))
        matrix, load = np.zeros((3, count, 3, count)), np.zeros((3, count))
        rough = stiffness * splines.roughness + _FIRM * np.prod(grid.spacing_mm) * np.eye(count)
        for i in range(3):
            load[i] = splines.sums(weights * slope[..., i] * residual) - rough @ points[..., i].ravel()
            for j in range(i, 3):
                matrix[i, :, j] = matrix[j, :, i] = splines.products(weights * slope[..., i] * slope[..., j])
            matrix[i, :, i] += rough
        moved = np.linalg.solve(matrix.reshape(3 * count, 3 * count), load.ravel())
        return np.asarray(moved.reshape(3, *splines.counts).transpose(1, 2, 3, 0))

    def _blurred(self, voxels: Volume, width_mm: float) -> Volume:
        return _blurred(voxels, width_mm, self._mr.grid.spacing_mm)


def _features(mr: Side) -> npt.NDArray[np.float32]:
    """(i, j, k, features): what the guess may know of each voxel of an MR."""
    signal, spacing = clipped_mr(mr), mr.grid.spacing_mm
    soft = _blurred(signal, _SURROUNDINGS_MM[0], spacing)
    edges = np.linalg.norm(_slopes(soft, spacing), axis=-1)
    inside = ndimage.distance_transform_edt(mr.body, sampling=spacing)
    depth = inside - ndimage.distance_transform_edt(~mr.body, sampling=spacing)
    around = [_blurred(signal, width, spacing) for width in _SURROUNDINGS_MM[1:]]
    return np.stack([signal, soft, *around, edges, np.clip(depth, *_DEPTH_MM)], axis=-1).astype(np.float32)


def _slopes(voxels: npt.NDArray[Any], spacing_mm: tuple[float, float, float]) -> npt.NDArray[Any]:
    """(i, j, k, 3) change per mm along the axes."""
    return np.stack([np.gradient(voxels, step, axis=axis) for axis, step in enumerate(spacing_mm)], axis=-1)


def _blurred(voxels: Volume, width_mm: float, spacing_mm: tuple[float, float, float]) -> Volume:
    widths = [width_mm / step for step in spacing_mm]
    return np.asarray(ndimage.gaussian_filter(voxels, widths, mode="nearest"), dtype=np.float32)
