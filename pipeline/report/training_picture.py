"""The losses and measures of a training as one picture in SVG: numbers only, no image of a scan.

For places that are told nothing of a patient, such as an orchestrator's pages.
"""

from html import escape
from pathlib import Path

from pipeline.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, LineChart
from pipeline.report.training_curves import training_view

_COLUMNS = 2
_HEADING = 22
_MOST = 6
_AXIS_Y = HEIGHT - BOTTOM


def training_picture(folder: Path) -> str:
    """SVG of the first charts of a training's log.

    Args:
        folder: output of a train stage.
    """
    charts = training_view(folder, "").charts[:_MOST]
    rows = -(-len(charts) // _COLUMNS)
    width, height = _COLUMNS * WIDTH, rows * (HEIGHT + _HEADING)
    parts = [
        f'<g transform="translate({number % _COLUMNS * WIDTH},{number // _COLUMNS * (HEIGHT + _HEADING)})">'
        f"{_drawn(chart)}</g>"
        for number, chart in enumerate(charts)
    ]
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    sheet = '<rect width="100%" height="100%" fill="white"/>' + "".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">{sheet}</svg>'


def _drawn(chart: LineChart) -> str:
    parts = [f'<text x="{LEFT}" y="14" font-weight="bold">{escape(chart.title)}</text>']
    parts.append(f'<g transform="translate(0,{_HEADING})">')
    parts += [_text(tick.place, _AXIS_Y + 14, "middle", tick.text) for tick in chart.x_ticks]
    for tick in chart.y_ticks:
        parts.append(_text(LEFT - 4, tick.place + 4, "end", tick.text))
        parts.append(_line(LEFT, WIDTH - RIGHT, tick.place, tick.place, "#ddd"))
    parts += [_line(place, place, TOP, _AXIS_Y, "#c00") for place in chart.alarms]
    parts.append(f'<polyline points="{chart.raw}" fill="none" stroke="#b8cbe8"/>')
    parts.append(f'<polyline points="{chart.smooth}" fill="none" stroke="#1f5fbf" stroke-width="2"/>')
    parts.append(_text(WIDTH / 2, HEIGHT - 4, "middle", "training images") + "</g>")
    return "".join(parts)


def _text(x: float, y: float, anchor: str, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, x2: float, y1: float, y2: float, color: str) -> str:
    return f'<line x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}" stroke="{color}"/>'
