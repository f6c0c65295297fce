"""The memory-mapped arrays that prepare writes and that train, generate and evaluate read.

Two kinds of set, each one folder:

* `ImageSet`: lesion images of one size. ``images.npy`` int16 (N, C, H, W), unit intensity × 16384 (intensity.py), and
  ``images.parquet`` with one row an image (columns `IMAGE_SCHEMA`, then ``attribute_...`` where there are any).
* `VolumeSet`: MR and CT volumes of any size, sliced axially. ``mr.npy``, ``ct.npy`` int16 and ``mask.npy`` uint8 hold
  all voxels one volume after another; ``volumes.parquet`` (columns `VOLUME_SCHEMA`) says where each begins.
  Arrays are (K, H, W): slices superior-ward, rows anterior-to-posterior, columns right-to-left as a radiologist looks
  at them, so that a slice can be shown as it is. Where several MR sequences are one input (``sequences`` in
  ``set.json``), those of a case lie one after another in ``mr.npy``, and the table has the columns `CHANNEL_SCHEMA`.

``set.json`` holds the facts that belong to the whole set: classes, intensity maps, units, spacing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.errors import WorkspaceError
from pipeline.files import read_json, write_json
from pipeline.lesion_attributes import ATTRIBUTE_PREFIX, LesionAttribute, attributes_from, encoded

IMAGE_SCHEMA: dict[str, Any] = {
    "image": pl.Int64,  # row in images.npy
    "subject_id": pl.String,
    "series_id": pl.String,
    "lesion_id": pl.String,
    "lesion_class": pl.String,
    "split": pl.String,  # train, validation, test
    "slice_index": pl.Int64,  # in the source volume, -1 without geometry
}

VOLUME_SCHEMA: dict[str, Any] = {
    "volume": pl.Int64,  # row number
    "modality": pl.String,  # MR or CT: which array holds the voxels
    "subject_id": pl.String,
    "series_id": pl.String,
    "split": pl.String,
    "offset": pl.Int64,  # first voxel in mr.npy or ct.npy
    "mask_offset": pl.Int64,  # first voxel of the body mask in mask.npy
    "slices": pl.Int64,  # K
    "rows": pl.Int64,  # H
    "columns": pl.Int64,  # W
    "pair_volume": pl.Int64,  # its partner on the same grid: CT of an MR row, MR of a CT row; -1 for none
    "own_grid": pl.Boolean,  # False for a CT that was resampled to an MR's grid
    "affine": pl.List(pl.Float64),  # 16 numbers: (i, j, k) of the prepared grid -> RAS+ mm; null without geometry
    "mr_low": pl.Float64,  # MR intensity that maps to the low end (MR rows)
    "mr_high": pl.Float64,
    "sequence": pl.String,  # what the header says of the scan; null where it says nothing
    "body_part": pl.String,
    "scan_affine": pl.List(pl.Float64),  # 16 numbers of the scan's own grid; null without geometry
    "mr_knots": pl.List(pl.Float64),  # MR intensities at the knots of a map by landmarks, else null
    "mr_knots_unit": pl.List(pl.Float64),  # units at the same knots
    "lesion_classes": pl.List(pl.String),  # of the subject, by the catalog; null where it knows no lesions at all
}

CHANNEL_SCHEMA: dict[str, Any] = {
    "channel_series": pl.List(pl.String),  # series of the second and further sequences; null for CT
    "channel_low": pl.List(pl.Float64),  # as mr_low and mr_high, of each of them
    "channel_high": pl.List(pl.Float64),
    "channel_moved": pl.List(pl.List(pl.Float64)),  # 16 numbers each: what moved it onto the first one, RAS+ mm
}
"""Columns of a set of several MR sequences."""

IMAGES_ARRAY = "images.npy"
_ARRAY_DTYPES: dict[str, type[np.generic]] = {"mr": np.int16, "ct": np.int16, "mask": np.uint8}


@dataclass(frozen=True)
class ImageSet:
    """Images of one size with one table row each.

    Attributes:
        images: int16 (N, C, H, W), memory-mapped read-only.
        table: `IMAGE_SCHEMA`.
        facts: what ``set.json`` holds; ``classes`` lists the lesion classes in the order of their index,
            ``attributes`` describes the attributes, where there are any.
    """

    images: npt.NDArray[np.int16]
    table: pl.DataFrame
    facts: Mapping[str, Any]

    @property
    def classes(self) -> list[str]:
        """Lesion classes, index = condition."""
        return list(self.facts["classes"])

    def rows(self, split: str) -> npt.NDArray[np.int64]:
        """Row numbers of one split."""
        return self.table.filter(pl.col("split") == split)["image"].to_numpy().astype(np.int64)

    @property
    def attributes(self) -> tuple[LesionAttribute, ...]:
        """What images are described by beside their class."""
        return attributes_from(self.facts)

    def attribute_values(self) -> npt.NDArray[np.float32]:
        """(N, attributes) numbers for networks, NaN where missing."""
        names = {attribute.name: f"{ATTRIBUTE_PREFIX}{attribute.name}" for attribute in self.attributes}
        rows = self.table.select(pl.col(column).alias(name) for name, column in names.items()).to_dicts()
        return encoded(self.attributes, rows or [{}] * self.table.height)

    def class_indices(self) -> npt.NDArray[np.int64]:
        """Class index of every row."""
        index = {name: number for number, name in enumerate(self.classes)}
        return np.asarray([index[name] for name in self.table["lesion_class"]], dtype=np.int64)


def write_image_set(folder: Path, images: npt.NDArray[np.int16], table: pl.DataFrame, facts: Mapping[str, Any]) -> None:
    """Write an image set into ``folder`` (which is atomic as a whole by the stage runner)."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / IMAGES_ARRAY, images)
    columns = [pl.col(name).cast(kind) for name, kind in IMAGE_SCHEMA.items()]
    table.select(*columns, pl.col(f"^{ATTRIBUTE_PREFIX}.*$")).write_parquet(folder / "images.parquet")
    write_json(folder / "set.json", dict(facts))


def read_image_set(folder: Path) -> ImageSet:
    """Open an image set; voxels stay on disk until they are touched.

    Raises:
        WorkspaceError: array and table disagree.
    """
    images = np.load(folder / IMAGES_ARRAY, mmap_mode="r", allow_pickle=False)
    table = pl.read_parquet(folder / "images.parquet")
    if len(images) != table.height:
        raise _damaged(f"{len(images)} images, {table.height} table rows")
    return ImageSet(images, table, read_json(folder / "set.json"))


@dataclass(frozen=True)
class VolumeSet:
    """MR and CT volumes, memory-mapped.

    Attributes:
        arrays: flat ``mr``, ``ct`` (int16) and ``mask`` (uint8).
        table: `VOLUME_SCHEMA`.
        facts: what ``set.json`` holds: ``unit`` (HU or grey), ``ct_map`` knots, ``spacing_mm`` or null, ``sequences``
            where several are one input.
    """

    arrays: Mapping[str, npt.NDArray[Any]]
    table: pl.DataFrame
    facts: Mapping[str, Any]

    @property
    def sequences(self) -> tuple[str, ...]:
        """MR sequences that are one input together, in order; none where every MR is an input of its own."""
        return tuple(self.facts.get("sequences", ()))

    def volumes(self, modality: str, splits: Sequence[str]) -> list[dict[str, Any]]:
        """Table rows, as dicts, of one modality in the given splits."""
        return self.table.filter((pl.col("modality") == modality) & pl.col("split").is_in(list(splits))).to_dicts()

    def row(self, volume: int) -> dict[str, Any]:
        """One table row."""
        return self.table.row(volume, named=True)

    def holding(self, rows: Sequence[Mapping[str, Any]]) -> tuple["VolumeSet", list[dict[str, Any]]]:
        """A set of a few volumes without a table, small enough to send around, and their rows in it."""
        parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in self.arrays}
        sizes = dict.fromkeys(self.arrays, 0)
        held = []
        for row in rows:
            name = "mr" if row["modality"] == "MR" else "ct"
            held.append({**row, "offset": sizes[name], "mask_offset": sizes["mask"]})
            for key, values in ((name, self.channels(row)), ("mask", self.mask(row))):
                parts[key].append(np.asarray(values).ravel())
                sizes[key] += values.size
        arrays = {key: np.concatenate(some) if some else np.empty(0, np.int16) for key, some in parts.items()}
        return VolumeSet(arrays, self.table.clear(), self.facts), held

    def voxels(self, row: Mapping[str, Any]) -> npt.NDArray[np.int16]:
        """Voxels of one volume, (K, H, W): MR in unit × 16384, CT in HU or grey levels. A view of the mapping.

        Where several MR sequences are one input, those of the first.
        """
        return self._view("mr" if row["modality"] == "MR" else "ct", row["offset"], row)

    def channels(self, row: Mapping[str, Any]) -> npt.NDArray[np.int16]:
        """All sequences of an MR, (S, K, H, W) in the order of `sequences`; S is 1 for a CT, and without sequences."""
        name, count = ("mr", max(1, len(self.sequences))) if row["modality"] == "MR" else ("ct", 1)
        shape = (count, row["slices"], row["rows"], row["columns"])
        return self.arrays[name][row["offset"] : row["offset"] + int(np.prod(shape))].reshape(shape)

    def mask(self, row: Mapping[str, Any]) -> npt.NDArray[np.uint8]:
        """Body mask of one volume, (K, H, W), 0 or 1."""
        return self._view("mask", row["mask_offset"], row)

    def _view(self, name: str, offset: int, row: Mapping[str, Any]) -> npt.NDArray[Any]:
        shape = (row["slices"], row["rows"], row["columns"])
        return self.arrays[name][offset : offset + shape[0] * shape[1] * shape[2]].reshape(shape)


class VolumeSetWriter:
    """Appends volumes one at a time, so that memory holds one volume whatever the set's size.

    As a context manager it closes its files where an error cuts the writing short.

    Args:
        folder: where the set is written.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._streams = {name: (folder / f"{name}.raw").open("wb") for name in _ARRAY_DTYPES}
        self._lengths = dict.fromkeys(_ARRAY_DTYPES, 0)
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in self._streams.values():
            stream.close()

    def add(
        self,
        row: Mapping[str, Any],
        voxels: npt.NDArray[np.int16],
        mask: npt.NDArray[np.uint8],
        more: Sequence[npt.NDArray[np.int16]] = (),
    ) -> int:
        """Append one volume (K, H, W); ``row`` holds the columns that are not positions. Returns its number.

        ``more`` holds the second and further MR sequences, where several are one input.
        """
        array = "mr" if row["modality"] == "MR" else "ct"
        number = len(self._rows)
        self._rows.append(
            dict(row)
            | {"volume": number, "offset": self._lengths[array], "mask_offset": self._lengths["mask"]}
            | dict(zip(("slices", "rows", "columns"), voxels.shape, strict=True))
        )
        for part in (voxels, *more):
            self._append(array, part)
        self._append("mask", mask)
        return number

    def link(self, mr_volume: int, ct_volume: int) -> None:
        """Record that ``ct_volume`` lies on the grid of ``mr_volume``."""
        self._rows[mr_volume]["pair_volume"] = ct_volume
        self._rows[ct_volume]["pair_volume"] = mr_volume

    def close(self, facts: Mapping[str, Any]) -> pl.DataFrame:
        """Turn the raw streams into ``.npy`` files, write table and facts; returns the table."""
        for name, dtype in _ARRAY_DTYPES.items():
            self._streams[name].close()
            raw = self._folder / f"{name}.raw"
            values = np.memmap(raw, dtype=dtype, mode="r") if self._lengths[name] else np.empty(0, dtype)
            np.save(self._folder / f"{name}.npy", values)
            del values
            raw.unlink()
        several = any("channel_series" in row for row in self._rows)
        table = pl.DataFrame(self._rows, schema=VOLUME_SCHEMA | (CHANNEL_SCHEMA if several else {}))
        table.write_parquet(self._folder / "volumes.parquet")
        write_json(self._folder / "set.json", dict(facts))
        return table

    def _append(self, name: str, values: npt.NDArray[Any]) -> None:
        content = np.ascontiguousarray(values, dtype=_ARRAY_DTYPES[name])
        self._streams[name].write(content.tobytes())
        self._lengths[name] += content.size


def read_volume_set(folder: Path) -> VolumeSet:
    """Open a volume set; voxels stay on disk until they are touched.

    Raises:
        WorkspaceError: arrays and table disagree.
    """
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAY_DTYPES}
    table = pl.read_parquet(folder / "volumes.parquet")
    voxels = table.select("modality", count=pl.col("slices") * pl.col("rows") * pl.col("columns"))
    wanted = {name.lower(): int(voxels.filter(pl.col("modality") == name)["count"].sum()) for name in ("MR", "CT")}
    wanted["mask"] = int(voxels["count"].sum())
    facts = read_json(folder / "set.json")
    wanted["mr"] *= max(1, len(facts.get("sequences", ())))
    for name, count in wanted.items():
        if len(arrays[name]) != count:
            raise _damaged(f"{len(arrays[name])} voxels in {name}.npy, {count} in the table")
    return VolumeSet(arrays, table, facts)


def to_slices(volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Canonical RAS+ volume (i right, j anterior, k superior) to display slices (K, H, W).

    Row 0 is anterior and column 0 is the patient's right, the radiological view. Inverse: `from_slices`.
    """
    return np.ascontiguousarray(volume[::-1, ::-1, :].transpose(2, 1, 0))


def from_slices(slices: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Inverse of `to_slices`."""
    return np.ascontiguousarray(slices.transpose(2, 1, 0)[::-1, ::-1, :])


def _damaged(found: str) -> WorkspaceError:
    return WorkspaceError(
        "A prepared set's arrays and table must describe the same data.",
        found=found,
        allowed="equal counts",
        change="Delete the prepared folder and run `scanloom prepare` again.",
    )
