"""Small histograms as numbers for SVG: bars as one path, marks with their texts.

Heights are square roots of counts, so that tissue is seen beside the air that fills most of a scan; the tallest bin may
be cut off at the top.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

WIDTH, HEIGHT = 200, 44
"""Size of the plot area in SVG units."""

TEXT_WIDTH = 36
"""Room that the text of a mark takes, SVG units."""

CT_MARKS = ((-1000.0, "air"), (0.0, "water"), (1000.0, "bone"))
"""HU of air and water by definition of the scale; dense cortical bone lies around 1000 HU and above."""


class Mark(BaseModel):
    """A mark on the axis.

    Attributes:
        place: SVG units.
        text: what it marks.
        row: 0, or 1 where the text would run into the one before.
    """

    model_config = ConfigDict(frozen=True)
    place: float
    text: str
    row: int = 0


class Histogram(BaseModel):
    """A histogram, ready for the template.

    Attributes:
        path: SVG path of the filled outline.
        marks: marks on the axis.
        description: what it shows, for readers who cannot see it.
    """

    model_config = ConfigDict(frozen=True)
    path: str
    marks: tuple[Mark, ...]
    description: str


def histogram(
    counts: Sequence[int], ends: tuple[float, float], marks: Sequence[tuple[float, str]], what: str
) -> Histogram:
    """Lay out a histogram.

    Args:
        counts: one a bin.
        ends: values at both ends of the axis.
        marks: (value, text); those outside the axis are left out.
        what: what is counted, e.g. ``Intensities in HU``.
    """
    roots = np.sqrt(np.asarray(counts, dtype=np.float64))
    tallest = np.sort(roots)[-2] if len(roots) > 1 and np.sort(roots)[-2] > 0 else max(1.0, float(roots.max()))
    tops = HEIGHT - np.minimum(1.0, roots / (1.15 * tallest)) * HEIGHT
    step = WIDTH / len(roots)
    bars = " ".join(f"V{top:.1f}H{(number + 1) * step:.1f}" for number, top in enumerate(tops))
    low, high = ends
    placed: list[Mark] = []
    for value, text in sorted(mark for mark in marks if low <= mark[0] <= high):
        place = round((value - low) / (high - low) * WIDTH, 1)
        crowded = bool(placed) and placed[-1].row == 0 and place - placed[-1].place < TEXT_WIDTH
        placed.append(Mark(place=place, text=text, row=int(crowded)))
    described = ", ".join(f"{text} at {value:.4g}" for value, text in marks)
    return Histogram(
        path=f"M0,{HEIGHT}{bars}V{HEIGHT}Z",
        marks=tuple(placed),
        description=f"{what} from {low:.4g} to {high:.4g}: {described}".replace("-", "−"),
    )
