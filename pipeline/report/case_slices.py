"""Still slices of one case: MR | pseudo-CT | CT | signed error at several heights, in stated windows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.intensity import from_int16
from pipeline.report.pictures import Bytes, Picture, Window, display_size, diverging, picture, resized
from pipeline.report.slice_viewer import Box, Place, Voxels

MR_WINDOW = Window("whole range", 2.0, 0.0)
SOFT_TISSUE, BONE = Window("soft tissue", 400, 40), Window("bone", 2000, 300)
GREY_WINDOW = Window("grey levels", 255, 127.5)

MAPS: Mapping[str, str] = {"uncertainty": "uncertainty", "cycle_residual": "cycle residual"}
"""Maps of a pseudo-CT that a translation may write, by key, with their names."""

_BODY_MARGIN_PX = 4


@dataclass(frozen=True)
class Tile:
    """One picture of a row with its heading."""

    heading: str
    picture: Picture


@dataclass(frozen=True)
class SliceRow:
    """The tiles of one height."""

    height: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class OpenCase:
    """Voxels of one case, (K, H, W).

    Attributes:
        row: series_id, subject_id, split.
        mr: unit × 16384; None where there is none.
        mask: body outline.
        pseudo_ct, ct: HU or grey levels; no CT where there is no reference.
        place: where the voxels lie.
        maps: what the translation wrote of `MAPS`: uncertainty in the unit of the CT, cycle_residual in thousandths of
            an MR unit.
    """

    row: dict[str, Any]
    mr: Voxels | None
    mask: Voxels
    pseudo_ct: Voxels
    ct: Voxels | None
    place: Place
    maps: Mapping[str, Voxels] = field(default_factory=dict)

    def error(self) -> float | None:
        """Mean absolute difference inside the body outline; None without a reference."""
        inside = self.mask.astype(bool)
        if self.ct is None or not inside.any():
            return None
        return float(np.abs(self.pseudo_ct[inside].astype(np.float64) - self.ct[inside]).mean())


def slice_rows(case: OpenCase, windows: tuple[Window, ...], limit: float, most: int) -> tuple[SliceRow, ...]:
    """Tiles at heights that spread over the body."""
    top, bottom, left, right = body_box(case.mask)
    _, row_mm, column_mm = case.place.spacing_mm or (1.0, 1.0, 1.0)
    size = display_size(bottom - top, right - left, row_mm, column_mm)
    total = len(case.pseudo_ct)
    rows = []
    for place in _heights(case.mask, most):
        cut = (place, slice(top, bottom), slice(left, right))
        height = f"slice {place + 1} of {total}"
        tiles = _tiles(case, cut, windows, limit)
        shown = tuple(
            Tile(heading, picture(resized(pixels, *size), f"{heading}, {case.row['series_id']}, {height}"))
            for heading, pixels in tiles
        )
        rows.append(SliceRow(height, shown))
    return tuple(rows)


def _tiles(case: OpenCase, cut: Any, windows: tuple[Window, ...], limit: float) -> list[tuple[str, Bytes]]:
    pseudo_ct = case.pseudo_ct[cut]
    tiles = [] if case.mr is None else [("MR", MR_WINDOW.apply(from_int16(case.mr[cut])))]
    for window in windows:
        suffix = "" if len(windows) == 1 else f", {window.name}"
        tiles.append((f"Pseudo-CT{suffix}", window.apply(pseudo_ct)))
        if case.ct is not None:
            tiles.append((f"CT{suffix}", window.apply(case.ct[cut])))
    if case.ct is not None:
        error = pseudo_ct.astype(np.float64) - case.ct[cut]
        tiles.append(("Error", diverging(error, limit)))
    return tiles


def body_box(mask: npt.NDArray[np.uint8]) -> Box:
    """Rows and columns (first, end, first, end) that the body spans, with a small margin; everything without a body."""
    flat = mask.max(axis=0)
    box = []
    for touches in (flat.max(axis=1), flat.max(axis=0)):
        touched, length = np.flatnonzero(touches), len(touches)
        first, last = (int(touched[0]), int(touched[-1]) + 1) if len(touched) else (0, length)
        box += [max(0, first - _BODY_MARGIN_PX), min(length, last + _BODY_MARGIN_PX)]
    return box[0], box[1], box[2], box[3]


def _heights(mask: npt.NDArray[np.uint8], most: int) -> list[int]:
    """Slices at the centers of ``most`` equal parts of the body's height."""
    inside = np.flatnonzero(mask.reshape(len(mask), -1).any(axis=1))
    inside = inside if len(inside) else np.arange(len(mask))
    parts = min(most, len(inside))
    return sorted({int(inside[int((part + 0.5) * len(inside) / parts)]) for part in range(parts)})
