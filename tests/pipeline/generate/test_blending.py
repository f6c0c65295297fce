"""Blending by closed forms: what must vanish, what must stay, what must be exact."""

import numpy as np
import pytest

from pipeline.generate.blending import feather_weight, feathered_blend, poisson_blend

RNG = np.random.default_rng(3)
ROWS, COLUMNS = np.mgrid[:24, :30].astype(float)
DISK = np.hypot(ROWS - 11, COLUMNS - 14) < 7
SLICE = RNG.normal(size=DISK.shape)


@pytest.mark.parametrize("inside", [DISK, np.pad(np.ones((22, 28), bool), 1), DISK & (ROWS % 5 > 0)])
@pytest.mark.parametrize(
    "harmonic",
    [np.full(DISK.shape, 3.7), 0.2 * ROWS - 0.7 * COLUMNS + 4, ROWS**2 - COLUMNS**2, ROWS * COLUMNS],
    ids=["constant", "ramp", "saddle", "product"],
)
def test_patches_that_differ_by_a_harmonic_function_change_nothing(harmonic, inside):
    assert np.allclose(poisson_blend(SLICE, SLICE + harmonic, inside), SLICE, atol=1e-9)


def test_the_laplacian_inside_is_that_of_the_patch():
    patch = RNG.normal(size=DISK.shape)
    result = poisson_blend(SLICE, patch, DISK)

    def laplacian(image):
        return sum(np.roll(image, step, axis) for step in (-1, 1) for axis in (0, 1)) - 4 * image

    assert np.allclose(laplacian(result)[DISK], laplacian(patch)[DISK])
    assert np.array_equal(result[~DISK], SLICE[~DISK])


def test_a_bump_that_is_flat_along_the_rim_comes_over_as_it_is():
    bump = np.where(np.hypot(ROWS - 11, COLUMNS - 14) < 4, 0.5, 0.0)
    flat = np.full(DISK.shape, -2.0)
    assert np.allclose(poisson_blend(flat, bump + 9, DISK), flat + bump)


def test_a_step_of_the_slice_across_the_rim_is_followed():
    """Along one row of an infinitely tall strip the membrane is a straight line between its ends."""
    tall = np.zeros((401, 12), bool)
    tall[1:-1, 1:-1] = True
    slice_ = np.zeros(tall.shape)
    slice_[:, -1] = 11
    result = poisson_blend(slice_, np.zeros(tall.shape), tall)
    assert np.allclose(result[200], np.arange(12.0), atol=1e-6)


def test_blending_is_linear_in_slice_and_patch():
    a, b, g, h = RNG.normal(size=(4, *DISK.shape))
    joint = poisson_blend(2 * a - b, 2 * g - h, DISK)
    assert np.allclose(joint, 2 * poisson_blend(a, g, DISK) - poisson_blend(b, h, DISK))


def test_nothing_inside_is_nothing_done():
    assert np.array_equal(poisson_blend(SLICE, SLICE + 1, np.zeros(DISK.shape, bool)), SLICE)


def test_weights_fall_linearly_with_the_distance_in_mm():
    mask = np.zeros((9, 9), bool)
    mask[4, 4] = True
    weight = feather_weight(mask, 4.0, (2.0, 1.0))
    assert weight[4].tolist() == [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 0]
    assert weight[:, 4].tolist() == [0, 0, 0, 0.5, 1, 0.5, 0, 0, 0]
    assert not feather_weight(np.zeros((3, 3), bool), 2.0, (1.0, 1.0)).any()


def test_feathering_brings_the_background_to_the_level_of_the_slice():
    flat = np.full(DISK.shape, 5.0)
    weight = feather_weight(np.hypot(ROWS - 11, COLUMNS - 14) < 4, 3.0, (1.0, 1.0))
    bump = np.where(weight == 1, 0.5, 0.0)
    assert np.allclose(feathered_blend(flat, bump - 40, weight), flat + bump)


def test_feathering_leaves_the_rest_bit_for_bit():
    weight = feather_weight(DISK, 2.5, (1.0, 1.0))
    result = feathered_blend(SLICE, RNG.normal(size=DISK.shape), weight)
    assert np.array_equal(result[weight == 0], SLICE[weight == 0])
    assert (result[weight > 0] != SLICE[weight > 0]).all()
