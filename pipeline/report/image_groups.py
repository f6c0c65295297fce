"""Images without geometry on the contact sheet: one group a class, as a grid of pictures with sizes and histogram."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from pipeline.catalog import Catalog
from pipeline.report.contact_pictures import webp_uri
from pipeline.report.histograms import Histogram, histogram
from pipeline.report.pictures import Bytes, montage

TILE_PX, COLUMNS = 64, 12
SHOWN, UNLIKE_SHOWN = 24, 12
MAX_SHEET_BYTES = 60 * 1024
MAX_READ = 2000
"""Images read of a group, spread evenly; more would not change its histogram."""

_LEVELS = np.linspace(0, 1, 17)
_BINS = 64


class ImageSheet(BaseModel):
    """A grid of images.

    Attributes:
        uri: WebP data URI.
        width, height: pixels.
        count: images in it.
    """

    model_config = ConfigDict(frozen=True)
    uri: str
    width: int
    height: int
    count: int


class ImageGroup(BaseModel):
    """Images of one class and modality.

    Attributes:
        title: class and modality.
        count: images in the group.
        read: images that were read for histogram and comparison.
        subjects: subjects in the group.
        sizes: (size, number of images), most frequent first.
        constant: images of one value, among those read.
        sample: images spread evenly over the group.
        unlike: images whose grey levels are least like the group's, least alike first.
        histogram: of grey levels.
    """

    model_config = ConfigDict(frozen=True)
    title: str
    count: int
    read: int
    subjects: int
    sizes: tuple[tuple[str, int], ...]
    constant: int
    sample: ImageSheet
    unlike: ImageSheet | None
    histogram: Histogram


def image_groups(
    catalog: Catalog, rows: Sequence[Mapping[str, Any]], classes: Mapping[str, str]
) -> tuple[ImageGroup, ...]:
    """Groups of image rows by class and modality, in the order of their titles.

    Args:
        catalog: the catalog.
        rows: series rows of kind ``image``.
        classes: lesion class by series id.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        words = (classes.get(row["series_id"]), row["modality"])
        groups.setdefault(", ".join(word for word in words if word) or "no class", []).append(row)
    return tuple(_group(catalog, title, groups[title]) for title in sorted(groups))


def _group(catalog: Catalog, title: str, rows: Sequence[Mapping[str, Any]]) -> ImageGroup:
    read = [rows[place] for place in _spread(len(rows), MAX_READ)]
    quantiles, counts, constant = _statistics(catalog, read)
    distances = np.abs(quantiles - np.median(quantiles, axis=0)).mean(axis=1)
    unlike: list[int] = np.argsort(-distances, kind="stable")[:UNLIKE_SHOWN].tolist() if len(read) > SHOWN else []
    sizes = Counter(" × ".join(str(size) for size in row["shape"]) for row in rows)
    return ImageGroup(
        title=title,
        count=len(rows),
        read=len(read),
        subjects=len({row["subject_id"] for row in rows}),
        sizes=tuple(sorted(sizes.items(), key=lambda item: (-item[1], item[0]))),
        constant=constant,
        sample=_sheet(catalog, [rows[place] for place in _spread(len(rows), SHOWN)]),
        unlike=_sheet(catalog, [read[place] for place in unlike]) if unlike else None,
        histogram=histogram(counts, (0.0, 255.0), ((0.0, "0"), (128.0, "128"), (255.0, "255")), "Grey levels"),
    )


def _statistics(catalog: Catalog, rows: Sequence[Mapping[str, Any]]) -> tuple[npt.NDArray[np.float64], list[int], int]:
    """Quantiles of each image, counts of grey levels of all, and how many images are constant."""
    quantiles, counts, constant = [], np.zeros(_BINS, np.int64), 0
    for row in rows:
        grey = _grey(catalog, row)
        quantiles.append(np.quantile(grey, _LEVELS))
        counts += np.histogram(grey, _BINS, (0, 256))[0]
        constant += int(grey.min() == grey.max())
    return np.asarray(quantiles, dtype=np.float64), counts.tolist(), constant


def _sheet(catalog: Catalog, rows: Sequence[Mapping[str, Any]]) -> ImageSheet:
    pixels = montage([_square(_grey(catalog, row)) for row in rows], COLUMNS, TILE_PX)
    uri = webp_uri(pixels, MAX_SHEET_BYTES)
    return ImageSheet(uri=uri, width=pixels.shape[1], height=pixels.shape[0], count=len(rows))


def _grey(catalog: Catalog, row: Mapping[str, Any]) -> Bytes:
    """Grey pixels 0 to 255 of an image; color is averaged."""
    pixels = np.asarray(catalog.image(row))
    grey = pixels if pixels.ndim == 2 else pixels.mean(axis=2)
    if grey.dtype != np.uint8:
        grey = np.rint(np.clip(grey, 0, 255))
    return np.asarray(grey, dtype=np.uint8)


def _square(grey: Bytes) -> Bytes:
    """The image in the middle of a black square, so that its proportions stay."""
    side = max(grey.shape)
    square = np.zeros((side, side), np.uint8)
    top, left = ((side - size) // 2 for size in grey.shape)
    square[top : top + grey.shape[0], left : left + grey.shape[1]] = grey
    return square


def _spread(total: int, most: int) -> list[int]:
    """At most ``most`` places spread evenly over ``total``."""
    return sorted(set(np.linspace(0, total - 1, min(most, total)).round().astype(int).tolist()))
