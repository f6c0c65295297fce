"""Arrays to pictures that live inside the page: windowed grey, diverging color, montages, PNG data URIs.

Display windows map [level − width/2, level + width/2] linearly to black and white (DICOM PS3.3 C.11.2.1.2).
Errors take a diverging color scale, blue below zero, red above, nearly white at zero: the five-color RdBu scheme of
ColorBrewer (Harrower and Brewer 2003), which color-blind readers can tell apart.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

Bytes = npt.NDArray[np.uint8]

MAX_SIDE_PX = 288
"""Longest side of a slice shown; larger slices are reduced for display, so that the page stays small."""

DIVERGING_STOPS = ((5, 113, 176), (146, 197, 222), (247, 247, 247), (244, 165, 130), (202, 0, 32))
"""RGB at −limit, −limit/2, 0, limit/2, limit."""

_GAP_GREY = 128
_GAP_PX = 4


@dataclass(frozen=True)
class Picture:
    """A picture in the page.

    Attributes:
        uri: PNG data URI.
        alt: what it shows, for readers who cannot see it.
        width, height: pixels of the PNG.
    """

    uri: str
    alt: str
    width: int
    height: int


@dataclass(frozen=True)
class Window:
    """A display window.

    Attributes:
        name: e.g. ``soft tissue``.
        width, level: in the unit of the image.
    """

    name: str
    width: float
    level: float

    def apply(self, values: npt.NDArray[np.floating] | npt.NDArray[np.integer]) -> Bytes:
        """Grey 0 to 255 of values of any shape, clipped at both ends."""
        low = self.level - self.width / 2
        share = (np.asarray(values, dtype=np.float64) - low) / self.width
        grey: Bytes = np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)
        return grey


def diverging(values: npt.NDArray[np.floating], limit: float) -> Bytes:
    """RGB (..., 3) of signed values; −limit is blue, 0 nearly white, limit red, beyond is clipped."""
    stops = np.linspace(-limit, limit, len(DIVERGING_STOPS))
    channels = [np.interp(values, stops, [stop[channel] for stop in DIVERGING_STOPS]) for channel in range(3)]
    rgb: Bytes = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return rgb


def resized(picture: Bytes, width: int, height: int) -> Bytes:
    """Picture (H, W) or (H, W, 3) at another size, bicubic."""
    if picture.shape[:2] == (height, width):
        return picture
    other: Bytes = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))
    return other


def display_size(rows: int, columns: int, row_mm: float, column_mm: float) -> tuple[int, int]:
    """(width, height) in pixels that shows ``rows`` × ``columns`` voxels with true proportions, within `MAX_SIDE_PX`.

    ``row_mm`` and ``column_mm`` are the distances between neighboring rows and columns.
    """
    fine = min(row_mm, column_mm)
    width, height = columns * column_mm / fine, rows * row_mm / fine
    factor = min(1.0, MAX_SIDE_PX / max(width, height))
    return max(1, round(width * factor)), max(1, round(height * factor))


def montage(tiles: Sequence[Bytes], columns: int, tile_px: int) -> Bytes:
    """Grey tiles (H, W), each brought to ``tile_px`` squared, in rows of ``columns`` with a thin grey gap between."""
    rows = -(-len(tiles) // columns)
    step = tile_px + _GAP_PX
    columns = min(columns, len(tiles))
    sheet = np.full((rows * step - _GAP_PX, columns * step - _GAP_PX), _GAP_GREY, np.uint8)
    for number, tile in enumerate(tiles):
        top, left = number // columns * step, number % columns * step
        sheet[top : top + tile_px, left : left + tile_px] = resized(tile, tile_px, tile_px)
    return sheet


def picture(pixels: Bytes, alt: str) -> Picture:
    """A `Picture` of grey (H, W) or RGB (H, W, 3) pixels. The PNG holds pixels only, no metadata."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", optimize=True)
    uri = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
    return Picture(uri, alt, pixels.shape[1], pixels.shape[0])
