"""Charts as numbers: where lines, bars and ticks lie. The template draws them as SVG, so that all text is escaped.

Ticks fall on 1, 2 or 5 times a power of ten (Heckbert, Nice numbers for graph labels, Graphics Gems, 1990).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

WIDTH, HEIGHT = 360, 190
"""Size of a line chart in SVG units."""
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 36
"""Margins around the plot area."""

SMOOTHING_SHARE = 25
"""The moving average spans 1/25 of the log."""
_MAX_RAW_POINTS = 480
_OUTER_PERCENTILES = (1.0, 99.0)


@dataclass(frozen=True)
class Tick:
    """A tick: its place in SVG units and its text."""

    place: float
    text: str


@dataclass(frozen=True)
class LineChart:
    """One term over training.

    Attributes:
        title: what is drawn.
        note: how to read it.
        raw, smooth: SVG polyline points of every entry and of the moving average.
        reference: height of a reference line, or None.
        x_ticks, y_ticks: ticks.
        first, last: smoothed values at both ends, as text.
        alarms: places of vertical lines.
    """

    title: str
    note: str
    raw: str
    smooth: str
    reference: float | None
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    first: str
    last: str
    alarms: tuple[float, ...] = ()


@dataclass(frozen=True)
class Bar:
    """One bar of a class: what it counts, how many, its length as a share of the longest."""

    kind: str
    count: int
    share: float


@dataclass(frozen=True)
class BarGroup:
    """The bars of one class."""

    name: str
    bars: tuple[Bar, ...]


def line_chart(
    title: str,
    note: str,
    images: Sequence[float],
    values: Sequence[float],
    *,
    limits: tuple[float, float] | None = None,
    reference: float | None = None,
    alarms: Sequence[float] = (),
) -> LineChart | None:
    """Lay out a term's chart; None where fewer than two finite values exist.

    Args:
        title: heading.
        note: how to read it.
        images: training images shown so far, one an entry.
        values: the term, one an entry; entries that are not finite are left out.
        limits: ends of the value axis; by default the moving average and all but the outermost percent of entries fit.
        reference: value of a reference line.
        alarms: images at which vertical lines are drawn.
    """
    finite = np.isfinite(np.asarray(values, dtype=np.float64))
    x, y = np.asarray(images, dtype=np.float64)[finite], np.asarray(values, dtype=np.float64)[finite]
    if len(y) < 2 or x[-1] <= x[0]:
        return None
    smooth = moving_average(y, max(1, len(y) // SMOOTHING_SHARE))
    low, high = limits or _limits(y, smooth, reference)
    y_ticks = nice_ticks(low, high, 4)
    raw_x, raw_y = thin_out(x, y, _MAX_RAW_POINTS)
    smooth_x, smooth_y = thin_out(x, smooth, _MAX_RAW_POINTS)
    x_ends, y_ends = (0.0, float(x[-1])), (low, high)
    return LineChart(
        title,
        note,
        _points(raw_x, raw_y, x_ends, y_ends),
        _points(smooth_x, smooth_y, x_ends, y_ends),
        None if reference is None else round(float(_heights(np.array([reference]), y_ends)[0]), 1),
        tuple(Tick(round(float(_places(np.array([t]), x_ends)[0]), 1), count_text(t)) for t in nice_ticks(*x_ends, 4)),
        tuple(Tick(round(float(_heights(np.array([t]), y_ends)[0]), 1), _tick_text(t, y_ticks)) for t in y_ticks),
        f"{smooth[0]:.4g}",
        f"{smooth[-1]:.4g}",
        tuple(round(float(place), 1) for place in _places(np.asarray(alarms, dtype=np.float64), x_ends)),
    )


def bar_groups(names: Sequence[str], counts: Sequence[tuple[str, Sequence[int]]]) -> tuple[BarGroup, ...]:
    """Bars of each name; ``counts`` holds (kind, one count a name)."""
    longest = max((count for _, numbers in counts for count in numbers), default=0) or 1
    return tuple(
        BarGroup(name, tuple(Bar(kind, numbers[place], numbers[place] / longest) for kind, numbers in counts))
        for place, name in enumerate(names)
    )


def moving_average(values: Floats, span: int) -> Floats:
    """Centered moving average over ``span`` entries (one more when even); the window is cut off at both ends."""
    half = span // 2
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    first, end = np.maximum(0, places - half), np.minimum(len(values), places + half + 1)
    return np.asarray((sums[end] - sums[first]) / (end - first), dtype=np.float64)


def thin_out(x: Floats, y: Floats, most: int) -> tuple[Floats, Floats]:
    """At most ``most`` points that keep every bucket's lowest and highest value, so that no spike is lost."""
    if len(y) <= most:
        return x, y
    kept: list[int] = []
    for bucket in np.array_split(np.arange(len(y)), most // 2):
        kept.extend(sorted({int(bucket[np.argmin(y[bucket])]), int(bucket[np.argmax(y[bucket])])}))
    return x[kept], y[kept]


def nice_ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers inside [low, high], about ``about`` of them."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def count_text(count: float) -> str:
    """A number of images, short: 500, 20k, 1.5M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:g}{unit}"
    return f"{count:g}"


def _limits(y: Floats, smooth: Floats, reference: float | None) -> tuple[float, float]:
    inner = np.percentile(y, _OUTER_PERCENTILES)
    ends = [float(smooth.min()), float(smooth.max()), float(inner[0]), float(inner[1])]
    ends += [] if reference is None else [reference]
    low, high = min(ends), max(ends)
    size = max(abs(low), abs(high))
    # A term that differs by rounding alone is flat; without this its noise would fill the chart.
    flat = high - low <= 1e-6 * size
    pad = (0.05 * size or 1.0) if flat else 0.05 * (high - low)
    return (0.0 if low >= 0 and low - pad < 0 else low - pad), high + pad


def _places(x: Floats, ends: tuple[float, float]) -> Floats:
    return LEFT + (x - ends[0]) / (ends[1] - ends[0]) * (WIDTH - LEFT - RIGHT)


def _heights(y: Floats, ends: tuple[float, float]) -> Floats:
    share = np.clip((y - ends[0]) / (ends[1] - ends[0]), 0, 1)
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _points(x: Floats, y: Floats, x_ends: tuple[float, float], y_ends: tuple[float, float]) -> str:
    pairs = zip(_places(x, x_ends), _heights(y, y_ends), strict=True)
    return " ".join(f"{place:.1f},{height:.1f}" for place, height in pairs)


def _tick_text(value: float, ticks: Sequence[float]) -> str:
    step = ticks[1] - ticks[0] if len(ticks) > 1 else abs(value) or 1.0
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    text = f"{value:.{decimals}f}" if decimals <= 4 and abs(value) < 1e5 else f"{value:.3g}"
    return text.replace("-", "−") if float(text) else "0"
