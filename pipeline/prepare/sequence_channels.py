"""Several MR sequences of a subject as the channels of one image: those that are registered to the scan of a lesion."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.catalog import Catalog
from pipeline.geometry import Geometry
from pipeline.resampling import resample

Row = Mapping[str, Any]


def registered_sequences(source: Row, series: Sequence[Row], names: Sequence[str]) -> list[Row] | None:
    """One scan for each name, in that order; None where one is missing.

    A scan counts that is a volume of the same subject and modality, whose sequence has that name in any case, and that
    lies in the frame of reference of ``source``; where neither has one, it must lie on the same grid. ``source`` itself
    comes first, then the lowest series id.

    Args:
        source: catalog row of the scan that the lesion was drawn on.
        series: all rows of the catalog.
        names: of sequences, e.g. T1.
    """
    known = [row for row in series if is_registered(row, source)]
    known.sort(key=lambda row: (row["series_id"] != source["series_id"], row["series_id"]))
    found = [
        next((row for row in known if (row["sequence"] or "").casefold() == name.casefold()), None) for name in names
    ]
    return None if any(row is None for row in found) else [row for row in found if row is not None]


def on_grid_of(
    catalog: Catalog, row: Row, voxels: npt.NDArray[Any], affine: npt.NDArray[np.float64], source: Row
) -> npt.NDArray[Any]:
    """Voxels (i, j, k) of a registered scan on the grid of ``source``; 0 where it shows nothing.

    Args:
        catalog: where the scan lies.
        row: of the scan.
        voxels: of ``source``.
        affine: of ``source``, voxel index -> RAS+ mm.
        source: row of the scan whose grid it is.
    """
    if row["series_id"] == source["series_id"]:
        return voxels
    other, other_affine = catalog.volume(row)
    return resample(other.astype(np.float32), other_affine, Geometry(voxels.shape, affine), antialias=True)


def is_registered(row: Row, source: Row) -> bool:
    """Whether a scan of the subject lies in the frame of reference of ``source``, or on its grid without one."""
    same = all(row[name] == source[name] for name in ("subject_id", "modality")) and row["kind"] == "volume"
    frames = row["frame_of_reference_uid"], source["frame_of_reference_uid"]
    if not same or frames[0] != frames[1]:
        return False
    return frames[0] is not None or _grid(row).matches(_grid(source))


def _grid(row: Row) -> Geometry:
    return Geometry(tuple(row["shape"]), np.reshape(row["affine"], (4, 4)))
