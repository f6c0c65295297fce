import numpy as np
import pytest

from pipeline.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    bar_groups,
    count_text,
    line_chart,
    moving_average,
    nice_ticks,
    thin_out,
)


def points(text: str) -> np.ndarray:
    return np.array([[float(number) for number in pair.split(",")] for pair in text.split()])


def test_the_moving_average_keeps_lines_in_the_middle_and_means_of_windows() -> None:
    line = np.arange(20.0)
    assert moving_average(line, 5)[2:-2] == pytest.approx(line[2:-2])
    noisy = np.random.default_rng(0).normal(size=30)
    assert moving_average(noisy, 1) == pytest.approx(noisy)
    smooth = moving_average(noisy, 7)
    for place in range(30):
        assert smooth[place] == pytest.approx(noisy[max(0, place - 3) : place + 4].mean())


def test_thinning_keeps_every_spike() -> None:
    y = np.zeros(10_000)
    y[[17, 5_001]] = (50, -70)
    x, thin = thin_out(np.arange(10_000.0), y, 100)
    assert len(thin) <= 100
    assert (thin.min(), thin.max()) == (-70, 50)
    assert (np.diff(x) > 0).all()
    assert x[thin.argmax()] == 17


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.2, 7.9), (1e-6, 3e-6), (0, 8e6), (-1e-3, 2e5)])
def test_ticks_are_round_inside_and_about_as_many_as_asked(low: float, high: float) -> None:
    ticks = nice_ticks(low, high, 4)
    assert 2 <= len(ticks) <= 6
    assert low - 1e-9 * (high - low) <= ticks[0]
    assert ticks[-1] <= high + 1e-9 * (high - low)
    step = ticks[1] - ticks[0]
    lead = step / 10 ** np.floor(np.log10(step) + 1e-9)
    assert min(abs(lead - nice) for nice in (1, 2, 5)) < 1e-6


def test_a_chart_puts_low_values_low_and_its_reference_on_the_scale() -> None:
    chart = line_chart("t", "", [0, 50, 100], [0.0, 0.5, 1.0], limits=(0, 1), reference=0.5)
    assert chart is not None
    drawn = points(chart.raw)
    assert drawn[0].tolist() == [LEFT, HEIGHT - BOTTOM]
    assert drawn[-1].tolist() == [WIDTH - RIGHT, TOP]
    assert chart.reference == drawn[1][1]
    assert (chart.first, chart.last) == ("0", "1")
    assert [tick.text for tick in chart.y_ticks] == ["0", "0.5", "1.0"]


def test_outliers_do_not_flatten_a_curve_and_stay_inside_the_frame() -> None:
    values = np.linspace(1, 0, 1000)
    values[500] = 1e9
    smooth_free = line_chart("t", "", np.arange(1, 1001), np.where(values > 2, np.nan, values))
    assert smooth_free is not None
    chart = line_chart("t", "", np.arange(1, 1001), values, limits=(0, 1))
    assert chart is not None
    assert points(chart.raw)[:, 1].min() >= TOP


@pytest.mark.parametrize("values", [[], [1.0], [np.nan, 1.0], [np.nan, np.nan, np.inf]])
def test_too_little_to_draw_gives_no_chart(values: list[float]) -> None:
    assert line_chart("t", "", list(range(len(values))), values) is None


def test_a_constant_term_can_be_drawn() -> None:
    for constant in (0.0, -2.0, 3e-9):
        chart = line_chart("t", "", [1, 2, 3], [constant] * 3)
        assert chart is not None
        assert len(set(points(chart.smooth)[:, 1])) == 1


def test_bars_are_shares_of_the_longest() -> None:
    groups = bar_groups(["a", "b"], [("real", [2, 8]), ("synthetic", [4, 0])])
    assert [[bar.share for bar in group.bars] for group in groups] == [[0.25, 0.5], [1.0, 0.0]]
    assert bar_groups(["a"], [("real", [0])])[0].bars[0].share == 0


@pytest.mark.parametrize(("count", "text"), [(0, "0"), (500, "500"), (20_000, "20k"), (1_500_000, "1.5M")])
def test_counts_of_images_are_short(count: float, text: str) -> None:
    assert count_text(count) == text
