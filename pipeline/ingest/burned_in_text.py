"""Text stamped into pixels: what a header admits, and lines of strokes that no anatomy draws.

A scanner or viewer stamps text at the top of the grey scale. So the brightest pixels of a slice are looked at first:
without enough of them that fall off on both sides within a few pixels, there is no text, and that costs one pass over
the slice. Where there are, connected strokes are grouped into lines and a line is judged by what sets writing apart:
several strokes beside each other on one baseline, thin for their height, all of one value, sharp against what surrounds
them.

Not found: fewer than four characters (side markers stay), strokes that are nowhere a whole pixel wide, text fainter
than the anatomy around it, dark text on bright anatomy, handwriting.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse.csgraph import connected_components

from pipeline.errors import QuarantineError
from pipeline.ingest.found import FoundImage, FoundVolume

REASON = "BURNED_IN_TEXT"

FEWEST_GLYPHS = 4
"""Characters that make a line; small ones (under 7 px) must be 6, for noise is as small."""

_SMALLEST_PX = 32  # of a slice's shorter side
_EQUAL = 0.005  # of the slice's range: pixels as bright as the brightest
_FEWEST_BRIGHT, _THIN_SHARE, _REACH_PX = 14, 0.4, 5
_LARGEST_BRIGHT_SHARE = 0.15
_FALL = 0.4  # of the range, within `_REACH_PX` on both sides
_MARGIN_PX = 16
_DEPTHS = (0.5, 0.2, _EQUAL)  # strokes are cut at these shares of the range below the brightest
_HEIGHTS_PX = (5, 96)
_CROSSINGS = 0.92  # strokes crossed along a line, for each character; folds of sharpened brain have fewer
_SHARP_FALL = 0.44  # of the range, from the strokes to what surrounds them
_MOST_PARTS, _MOST_GLYPHS = 3000, 300

Image = NDArray[Any]
Mask = NDArray[np.bool_]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Stamp:
    """A line of text that was found.

    Attributes:
        slice_index: first slice that shows it.
        glyphs: characters, roughly.
        height_px: their median height.
    """

    slice_index: int
    glyphs: int
    height_px: int


@dataclass(frozen=True)
class _Parts:
    """Connected strokes: label image, their labels, first and last pixel + 1 along the line and across it."""

    labels: NDArray[Any]
    ids: Integers
    start: Integers
    stop: Integers
    bottom: Integers
    top: Integers

    @property
    def heights(self) -> Integers:
        return self.top - self.bottom

    def chosen(self, which: Any) -> "_Parts":
        fields = (self.ids, self.start, self.stop, self.bottom, self.top)
        return _Parts(self.labels, *(field[which] for field in fields))


@dataclass(frozen=True)
class _Slice:
    """A slice cut to where its bright pixels are, with the ends of its grey scale."""

    pixels: Image
    high: float
    span: float
    tallest_px: float

    def turned(self) -> "_Slice":
        return _Slice(self.pixels.T, self.high, self.span, self.tallest_px)


def suspicious_text(found: FoundVolume | FoundImage) -> QuarantineError | None:
    """Why a volume or image seems to hold burned-in text, or None.

    Args:
        found: its header's BurnedInAnnotation (PS3.3 C.7.6.1.1.5) counts as well as its pixels.
    """
    if isinstance(found, FoundImage):
        grey = found.pixels if found.pixels.ndim == 2 else found.pixels.max(axis=2)
        stamp = looks_stamped(grey[:, :, None])
        return None if stamp is None else _refusal(stamp, 1)
    if (found.scan.facts.burned_in_annotation or "").strip().upper() == "YES":
        advice = "Remove the text from the pixels and set BurnedInAnnotation to NO, or set ingest.burned_in_text=keep."
        return QuarantineError(REASON, "BurnedInAnnotation is YES", advice)
    axis = _slice_axis(found.scan.geometry.spacing_mm)
    stamp = looks_stamped(np.moveaxis(found.scan.voxels, axis, 2))
    return None if stamp is None else _refusal(stamp, found.scan.voxels.shape[axis])


def looks_stamped(voxels: Image) -> Stamp | None:
    """Find text stamped at the top of the grey scale.

    Args:
        voxels: (i, j, k), any integers or finite floats; looked through slice by slice along k.

    Returns:
        The first line found, or None.
    """
    if min(voxels.shape[:2]) < _SMALLEST_PX:
        return None
    highs = voxels.max(axis=0).max(axis=0).astype(np.float64)
    lows = voxels.min(axis=0).min(axis=0).astype(np.float64)
    tallest = 12 + 0.1 * min(voxels.shape[:2])
    for k in np.flatnonzero(highs > lows):
        bright = _thin_bright(voxels[:, :, k], highs[k], highs[k] - lows[k])
        if bright is None:
            continue
        line = _line(_Slice(_cut(voxels[:, :, k], bright), highs[k], highs[k] - lows[k], tallest))
        if line is not None:
            return Stamp(int(k), *line)
    return None


def _slice_axis(spacing_mm: tuple[float, float, float]) -> int:
    """The axis across slices: the coarsest, the last one where all are alike."""
    return 2 if spacing_mm[2] >= max(spacing_mm) * 0.99 else int(np.argmax(spacing_mm))


def _refusal(stamp: Stamp, slices: int) -> QuarantineError:
    found = (
        f"a line of about {stamp.glyphs} characters, {stamp.height_px} pixels high, at one grey level; "
        f"first in slice {stamp.slice_index + 1} of {slices}"
    )
    advice = "Look at the slice and remove the text from the pixels; if it is none, set ingest.burned_in_text=keep."
    return QuarantineError(REASON, found, advice)


def _thin_bright(pixels: Image, high: float, span: float) -> tuple[Integers, Integers] | None:
    """Places of the brightest pixels that lie in thin structures; None where there are too few, or too many."""
    bright = pixels >= high - _EQUAL * span
    count = int(np.count_nonzero(bright))
    if not _FEWEST_BRIGHT <= count <= _LARGEST_BRIGHT_SHARE * pixels.size:
        return None
    i, j = np.nonzero(bright)

    def dark(di: int, dj: int) -> Mask:
        at = np.clip(i + di, 0, pixels.shape[0] - 1), np.clip(j + dj, 0, pixels.shape[1] - 1)
        return np.asarray(pixels[at] < high - _FALL * span)

    reach = _REACH_PX
    thin = (dark(-reach, 0) & dark(reach, 0)) | (dark(0, -reach) & dark(0, reach))
    if np.count_nonzero(thin) < _FEWEST_BRIGHT or thin.mean() < _THIN_SHARE:
        return None
    return i[thin], j[thin]


def _cut(pixels: Image, places: tuple[Integers, Integers]) -> Image:
    """The part of a slice around some places."""
    i, j = ((max(int(each.min()) - _MARGIN_PX, 0), int(each.max()) + _MARGIN_PX) for each in places)
    return pixels[slice(*i), slice(*j)]


def _line(part: _Slice) -> tuple[int, int] | None:
    """Characters and height of the first line of text in a slice, along either axis."""
    for depth in _DEPTHS:
        for view in (part, part.turned()):
            mask = np.asarray(view.pixels >= view.high - depth * view.span)
            parts = _strokes(mask, view.tallest_px)
            if parts is None:
                continue
            for group in _groups(parts):
                line = _judged(view, mask, group)
                if line is not None:
                    return line
    return None


def _strokes(mask: Mask, tallest_px: float) -> _Parts | None:
    """Connected parts that may be characters, or several that touch: neither specks nor blobs."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3), dtype=bool))
    if not 2 <= count <= _MOST_PARTS:
        return None
    boxes = ndimage.find_objects(labels)
    ends = np.array([(a.start, a.stop, b.start, b.stop) for a, b in boxes], dtype=np.int64).T
    parts = _Parts(labels, np.arange(1, count + 1), *ends)
    area = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    width, height = parts.stop - parts.start, parts.heights
    sized = (height >= _HEIGHTS_PX[0]) & (height <= min(_HEIGHTS_PX[1], tallest_px)) & (width <= 10 * height)
    solid = (area >= 0.85 * width * height) & (width > 0.5 * height)
    chosen = parts.chosen(sized & ~solid & (area >= height))
    return chosen if 2 <= len(chosen.ids) <= _MOST_GLYPHS else None


def _groups(parts: _Parts) -> list[_Parts]:
    """Parts that follow each other: close, side by side, of like height."""

    def pairs(values: Integers) -> tuple[Integers, Integers]:
        return values[None, :], values[:, None]

    (start, start_), (stop, stop_) = pairs(parts.start), pairs(parts.stop)
    (bottom, bottom_), (top, top_) = pairs(parts.bottom), pairs(parts.top)
    lower, taller = np.minimum(*pairs(parts.heights)), np.maximum(*pairs(parts.heights))
    gap = np.maximum(start - stop_, start_ - stop)
    overlap = np.minimum(top, top_) - np.maximum(bottom, bottom_)
    linked = (gap <= np.maximum(1.6 * lower, 3)) & (overlap >= 0.5 * lower) & (taller <= 2.2 * lower)
    _, group = connected_components(linked, directed=False)
    return [parts.chosen(group == number) for number in np.flatnonzero(np.bincount(group) >= 2)]


def _judged(view: _Slice, mask: Mask, group: _Parts) -> tuple[int, int] | None:
    """Characters and height of a group of strokes that is a line of text, else None."""
    height = float(np.median(group.heights))
    glyphs = int(np.maximum(1, np.rint((group.stop - group.start) / (0.9 * height))).sum())
    if glyphs < (FEWEST_GLYPHS if height >= 7 else FEWEST_GLYPHS + 2):
        return None
    if group.stop.max() - group.start.min() < 2 * height or _aligned(group, height) < 0.6:
        return None
    members = _members(group)
    if not _looks_written(members, group, glyphs, height):
        return None
    return (glyphs, int(height)) if _is_stamped(view, mask, members, group, height) else None


def _aligned(group: _Parts, height: float) -> float:
    """Share of the strokes that stand on one line, or hang from one."""
    near = max(1.0, 0.08 * height)
    return max(float(np.mean(np.abs(edge - np.median(edge)) <= near)) for edge in (group.bottom, group.top))


def _members(group: _Parts) -> Mask:
    """The strokes of a group in their own box."""
    box = group.labels[group.start.min() : group.stop.max(), group.bottom.min() : group.top.max()]
    return np.isin(box, group.ids)


def _looks_written(members: Mask, group: _Parts, glyphs: int, height: float) -> bool:
    """Between base and cap line about one stroke or more a character is crossed, and strokes are thin."""
    first = round(float(np.median(group.bottom)) - int(group.bottom.min()))
    last = max(round(float(np.median(group.top)) - int(group.bottom.min())), first + 1)
    core = members[:, first:last]
    before = np.vstack([np.zeros((1, core.shape[1]), dtype=bool), core[:-1]])
    begun = (core & ~before).sum(axis=0)
    length = core.sum() / max(int(begun.sum()), 1)
    return bool(begun.mean() >= _CROSSINGS * glyphs and length <= 0.45 * height + 0.5)


def _is_stamped(view: _Slice, mask: Mask, members: Mask, group: _Parts, height: float) -> bool:
    """Strokes are of one value and stand out sharply from a ring of two pixels around them."""
    outer = 3
    i, j = max(int(group.start.min()) - outer, 0), max(int(group.bottom.min()) - outer, 0)
    window = slice(i, int(group.stop.max()) + outer), slice(j, int(group.top.max()) + outer)
    pixels = view.pixels[window].astype(np.float64)
    text = np.zeros(pixels.shape, dtype=bool)
    di, dj = int(group.start.min()) - i, int(group.bottom.min()) - j
    text[di : di + members.shape[0], dj : dj + members.shape[1]] = members
    near = ndimage.binary_dilation(text, structure=np.ones((3, 3), dtype=bool))
    ring = ndimage.binary_dilation(text, iterations=outer) & ~near & ~mask[window]
    if not ring.any() or view.high - np.percentile(pixels[ring], 80) < _SHARP_FALL * view.span:
        return False
    constant = float(np.mean(pixels[text] >= view.high - 2 * _EQUAL * view.span))
    return constant >= (0.35 if height >= 14 else 0.12)
