import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.intensity import (
    CT_MAP,
    GREY_MAP,
    MR_UNIT_AT_HIGH,
    MRScale,
    PiecewiseLinearMap,
    from_int16,
    robust_mr_scale,
    to_int16,
)

EVERY_HU = np.arange(-1024, 3072)
LINE = PiecewiseLinearMap(knots_hu=(-1024.0, 3071.0), knots_unit=(-1.0, 1.0))


@pytest.mark.parametrize("mapping", [CT_MAP, LINE])
def test_every_hu_survives_the_map_and_its_int16_storage(mapping: PiecewiseLinearMap) -> None:
    unit = mapping.encode(EVERY_HU)
    assert unit.dtype == np.float32
    assert np.abs(mapping.decode(unit) - EVERY_HU).max() < 0.01
    stored = mapping.decode(from_int16(to_int16(unit)))
    assert np.abs(stored - EVERY_HU).max() < 0.5
    np.testing.assert_array_equal(np.rint(stored), EVERY_HU)


def test_knots_are_hit_and_units_span_the_whole_range() -> None:
    np.testing.assert_allclose(CT_MAP.encode(np.array(CT_MAP.knots_hu)), CT_MAP.knots_unit, atol=1e-7)
    assert CT_MAP.encode(EVERY_HU).min() == -1
    assert CT_MAP.encode(EVERY_HU).max() == 1


def test_map_increases_and_resolves_soft_tissue_better_than_a_line() -> None:
    assert (np.diff(CT_MAP.encode(EVERY_HU).astype(np.float64)) > 0).all()
    step = CT_MAP.encode(np.array([40.0, 60.0]))
    line = LINE.encode(np.array([40.0, 60.0]))
    assert step[1] - step[0] > 3 * (line[1] - line[0])


def test_linear_map_is_the_closed_form() -> None:
    grey = np.arange(256)
    np.testing.assert_allclose(GREY_MAP.encode(grey), grey / 127.5 - 1, atol=1e-7)
    np.testing.assert_array_equal(np.rint(GREY_MAP.decode(GREY_MAP.encode(grey))), grey)


def test_values_beyond_the_outer_knots_are_clipped_and_input_is_untouched() -> None:
    hu = np.array([-3000.0, 9000.0])
    np.testing.assert_array_equal(CT_MAP.encode(hu), [-1, 1])
    np.testing.assert_array_equal(CT_MAP.decode(np.array([-1.5, 1.5])), [-1024, 3071])
    np.testing.assert_array_equal(hu, [-3000, 9000])


@pytest.mark.parametrize(
    ("hu", "unit"),
    [
        ((0.0,), (0.0,)),
        ((0.0, 0.0), (-1.0, 1.0)),
        ((0.0, 1.0), (1.0, -1.0)),
        ((0.0, 1.0, 2.0), (-1.0, 1.0)),
        ((0.0, float("nan")), (-1.0, 1.0)),
        ((0.0, 1.0), (-1.0, 1.5)),
    ],
)
def test_knots_that_cannot_be_inverted_are_refused(hu: tuple[float, ...], unit: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="strictly increase"):
        PiecewiseLinearMap(hu, unit)


def test_mr_scale_is_invariant_to_gain_and_offset_of_the_scanner() -> None:
    rng = np.random.default_rng(0)
    voxels, mask = rng.gamma(2.0, 100.0, size=(20, 20, 5)), np.ones((20, 20, 5), bool)
    plain = robust_mr_scale(voxels, mask).encode(voxels)
    louder = robust_mr_scale(7 * voxels + 90, mask).encode(7 * voxels + 90)
    np.testing.assert_allclose(plain, louder, atol=1e-5)


def test_mr_scale_puts_the_percentiles_of_the_body_where_it_says() -> None:
    voxels = np.concatenate([np.arange(101.0), np.full(500, 5000.0)])
    mask = np.arange(601) <= 100
    scale = robust_mr_scale(voxels, mask)
    assert (scale.low, scale.high) == (1.0, 99.0)
    np.testing.assert_allclose(scale.encode(np.array([1.0, 99.0])), [-1, MR_UNIT_AT_HIGH], atol=1e-6)


def test_mr_decode_inverts_encode_inside_the_unclipped_range() -> None:
    scale = MRScale(30.0, 830.0)
    inside = np.linspace(30, 1030, 1001)
    np.testing.assert_allclose(scale.decode(scale.encode(inside)), inside, atol=1e-3)
    np.testing.assert_array_equal(scale.encode(np.array([0.0, 1100.0])), [-1, 1])


def test_mr_scale_refuses_an_empty_mask_a_constant_body_and_crossed_percentiles() -> None:
    voxels = np.arange(10.0)
    with pytest.raises(InputError, match="0 voxels inside"):
        robust_mr_scale(voxels, np.zeros(10, bool))
    with pytest.raises(InputError, match="equal shapes"):
        robust_mr_scale(voxels, np.ones(9, bool))
    with pytest.raises(InputError, match="high > low"):
        robust_mr_scale(np.full(10, 3.0), np.ones(10, bool))
    with pytest.raises(InputError, match="lower < upper"):
        robust_mr_scale(voxels, np.ones(10, bool), percentiles=(99, 1))


def test_int16_storage_is_exact_on_its_grid_and_clips_at_its_ends() -> None:
    grid = np.arange(-32768, 32768) / 16384
    np.testing.assert_array_equal(from_int16(to_int16(grid)), grid.astype(np.float32))
    np.testing.assert_array_equal(to_int16(np.array([-9.0, 9.0])), [-32768, 32767])


def test_int16_storage_refuses_values_it_cannot_hold() -> None:
    with pytest.raises(InputError, match="1 values"):
        to_int16(np.array([0.0, np.nan]))
