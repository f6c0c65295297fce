import time

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch

from pipeline.errors import InputError
from pipeline.metrics.fid import fid, fid_infinity, trace_of_root

RNG = np.random.default_rng(0)
MIXING = RNG.normal(size=(12, 12))
REAL = RNG.normal(size=(80, 12)) @ MIXING + 1
SYNTHETIC = RNG.normal(0.4, 1.3, size=(70, 12)) @ MIXING[::-1]


def by_sqrtm(x: np.ndarray, y: np.ndarray) -> float:
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.real(np.trace(scipy.linalg.sqrtm(a @ b)))
    return float(np.square(x.mean(0) - y.mean(0)).sum() + np.trace(a) + np.trace(b) - 2 * root)


def whitened(count: int, features: int, rng: np.random.Generator) -> np.ndarray:
    """Sample with mean exactly 0 and covariance exactly 1."""
    x = rng.normal(size=(count, features))
    x -= x.mean(0)
    return x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T


def test_equals_the_square_root_of_the_matrix() -> None:
    assert fid(REAL, SYNTHETIC).value == pytest.approx(by_sqrtm(REAL, SYNTHETIC), rel=1e-9)


def test_the_trace_is_that_of_the_root_of_the_product_even_of_singular_covariances() -> None:
    first, second = (np.cov(side, rowvar=False) for side in (REAL, SYNTHETIC))
    expected = np.real(np.trace(scipy.linalg.sqrtm(first @ second)))
    assert trace_of_root(first, second) == pytest.approx(expected, rel=1e-9)
    assert trace_of_root(np.tril(first), np.tril(second)) == pytest.approx(expected, rel=1e-9)
    assert trace_of_root(np.pad(first, (0, 1)), np.pad(second, (0, 1))) == pytest.approx(expected, rel=1e-9)


def test_equals_torchmetrics_on_the_same_moments() -> None:
    from torchmetrics.image.fid import _compute_fid

    x, y = torch.from_numpy(REAL), torch.from_numpy(SYNTHETIC)
    expected = _compute_fid(x.mean(0), x.T.cov(), y.mean(0), y.T.cov())
    assert fid(REAL, SYNTHETIC).value == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
def test_equals_monai_on_the_same_features() -> None:
    from monai.metrics import FIDMetric

    expected = FIDMetric()(torch.from_numpy(SYNTHETIC), torch.from_numpy(REAL))
    assert fid(REAL, SYNTHETIC).value == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize(("m", "n"), [(9, 7), (9, 40), (40, 9), (12, 12), (13, 13), (2, 2)])
def test_few_images_equal_a_route_through_symmetric_roots(m: int, n: int) -> None:
    x, y = REAL[:m], SYNTHETIC[:n]
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    values, vectors = np.linalg.eigh(a)
    root = vectors @ np.diag(np.sqrt(values.clip(0))) @ vectors.T
    trace = np.sqrt(np.linalg.eigvalsh(root @ b @ root).clip(0)).sum()
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(a) + np.trace(b) - 2 * trace
    result = fid(x, y)
    assert result.value == pytest.approx(expected, rel=1e-6)
    assert result.too_few == (min(m, n) < 12)


def test_closed_form_of_two_gaussians_with_commuting_covariances() -> None:
    rng = np.random.default_rng(1)
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    deviations = np.array([0.1, 0.5, 1, 2, 3, 10])
    shift = np.arange(6.0)
    x = whitened(50, 6, rng) @ rotation.T
    y = (whitened(60, 6, rng) * deviations + shift) @ rotation.T
    result = fid(x, y)
    assert result.mean_term == pytest.approx(np.square(shift).sum())
    assert result.covariance_term == pytest.approx(np.square(deviations - 1).sum())
    assert result.value == result.mean_term + result.covariance_term


def test_rotation_translation_order_and_exchange_change_nothing_and_scale_squares() -> None:
    value = fid(REAL, SYNTHETIC).value
    rotation = np.linalg.qr(RNG.normal(size=(12, 12)))[0]
    assert fid(REAL @ rotation, SYNTHETIC @ rotation).value == pytest.approx(value)
    assert fid(REAL + 1e4, SYNTHETIC + 1e4).value == pytest.approx(value, rel=1e-8)
    assert fid(REAL[::-1], SYNTHETIC[::-1]).value == pytest.approx(value)
    assert fid(REAL[:, ::-1], SYNTHETIC[:, ::-1]).value == pytest.approx(value)
    assert fid(SYNTHETIC, REAL).value == pytest.approx(value)
    assert fid(3 * REAL, 3 * SYNTHETIC).value == pytest.approx(9 * value)


@pytest.mark.parametrize("count", [5, 12, 80])
def test_equal_cohorts_are_at_distance_zero(count: int) -> None:
    result = fid(REAL[:count], REAL[:count][::-1].copy())
    assert 0 <= result.value < 1e-9


def test_dead_and_copied_features_give_the_value_of_the_live_ones() -> None:
    value = fid(REAL, SYNTHETIC).value
    dead = [np.pad(cohort, ((0, 0), (0, 5)), constant_values=2) for cohort in (REAL, SYNTHETIC)]
    assert fid(dead[0], dead[1]).value == pytest.approx(value, rel=1e-9)
    copied = [np.hstack([cohort] * 6) for cohort in (REAL, SYNTHETIC)]
    assert fid(copied[0], copied[1]).value == pytest.approx(6 * value, rel=1e-9)


def test_distance_grows_with_shift_spread_and_lost_modes() -> None:
    values = [fid(REAL, REAL + shift).value for shift in (0, 0.5, 1)]
    rounding = 1e-12 * np.trace(np.cov(REAL, rowvar=False))  # of the traces, which cancel: some 1e-10 here
    assert values == pytest.approx([0, 12 * 0.25, 12], abs=rounding)
    assert fid(REAL, REAL.mean(0) + 0.5 * (REAL - REAL.mean(0))).value > 1
    assert fid(REAL, np.repeat(REAL[:4], 20, axis=0)).value > fid(REAL, np.repeat(REAL[:40], 2, axis=0)).value > 0.1


def test_float32_is_computed_in_float64() -> None:
    x, y = REAL.astype(np.float32), SYNTHETIC.astype(np.float32)
    assert fid(x, y).value == pytest.approx(by_sqrtm(x.astype(np.float64), y.astype(np.float64)), rel=1e-9)


def test_extrapolation_removes_the_bias_of_small_cohorts() -> None:
    rng = np.random.default_rng(3)
    plain, both, published = [], [], []
    for _ in range(12):
        x, y = rng.normal(size=(300, 8)), rng.normal(size=(300, 8))  # the truth is 0
        plain.append(fid(x, y).value)
        both.append(fid_infinity(x, y, rng, subsets_of="both").value)
        published.append(fid_infinity(x, y, rng, subsets_of="synthetic").value)
    bias = np.mean(plain)
    assert bias == pytest.approx((2 * 8 + 8 * 9 / 2) / 300, rel=0.2)  # first order: means 2 d/n, covariances d(d+1)/2n
    assert abs(np.mean(both)) < 0.15 * bias
    assert np.mean(published) == pytest.approx(bias / 2, rel=0.3)  # that of the real cohort stays


def test_the_line_is_that_of_least_squares() -> None:
    result = fid_infinity(REAL, SYNTHETIC, np.random.default_rng(4), subsets_of="synthetic", smallest=20)
    fit = scipy.stats.linregress(1 / np.array(result.sizes), result.distances)
    assert result.value == pytest.approx(fit.intercept)
    assert result.slope == pytest.approx(fit.slope)
    assert result.standard_error == pytest.approx(fit.intercept_stderr)
    assert result.sizes[0] == 20
    assert result.sizes[-1] == 70
    assert result.distances[-1] == pytest.approx(fid(REAL, SYNTHETIC).value)


def test_same_generator_gives_the_same_line_and_small_subsets_are_flagged() -> None:
    first, again = (fid_infinity(REAL, SYNTHETIC, np.random.default_rng(5), subsets_of="both") for _ in range(2))
    assert first == again
    assert first.sizes[0] == 24
    assert not first.too_few
    assert fid_infinity(REAL, SYNTHETIC, RNG, subsets_of="both", smallest=11).too_few
    assert fid_infinity(REAL[:11], SYNTHETIC, RNG, subsets_of="synthetic").too_few


def test_inputs_are_left_alone() -> None:
    x, y = REAL.copy(), SYNTHETIC.copy()
    fid_infinity(x, y, RNG, subsets_of="both")
    assert np.array_equal(x, REAL)
    assert np.array_equal(y, SYNTHETIC)


def test_bad_cohorts_and_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="same d"):
        fid(REAL, SYNTHETIC[:, :5])
    with pytest.raises(InputError, match="at least 2 images"):
        fid(REAL[:1], SYNTHETIC)
    with pytest.raises(InputError, match="all finite: False"):
        fid(REAL * np.nan, SYNTHETIC)
    with pytest.raises(InputError, match="smallest < 70"):
        fid_infinity(REAL, SYNTHETIC, RNG, subsets_of="both", smallest=70)
    with pytest.raises(InputError, match="points >= 3"):
        fid_infinity(REAL, SYNTHETIC, RNG, subsets_of="both", points=2)


def test_three_hundred_images_of_two_thousand_features_take_well_under_a_second() -> None:
    features = RNG.normal(size=(600, 2048)).astype(np.float32)
    start = time.process_time()
    assert fid(features[:300], features[300:]).too_few
    assert time.process_time() - start < 3
