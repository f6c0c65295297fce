"""Pairs of CT and pseudo-CT that were given to be judged: what prepare writes, and evaluate and report read.

One folder: ``pairs.parquet`` (columns `PAIR_SCHEMA`), ``unmatched.parquet``, ``set.json``, and for every pair on one
grid ``<pair>-ct.npy``, ``-pseudo_ct.npy``, ``-mask.npy`` and, where they were given on that grid, ``-mr.npy`` and two
label maps, ``-ct_labels.npy`` and ``-pseudo_ct_labels.npy``. Arrays are (K, H, W) as in `pipeline.prepared_set`: HU,
HU, 0 or 1, MR in unit × 16384, and labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.files import read_json, write_json

PAIR_SCHEMA: dict[str, Any] = {
    "pair": pl.Int64,
    "subject_id": pl.String,
    "series_id": pl.String,  # of the pseudo-CT
    "comparable": pl.Boolean,  # on one grid, with a mask: arrays are there
    "orientation": pl.String,  # axes as stored, e.g. LPS
    "spacing_difference": pl.Float64,  # mm
    "extent_difference": pl.Float64,
    "distance": pl.Float64,
    "finding": pl.String,
    "spacing_mm": pl.List(pl.Float64),  # (slices, rows, columns)
    "has_mr": pl.Boolean,
    "labels_finding": pl.String,  # empty where both label maps are there, else why not
}
UNMATCHED_SCHEMA: dict[str, Any] = {"role": pl.String, "subject_id": pl.String, "why": pl.String}


@dataclass(frozen=True)
class PairSet:
    """An opened set.

    Attributes:
        folder: where it lies.
        pairs: rows of `PAIR_SCHEMA`.
        unmatched: rows of `UNMATCHED_SCHEMA`.
        facts: ``mask_given``: whether masks were given, else body outlines of the CT; ``mr_given``, ``labels_given``.
    """

    folder: Path
    pairs: tuple[dict[str, Any], ...]
    unmatched: tuple[dict[str, Any], ...]
    facts: Mapping[str, Any]

    def volume(self, row: Mapping[str, Any], name: str) -> npt.NDArray[Any]:
        """An array of a comparable pair by its name in the head of this file, (K, H, W), memory-mapped."""
        loaded: npt.NDArray[Any] = np.load(self.folder / f"{row['pair']}-{name}.npy", mmap_mode="r", allow_pickle=False)
        return loaded


def write_pair_tables(
    folder: Path, pairs: list[dict[str, Any]], unmatched: list[dict[str, Any]], facts: Mapping[str, Any]
) -> None:
    """Write the tables; arrays lie there already."""
    pl.DataFrame(pairs, schema=PAIR_SCHEMA).write_parquet(folder / "pairs.parquet")
    pl.DataFrame(unmatched, schema=UNMATCHED_SCHEMA).write_parquet(folder / "unmatched.parquet")
    write_json(folder / "set.json", dict(facts))


def read_pair_set(folder: Path) -> PairSet:
    """Open a set."""
    tables = [tuple(pl.read_parquet(folder / f"{name}.parquet").to_dicts()) for name in ("pairs", "unmatched")]
    return PairSet(folder, tables[0], tables[1], read_json(folder / "set.json"))
