import numpy as np
import pytest

from pipeline.geometry import Geometry
from pipeline.metrics.geometry_agreement import better_mirrored, compare_geometry

SHAPE = (12, 10, 8)
AFFINE = np.array([[1.0, 0, 0, -5], [0, 1.5, 0, 7], [0, 0, 3.0, -40], [0, 0, 0, 1]])
GRID = Geometry(SHAPE, AFFINE)


def moved(offset):
    affine = AFFINE.copy()
    affine[:3, 3] += offset
    return Geometry(SHAPE, affine)


def scaled(axis, factor):
    affine = AFFINE.copy()
    affine[:, axis] *= factor
    return Geometry(SHAPE, affine)


def flipped(axis):
    """The same voxels in the patient, stored from the other side."""
    affine = AFFINE.copy()
    affine[:3, 3] += affine[:3, axis] * (SHAPE[axis] - 1)
    affine[:, axis] *= -1
    return Geometry(SHAPE, affine)


def test_the_same_grid_agrees_and_rounding_is_forgiven():
    assert compare_geometry(GRID, GRID).agrees
    assert compare_geometry(GRID, moved((0.01, 0, -0.02))).agrees


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_grid_stored_from_the_other_side_fails_though_it_covers_the_same_volume(axis):
    found = compare_geometry(GRID, flipped(axis))
    assert not found.agrees
    assert found.orientation != found.expected_orientation == "RAS"
    assert found.extent_difference_mm == 0
    assert found.distance_mm == pytest.approx(GRID.spacing_mm[axis] * (SHAPE[axis] - 1))


@pytest.mark.parametrize(
    ("grid", "word"),
    [
        (moved((0, 0, 1.5)), "apart"),
        (scaled(2, 1.01), "voxel sizes differ by 0.03 mm"),
        (Geometry((12, 10, 9), AFFINE), "(12, 10, 9) voxels"),
        (Geometry((10, 12, 8), AFFINE[:, [1, 0, 2, 3]]), "axes run ARS"),
    ],
)
def test_place_size_shape_and_order_of_axes_are_compared(grid, word):
    found = compare_geometry(GRID, grid)
    assert not found.agrees
    assert any(word in problem for problem in found.problems)


def test_half_a_slice_off_is_measured():
    assert compare_geometry(GRID, moved((0, 0, 1.5))).distance_mm == pytest.approx(1.5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_mirrored_voxels_under_the_same_header_are_found(axis):
    rng = np.random.default_rng(axis)
    ct = rng.normal(0, 300, SHAPE)
    honest = ct + rng.normal(0, 150, SHAPE)
    mask = np.ones(SHAPE, bool)
    assert better_mirrored(ct, honest, mask) is None
    assert better_mirrored(ct, np.flip(honest, axis), mask) == axis


def test_an_image_that_says_nothing_is_not_called_mirrored():
    rng = np.random.default_rng(0)
    ct = rng.normal(0, 300, SHAPE)
    assert better_mirrored(ct, np.zeros(SHAPE), np.ones(SHAPE)) is None
    assert better_mirrored(ct, rng.normal(0, 300, SHAPE), np.ones(SHAPE)) is None
