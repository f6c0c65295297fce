"""Splines against closed forms: affine maps, quadratic bends, sums written out."""

import numpy as np
import pytest

from pipeline.geometry import Geometry
from pipeline.prepare.bend import Bend, Splines


def turned_grid():
    angle = np.deg2rad(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([3.0, 4.0, 5.0])
    affine[:3, 3] = (-30.0, 12.0, 7.0)
    return Geometry((14, 12, 9), affine)


@pytest.fixture
def splines():
    return Splines.over(turned_grid(), 20.0, 1000)


def at_control_points(splines, function):
    """Control points that make an affine function of the place along the axes: cubic splines reproduce it."""
    ends = (np.array(splines.grid.shape) + 1) * splines.grid.spacing_mm
    axes = [
        (np.arange(count) - 1) * end / (count - 3) - step
        for count, end, step in zip(splines.counts, ends, splines.grid.spacing_mm, strict=True)
    ]
    return function(*np.meshgrid(*axes, indexing="ij"))


def along_axes(splines):
    return [
        np.arange(size) * step
        for size, step in zip(splines.grid.shape, splines.grid.spacing_mm, strict=True)
    ]  # fmt: skip


def test_equal_control_points_shift_everything_alike(splines):
    points = np.broadcast_to([1.5, -2.0, 0.25], splines.shape)
    assert np.allclose(splines.field(points), [1.5, -2.0, 0.25])


def test_affine_control_points_make_an_affine_field(splines):
    def first(x, y, z):
        return np.stack([0.1 * x - 0.2 * z + 3, 0.05 * y, 0 * x], axis=-1)

    field = splines.field(at_control_points(splines, first))
    assert np.allclose(field, first(*np.meshgrid(*along_axes(splines), indexing="ij")))


def test_places_between_voxels_agree_with_the_field_on_voxels(splines):
    points = np.random.default_rng(0).normal(size=splines.shape)
    voxels = np.indices(splines.grid.shape).reshape(3, -1).T
    found = splines.at(points, splines.grid.to_world(voxels)).reshape(*splines.grid.shape, 3)
    assert np.allclose(found, splines.field(points))
    far = splines.grid.to_world(np.array([[-2.0, 3, 3], [3, 3, 11]]))
    assert np.array_equal(splines.at(points, far), np.zeros((2, 3)))


def test_sums_and_products_are_those_of_the_basis_written_out(splines):
    count = int(np.prod(splines.counts))
    chosen = np.random.default_rng(1).choice(count, 12, replace=False)
    values = np.random.default_rng(2).normal(size=splines.grid.shape)
    weights = values**2
    basis = []
    for number in chosen:
        points = np.zeros((count, 3))
        points[number, 0] = 1
        basis.append(splines.field(points.reshape(splines.shape))[..., 0])
    assert np.allclose(splines.sums(values)[chosen], [(one * values).sum() for one in basis])
    wanted = [[(weights * one * other).sum() for other in basis] for one in basis]
    assert np.allclose(splines.products(weights)[np.ix_(chosen, chosen)], wanted)


def test_roughness_is_the_bending_energy(splines):
    def flat(x, y, z):
        return 2 + 0.3 * x - y + 0.5 * z

    def crossed(x, y, z):
        return x * y

    rough = splines.roughness
    assert flat_energy(rough, at_control_points(splines, flat)) == pytest.approx(0, abs=1e-6)
    volume = np.prod((np.array(splines.grid.shape) + 1) * splines.grid.spacing_mm)
    assert flat_energy(rough, at_control_points(splines, crossed)) == pytest.approx(2 * volume, rel=0.005)


def flat_energy(rough, points):
    return points.ravel() @ rough @ points.ravel()


def test_volume_ratios_are_those_of_a_stretch_and_a_fold_is_negative(splines):
    def stretched(x, y, z):
        along = np.stack([0.2 * x, -0.1 * y, 0 * z], axis=-1)
        return along @ splines.grid.direction.T

    ratios = Bend(splines, at_control_points(splines, stretched)).volume_ratios()
    assert np.allclose(ratios[1:-1, 1:-1, 1:-1], 1.2 * 0.9, atol=1e-6)

    def folded(x, y, z):
        return np.stack([-1.5 * x, 0 * y, 0 * z], axis=-1) @ splines.grid.direction.T

    assert Bend(splines, at_control_points(splines, folded)).volume_ratios()[4, 4, 4] == pytest.approx(-0.5)


def test_a_bend_on_a_finer_grid_is_the_bend_of_places(splines):
    bend = Bend(splines, np.random.default_rng(3).normal(size=splines.shape))
    affine = splines.grid.affine @ np.diag([0.5, 0.5, 1.0, 1.0])
    finer = Geometry((26, 22, 9), affine)
    places = finer.to_world(np.indices(finer.shape).reshape(3, -1).T)
    assert np.allclose(bend.on(finer).reshape(-1, 3), bend.move(places) - places)


def test_control_points_stay_below_the_most_allowed():
    assert np.prod(Splines.over(turned_grid(), 5.0, 200).counts) <= 200
