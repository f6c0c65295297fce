"""What a segmentation or a structure set says it is drawn on."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.scan_io.dicom.attributes import Attributes

Kind = Literal["segmentation", "structure_set"]
Points = NDArray[np.float64]


@dataclass(frozen=True)
class References:
    """Images, series and frames of reference that a file names, each sorted.

    Attributes:
        kind: what the file is.
        sop_instance_uids: of the images.
        series_uids: of their series.
        frame_of_reference_uids: of the coordinates.
        sha256: of the file.
    """

    kind: Kind
    sop_instance_uids: tuple[str, ...]
    series_uids: tuple[str, ...]
    frame_of_reference_uids: tuple[str, ...]
    sha256: str = ""


def below(start: Iterable[Attributes], *keywords: str) -> list[Attributes]:
    """Items of nested sequences, outermost first."""
    found = list(start)
    for keyword in keywords:
        found = [item for outer in found for item in outer.items(keyword)]
    return found


def values_of(items: Iterable[Attributes], keyword: str) -> set[str]:
    """Texts of an attribute of many items, those that have it."""
    return {text for item in items if (text := item.text(keyword)) is not None}


def ras(points: Points) -> Points:
    """Points (..., 3) of DICOM, LPS+ mm, in RAS+ mm."""
    return points * (-1.0, -1.0, 1.0)
