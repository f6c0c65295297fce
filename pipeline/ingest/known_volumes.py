"""Volumes of earlier catalogs of the workspace, found by what they hold, so that a series need not be parsed again."""

from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import polars as pl
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from pipeline.geometry import Geometry
from pipeline.ingest.found import content_hash


class KnownVolumes:
    """Voxels by `content_hash`.

    Args:
        catalogs: folder of the catalogs, ``<workspace>/ingest``.
    """

    def __init__(self, catalogs: Path) -> None:
        self._catalogs = catalogs

    def __contains__(self, content_sha256: str) -> bool:
        return content_sha256 in self._paths

    def read(self, content_sha256: str, geometry: Geometry) -> NDArray[Any] | None:
        """Voxels (i, j, k), mapped from the file; None where they are gone or are not what they were.

        Args:
            content_sha256: hash of voxels and affine.
            geometry: the exact grid; a NIfTI file rounds it to 32 bits.
        """
        try:
            voxels = np.asanyarray(nib.load(self._paths[content_sha256]).dataobj)
        except (OSError, ValueError, KeyError, ImageFileError):
            return None
        same = voxels.shape == geometry.shape and content_hash(voxels, geometry.affine) == content_sha256
        return voxels if same else None

    @cached_property
    def _paths(self) -> dict[str, Path]:
        paths: dict[str, Path] = {}
        for table in sorted(self._catalogs.glob("*/series.parquet")):
            try:
                rows = pl.read_parquet(table, columns=["kind", "path", "content_sha256"])
            except (OSError, pl.exceptions.PolarsError):
                continue
            for row in rows.filter(pl.col("kind") == "volume").iter_rows(named=True):
                paths[row["content_sha256"]] = table.parent / row["path"]
        return paths
