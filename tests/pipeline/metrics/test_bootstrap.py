import math

import numpy as np
import pytest
from scipy import stats

from pipeline.errors import InputError
from pipeline.metrics.bootstrap import bootstrap_interval, mean_interval


def test_one_case_a_subject_equals_scipy() -> None:
    values = np.random.default_rng(0).normal(size=80)
    ours = mean_interval(values, np.arange(80), np.random.default_rng(1), resamples=4000)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)
    assert ours.subjects == 80


def test_copies_of_a_case_within_a_subject_do_not_narrow_the_interval() -> None:
    values = np.random.default_rng(0).normal(size=40)
    single = mean_interval(values, np.arange(40), np.random.default_rng(1))
    repeated = mean_interval(np.repeat(values, 10), np.repeat(np.arange(40), 10), np.random.default_rng(1))
    assert (repeated.low, repeated.high) == pytest.approx((single.low, single.high))
    naive = mean_interval(np.repeat(values, 10), np.arange(400), np.random.default_rng(1))
    assert naive.high - naive.low < 0.5 * (single.high - single.low)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        subject_effect = rng.normal(size=30)
        values = np.repeat(subject_effect, 4) + 0.5 * rng.normal(size=120)
        interval = mean_interval(values, np.repeat(np.arange(30), 4), rng, resamples=200, confidence=0.9)
        covered += interval.low <= 0 <= interval.high
    # 90 % nominal; 200 trials have a standard deviation of 2 %, and 30 subjects cost a few percent.
    assert 0.80 < covered / 200 < 0.96


def test_subjects_of_unequal_size_are_drawn_whole() -> None:
    subjects = ["b", "a", "b", "c", "b"]
    seen: list[tuple[int, ...]] = []

    def statistic(cases: np.ndarray) -> float:
        seen.append(tuple(np.bincount(cases, minlength=5)))
        return float(len(cases))

    bootstrap_interval(statistic, subjects, np.random.default_rng(0), resamples=100)
    assert all(counts[0] == counts[2] == counts[4] for counts in seen)
    assert all(counts[0] + counts[1] + counts[3] == 3 for counts in seen)


def test_resamples_that_cannot_be_scored_are_left_out_up_to_half() -> None:
    subjects = np.arange(6)
    interval = bootstrap_interval(
        lambda cases: float(cases.mean()) if 0 in cases else math.nan, subjects, np.random.default_rng(0)
    )
    assert math.isfinite(interval.low)
    with pytest.raises(InputError, match="usable resamples"):
        bootstrap_interval(lambda _: math.nan, subjects, np.random.default_rng(0))


def test_same_generator_same_interval_and_bad_settings_are_refused() -> None:
    values = np.arange(10.0)
    first, again = (mean_interval(values, np.arange(10), np.random.default_rng(3)) for _ in range(2))
    assert first == again
    with pytest.raises(InputError, match="1 subjects"):
        mean_interval(values, np.zeros(10), np.random.default_rng(0))
    with pytest.raises(InputError, match=r"confidence 1\.5"):
        mean_interval(values, np.arange(10), np.random.default_rng(0), confidence=1.5)
