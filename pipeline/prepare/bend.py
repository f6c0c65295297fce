"""A smooth bend of space: cubic B-splines on a coarse grid of control points (Rueckert et al., IEEE TMI 18:712, 1999).

    u(x) = Σ_abc β_a(x₁) β_b(x₂) β_c(x₃) c_abc

x are places along the axes of the grid that the bend is made for, in mm; c are displacements in RAS+ mm. Sums over
voxels factor along the axes, so that a bend on a grid, and the normal equations of its control points, cost a few
products of small matrices.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.geometry import Geometry

Field = npt.NDArray[np.float64]

_ORDER = 3
_MARGIN_VOXELS = 1.0
"""The splines reach this far beyond the outermost voxel centers, so that a finer grid of the same scan lies within."""

_ROUGHNESS = ((2, 0, 0, 1.0), (0, 2, 0, 1.0), (0, 0, 2, 1.0), (1, 1, 0, 2.0), (1, 0, 1, 2.0), (0, 1, 1, 2.0))
"""Orders of derivatives along the axes, and how often each second derivative occurs in the bending energy."""


@dataclass(frozen=True, eq=False)
class Splines:
    """Control points over a grid.

    Attributes:
        grid: voxels that the bend is made for.
        counts: control points along each axis.
    """

    grid: Geometry
    counts: tuple[int, int, int]

    @classmethod
    def over(cls, grid: Geometry, spacing_mm: float, most: int) -> "Splines":
        """Control points ``spacing_mm`` apart or a little closer; further apart where there would be over ``most``."""
        while True:
            meshes = [int(np.ceil(length / spacing_mm)) for length in _lengths(grid)]
            counts = tuple(mesh + _ORDER for mesh in meshes)
            if np.prod(counts) <= most or max(meshes) == 1:
                return cls(grid, (counts[0], counts[1], counts[2]))
            spacing_mm *= 1.1

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the displacements of all control points."""
        return (*self.counts, 3)

    @cached_property
    def _bases(self) -> list[Field]:
        """(voxels, control points) for each axis."""
        return [
            _basis(np.arange(size) + _MARGIN_VOXELS, size - 1 + 2 * _MARGIN_VOXELS, count)
            for size, count in zip(self.grid.shape, self.counts, strict=True)
        ]

    def field(self, points: Field) -> Field:
        """Displacements (i, j, k, 3) in mm of control points (a, b, c, 3)."""
        return np.asarray(np.einsum("xa,yb,zc,abck->xyzk", *self._bases, points, optimize=True))

    def at(self, points: Field, places_mm: Field) -> Field:
        """Displacements (n, 3) at places (n, 3), RAS+ mm; none beyond the splines."""
        index = self.grid.to_index(places_mm)
        ends = np.array(self.grid.shape) - 1 + _MARGIN_VOXELS
        inside = np.all((index >= -_MARGIN_VOXELS) & (index <= ends), axis=1)
        bases = [
            _basis(index[:, axis] + _MARGIN_VOXELS, self.grid.shape[axis] - 1 + 2 * _MARGIN_VOXELS, count)
            for axis, count in enumerate(self.counts)
        ]
        moved = np.einsum("na,nb,nc,abck->nk", *bases, points, optimize=True)
        return np.asarray(np.where(inside[:, None], moved, 0.0))

    def products(self, weights: Field) -> Field:
        """Σ_x w(x) B_p(x) B_q(x) for all pairs of control points, (P, P)."""
        pairs = [np.einsum("na,nb->nab", basis, basis).reshape(len(basis), -1) for basis in self._bases]
        summed = np.tensordot(weights, pairs[2], (2, 0))
        summed = np.tensordot(summed, pairs[1], (1, 0))
        summed = np.tensordot(summed, pairs[0], (0, 0))
        first, second, third = self.counts
        spread = summed.reshape(third, third, second, second, first, first).transpose(4, 2, 0, 5, 3, 1)
        count = int(np.prod(self.counts))
        return np.asarray(spread.reshape(count, count))

    def sums(self, values: Field) -> Field:
        """Σ_x v(x) B_p(x) for every control point, (P,)."""
        return np.asarray(np.einsum("xyz,xa,yb,zc->abc", values, *self._bases, optimize=True).ravel())

    @cached_property
    def roughness(self) -> Field:
        """Bending energy ∫ Σ (∂²u)² dx as a form (P, P) of one component's control points."""
        lines = [_line_forms(length, count) for length, count in zip(_lengths(self.grid), self.counts, strict=True)]
        total = np.zeros((int(np.prod(self.counts)),) * 2)
        for *orders, times in _ROUGHNESS:
            parts = [line[int(order)] for line, order in zip(lines, orders, strict=True)]
            total += times * np.kron(np.kron(parts[0], parts[1]), parts[2])
        return total


@dataclass(frozen=True, eq=False)
class Bend:
    """One bend.

    Attributes:
        splines: where its control points lie.
        points: their displacements (a, b, c, 3), RAS+ mm.
    """

    splines: Splines
    points: Field

    def move(self, places_mm: Field) -> Field:
        """Places (n, 3) after the bend."""
        return places_mm + self.splines.at(self.points, places_mm)

    def on(self, grid: Geometry) -> Field:
        """Displacements (i, j, k, 3) in mm at the voxels of a grid."""
        if grid is self.splines.grid:
            return self.splines.field(self.points)
        places = grid.to_world(np.indices(grid.shape).reshape(3, -1).T)
        parts = [self.splines.at(self.points, part) for part in np.array_split(places, max(1, len(places) // 50_000))]
        return np.concatenate(parts).reshape(*grid.shape, 3)

    def volume_ratios(self) -> Field:
        """Determinant of the Jacobian of x + u(x) at every voxel of the grid: below 0 space is folded."""
        grid = self.splines.grid
        field = self.splines.field(self.points)
        along = np.stack([np.gradient(field, step, axis=axis) for axis, step in enumerate(grid.spacing_mm)], axis=-1)
        return np.asarray(np.linalg.det(np.eye(3) + along @ grid.direction.T))


def _lengths(grid: Geometry) -> list[float]:
    voxels = np.array(grid.shape) - 1 + 2 * _MARGIN_VOXELS
    return [float(length) for length in voxels * np.array(grid.spacing_mm)]


def _basis(places: npt.NDArray[Any], length: float, count: int) -> Field:
    """Cubic B-splines (n, count) at places from 0 to ``length``."""
    steps = np.asarray(places, np.float64) / length * (count - _ORDER)
    away = np.abs(steps[:, None] - (np.arange(count) - 1))
    near = (4 - 6 * away**2 + 3 * away**3) / 6
    far = np.clip(2 - away, 0, None) ** 3 / 6
    return np.asarray(np.where(away < 1, near, far))


def _line_forms(length: float, count: int) -> Sequence[Field]:
    """∫ B B, ∫ B′ B′ and ∫ B″ B″ along an axis, (count, count) each, summed over fine steps."""
    places = np.linspace(0, length, 40 * (count - _ORDER) + 1)
    step = float(places[1])
    values = _basis(places, length, count)
    weights = np.full(len(places), step)
    weights[[0, -1]] /= 2
    first = np.gradient(values, step, axis=0)
    second = np.gradient(first, step, axis=0)
    return [form.T @ (form * weights[:, None]) for form in (values, first, second)]
