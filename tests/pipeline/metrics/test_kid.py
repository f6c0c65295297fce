import time

import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.metrics.kid import kid, kid_interval, mmd2_unbiased

RNG = np.random.default_rng(0)
REAL, SYNTHETIC = RNG.normal(size=(60, 8)), RNG.normal(0.3, 1.2, size=(50, 8))


def test_equals_the_double_sum_over_pairs() -> None:
    x, y = REAL[:5], SYNTHETIC[:4]

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 8 + 1) ** 3)

    within_x = sum(kernel(x[i], x[j]) for i in range(5) for j in range(5) if i != j) / 20
    within_y = sum(kernel(y[i], y[j]) for i in range(4) for j in range(4) if i != j) / 12
    between = sum(kernel(a, b) for a in x for b in y) / 20
    assert mmd2_unbiased(x, y) == pytest.approx(within_x + within_y - 2 * between)


def test_equals_torchmetrics_on_the_same_features() -> None:
    from torchmetrics.image.kid import poly_mmd

    expected = poly_mmd(torch.from_numpy(REAL[:50]), torch.from_numpy(SYNTHETIC))
    assert mmd2_unbiased(REAL[:50], SYNTHETIC) == pytest.approx(float(expected))


def test_one_subset_of_everything_is_the_whole_statistic() -> None:
    result = kid(REAL[:50], SYNTHETIC, RNG, subsets=3, subset_size=50)
    assert result.value == pytest.approx(mmd2_unbiased(REAL[:50], SYNTHETIC))
    assert result.deviation == pytest.approx(0, abs=1e-12)


def test_subsets_estimate_the_whole_without_bias_and_state_their_error() -> None:
    result = kid(REAL, SYNTHETIC, np.random.default_rng(1), subsets=400, subset_size=20)
    assert abs(result.value - mmd2_unbiased(REAL, SYNTHETIC)) < 4 * result.standard_error
    assert result.standard_error == pytest.approx(result.deviation / 20)


def test_equal_distributions_score_about_zero_and_distance_grows() -> None:
    rng = np.random.default_rng(2)
    real = rng.normal(size=(400, 8))
    near, far = (kid(real, rng.normal(shift, 1, size=(400, 8)), rng) for shift in (0.0, 0.5))
    assert abs(near.value) < 0.02
    assert far.value > 10 * abs(near.value)


def test_same_generator_gives_the_same_value_and_order_of_images_is_irrelevant() -> None:
    first, again = (kid(REAL, SYNTHETIC, np.random.default_rng(5)) for _ in range(2))
    assert first == again
    assert first.subset_size == 25
    assert mmd2_unbiased(REAL[::-1], SYNTHETIC) == pytest.approx(mmd2_unbiased(REAL, SYNTHETIC))


def test_bad_cohorts_are_refused() -> None:
    with pytest.raises(InputError, match="same d"):
        mmd2_unbiased(REAL, SYNTHETIC[:, :5])
    with pytest.raises(InputError, match="at least 2 images"):
        mmd2_unbiased(REAL[:1], SYNTHETIC)
    with pytest.raises(InputError, match="all finite: False"):
        mmd2_unbiased(REAL * np.nan, SYNTHETIC)
    with pytest.raises(InputError, match="subset_size <= 50"):
        kid(REAL, SYNTHETIC, RNG, subset_size=51)


def test_two_thousand_images_take_about_a_second() -> None:
    features = RNG.normal(size=(4000, 267)).astype(np.float32)
    start = time.perf_counter()
    kid(features[:2000], features[2000:], RNG)
    assert time.perf_counter() - start < 6


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        subjects = [str(number // 3) for number in range(60)]
        own = np.repeat(rng.normal(0, 0.7, (20, 4)), 3, axis=0)
        real, synthetic = own + rng.normal(0, 0.7, (60, 4)), rng.normal(0, 0.99**0.5, (50, 4))
        low, high = kid_interval(real, synthetic, subjects, rng, resamples=200)
        covered += low <= 0 <= high
    assert covered >= 50, "the cohorts are of nearly one distribution, so that the truth is 0"


def test_the_interval_knows_that_images_of_one_subject_are_alike() -> None:
    rng = np.random.default_rng(1)
    real = np.repeat(rng.normal(0, 1, (10, 4)), 8, axis=0) + rng.normal(0, 0.05, (80, 4))
    synthetic = rng.normal(0, 1, (80, 4))
    by_subject = kid_interval(real, synthetic, [str(n // 8) for n in range(80)], np.random.default_rng(0))
    by_image = kid_interval(real, synthetic, [str(n) for n in range(80)], np.random.default_rng(0))
    assert by_subject[1] - by_subject[0] > 1.3 * (by_image[1] - by_image[0])


def test_the_interval_excludes_0_for_a_plain_difference_and_one_subject_has_none() -> None:
    rng = np.random.default_rng(2)
    real, synthetic = rng.normal(0, 1, (60, 4)), rng.normal(1, 1, (60, 4))
    low, high = kid_interval(real, synthetic, [str(n) for n in range(60)], rng)
    assert 0 < low < mmd2_unbiased(real, synthetic) < high
    with pytest.raises(InputError, match="draws subjects"):
        kid_interval(real, synthetic, ["one"] * 60, rng)
