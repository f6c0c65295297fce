"""Windows over the body's rows and columns, and the weights that blend what a network says in them.

Windows of side P start every (1 − overlap) · P pixels or less, evenly spread from one end of the body to the other. The
weight of a window at the distance d from its middle is w(d) / Σ w, with one of two profiles:

    gaussian:  w(d) = exp(−d² / (2 (P/8)²))         the weight of nnU-Net and MONAI
    cosine:    w(d) = cos²(π d / Q)                 Q: side without its rim

Weights are products of a profile along the rows and one along the columns, and so is their sum, which makes the
normalization exact along each axis. The outermost sixteenth of a window, where a network sees padding in place of
neighbors, counts only where no other window covers the pixel: there its weight is 10⁻⁹ of the profile.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.generate_settings import EXACT_OVERLAP

Blending = Literal["gaussian", "cosine"]
Box = tuple[int, int, int, int]
"""First row, end row, first column, end column; may reach beyond the slice."""

HALO_SHARE = 1 / 16
"""Rim of a window that does not count where another window does."""

_HALO_WEIGHT = 1e-9
_SIGMA_SHARE = 1 / 8
"""Standard deviation of the Gaussian as a share of a window's side, as in MONAI."""


@dataclass(frozen=True)
class WindowPlan:
    """How slices are cut.

    Attributes:
        overlap: share of a window that neighbors share at least, in [0, 1).
        blending: profile of the weights.
        whole_slice: one window over the whole body instead; the network then sees more than in training.
        bfloat16: let networks calculate in 16 bits.
    """

    overlap: float = EXACT_OVERLAP
    blending: Blending = "gaussian"
    whole_slice: bool = False
    bfloat16: bool = False

    def exact(self) -> "WindowPlan":
        """The plan that faster ones are held against: float32 windows that overlap enough."""
        return WindowPlan(max(self.overlap, EXACT_OVERLAP), self.blending)


@dataclass(frozen=True)
class WindowGrid:
    """Windows of one plane of a volume.

    Attributes:
        rows, columns: start of the windows along each axis; may lie outside the slice.
        sides: rows and columns of a window.
        row_weights, column_weights: (windows, side) normalized weights along each axis.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    sides: tuple[int, int]
    row_weights: npt.NDArray[np.float32]
    column_weights: npt.NDArray[np.float32]

    @property
    def box(self) -> Box:
        """What the windows cover."""
        return self.rows[0], self.rows[-1] + self.sides[0], self.columns[0], self.columns[-1] + self.sides[1]

    def windows(self, wanted: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int, npt.NDArray[np.float32]]]:
        """Row and column in the box, and weights (rows, columns), of windows that hold a wanted pixel of the box."""
        top, _, left, _ = self.box
        for row, down in zip(self.rows, self.row_weights, strict=True):
            for column, across in zip(self.columns, self.column_weights, strict=True):
                place = (row - top, column - left)
                cut = tuple(slice(start, start + side) for start, side in zip(place, self.sides, strict=True))
                if wanted[cut].any():
                    yield *place, down[:, None] * across


def window_grid(body: Box, shape: tuple[int, int], patch_px: int, divisor: int, plan: WindowPlan) -> WindowGrid:
    """Windows that cover the body.

    Args:
        body: rows and columns that matter.
        shape: rows and columns of the slice; windows leave it only where it is smaller than a window.
        patch_px: side of a window.
        divisor: sides of a whole slice are multiples of it, and at least twice as long.
        plan: overlap and blending.
    """
    starts, sides, weights = [], [], []
    for axis in range(2):
        first, end, size = body[2 * axis], body[2 * axis + 1], shape[axis]
        if plan.whole_slice:
            side = max(2, math.ceil((end - first) / divisor)) * divisor
            own: tuple[int, ...] = (_fitted(first, end, side, size)[0],)
        else:
            side = patch_px
            own = _starts(*_fitted(first, end, side, size), side, plan.overlap)
        starts.append(own)
        sides.append(side)
        weights.append(_weights(own, side, plan.blending))
    return WindowGrid(starts[0], starts[1], (sides[0], sides[1]), weights[0], weights[1])


def windows_along(
    first: int, end: int, side: int, size: int, plan: WindowPlan
) -> tuple[tuple[int, ...], npt.NDArray[np.float32]]:
    """Windows of ``side`` that cover a stretch of an axis of ``size``: their starts, and weights (windows, side)."""
    starts = _starts(*_fitted(first, end, side, size), side, plan.overlap)
    return starts, _weights(starts, side, plan.blending)


def padded_box(picture: npt.NDArray[Any], box: Box, fill: float) -> npt.NDArray[Any]:
    """What lies in the box of pictures (…, H, W), ``fill`` where it reaches beyond them."""
    top, bottom, left, right = box
    rows, columns = picture.shape[-2:]
    found = np.full((*picture.shape[:-2], bottom - top, right - left), fill, dtype=picture.dtype)
    inner = (slice(max(top, 0), min(bottom, rows)), slice(max(left, 0), min(right, columns)))
    found[..., inner[0].start - top : inner[0].stop - top, inner[1].start - left : inner[1].stop - left] = picture[
        ..., inner[0], inner[1]
    ]
    return found


def _fitted(first: int, end: int, side: int, size: int) -> tuple[int, int]:
    """First and end pixel of a stretch of ``side`` or more that holds the given one, inside the slice if it can be."""
    missing = max(0, side - (end - first))
    first, end = first - missing // 2, end + missing - missing // 2
    if end - first > size:
        return first, end
    shift = max(0, -first) - max(0, end - size)
    return first + shift, end + shift


def _starts(first: int, end: int, side: int, overlap: float) -> tuple[int, ...]:
    free = end - first - side
    count = 1 + math.ceil(free / max(1, math.floor(side * (1 - overlap))))
    return tuple(first + round(free * number / max(1, count - 1)) for number in range(count))


def _weights(starts: tuple[int, ...], side: int, blending: Blending) -> npt.NDArray[np.float32]:
    halo = int(side * HALO_SHARE)
    inner = side - 2 * halo
    distance = np.abs(np.arange(side) - (side - 1) / 2)
    if blending == "gaussian":
        profile = np.exp(-0.5 * (distance / (_SIGMA_SHARE * side)) ** 2)
    else:
        profile = np.cos(np.minimum(distance, (inner - 1) / 2) / inner * np.pi) ** 2
    profile[distance > inner / 2] *= _HALO_WEIGHT
    total = np.zeros(starts[-1] - starts[0] + side)
    for start in starts:
        total[start - starts[0] :][:side] += profile
    shares = [profile / total[start - starts[0] :][:side] for start in starts]
    return np.stack(shares).astype(np.float32)
