import numpy as np
import pytest
from scipy import stats

from pipeline.domain_card import Spread


def test_many_figures_give_the_prediction_interval_of_the_normal_distribution():
    values = np.random.default_rng(0).normal(5, 2, 4000)
    spread = Spread.of(list(values))
    assert spread.half_width(0.1, 0.025) == pytest.approx(1.96 * values.std(ddof=1), rel=0.01)


def test_a_single_figure_is_trusted_as_far_as_subjects_are_known_to_differ():
    spread = Spread.of([3.0])
    assert (spread.count, spread.mean, spread.deviation) == (1, 3.0, 0.0)
    assert spread.half_width(0.5, 0.01) == pytest.approx(stats.t.ppf(0.99, 8) * 0.5 * np.sqrt(2))


@pytest.mark.parametrize("count", [2, 5, 20])
def test_further_subjects_leave_the_interval_as_rarely_as_is_said(count):
    """Subjects whose deviation is the prior's: at most one in fifty leaves an interval of 98 %."""
    rng = np.random.default_rng(count)
    draws = rng.normal(0, 0.3, (4000, count + 1))
    left = 0
    for row in draws:
        spread = Spread.of(list(row[:-1]))
        left += abs(row[-1] - spread.mean) > spread.half_width(0.3, 0.01)
    assert left / len(draws) <= 0.021
    assert left / len(draws) >= 0.003
