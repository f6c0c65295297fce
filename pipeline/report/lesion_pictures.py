"""Pictures of the lesion track: real beside synthetic for every class, near-copies beside what they resemble.

Images are drawn at random with the run's seed, not picked; flagged images take part in the draw like any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.intensity import from_int16
from pipeline.prepared_set import IMAGES_ARRAY, ImageSet
from pipeline.report.pictures import Bytes, Picture, Window, montage, picture

UNIT_WINDOW = Window("whole range", 2.0, 0.0)
"""Shows units in [-1, 1]."""

_COLUMNS = 4
_TILE_PX = 112
_MAX_PAIRS = 6


@dataclass(frozen=True)
class ClassPictures:
    """One class: real training images and synthetic images, None where there is none."""

    lesion_class: str
    real: Picture | None
    real_shown: int
    real_count: int
    synthetic: Picture | None
    synthetic_shown: int
    synthetic_count: int


@dataclass(frozen=True)
class CopyPair:
    """A flagged synthetic image beside the training image it resembles."""

    lesion_class: str
    image: int
    correlation: float
    synthetic: Picture
    nearest: Picture


def class_pictures(prepared: ImageSet, cohort: Path | None, seed: int, per_class: int) -> tuple[ClassPictures, ...]:
    """Montages of each class.

    Args:
        prepared: real images.
        cohort: folder of synthesize_lesions, or None.
        seed: seed of the draw.
        per_class: images of each origin shown, at the most.
    """
    rng = np.random.default_rng(seed)
    table, images = _read_cohort(cohort)
    shown = []
    for lesion_class in prepared.classes:
        real = prepared.table.filter((pl.col("split") == "train") & (pl.col("lesion_class") == lesion_class))
        real_rows = _one_a_subject(real, rng, per_class)
        synthetic = table.filter(pl.col("lesion_class") == lesion_class)["image"].to_numpy()
        drawn = np.sort(rng.permutation(synthetic)[:per_class])
        shown.append(
            ClassPictures(
                lesion_class,
                _sheet(prepared.images, real_rows, f"{len(real_rows)} real training images of class {lesion_class}"),
                len(real_rows),
                real.height,
                _sheet(images, drawn, f"{len(drawn)} synthetic images of class {lesion_class}"),
                len(drawn),
                len(synthetic),
            )
        )
    return tuple(shown)


def copy_pairs(prepared: ImageSet, cohort: Path, evaluation: Path) -> tuple[CopyPair, ...]:
    """The flagged images with the highest correlation, each beside its nearest training image; `_MAX_PAIRS` at most."""
    flagged = pl.read_parquet(evaluation / "flagged.parquet").sort(["correlation", "image"], descending=[True, False])
    _, images = _read_cohort(cohort)
    return tuple(_copy_pair(row, prepared, images) for row in flagged.head(_MAX_PAIRS).iter_rows(named=True))


def _copy_pair(row: dict[str, Any], prepared: ImageSet, images: npt.NDArray[np.int16]) -> CopyPair:
    name = row["lesion_class"]
    return CopyPair(
        name,
        row["image"],
        row["correlation"],
        picture(_tile_sheet([_tile(images, row["image"])]), f"Flagged synthetic image {row['image']} of class {name}"),
        picture(_tile_sheet([_tile(prepared.images, row["nearest_image"])]), f"Its nearest training image, {name}"),
    )


def _read_cohort(cohort: Path | None) -> tuple[pl.DataFrame, npt.NDArray[np.int16]]:
    if cohort is None:
        return pl.DataFrame(schema={"image": pl.Int64, "lesion_class": pl.String}), np.empty((0, 1, 1, 1), np.int16)
    images = np.load(cohort / IMAGES_ARRAY, mmap_mode="r", allow_pickle=False)
    return pl.read_parquet(cohort / "cohort.parquet"), images


def _one_a_subject(table: pl.DataFrame, rng: np.random.Generator, most: int) -> npt.NDArray[np.int64]:
    """Random rows, a second one of a subject only after every subject has had its first."""
    shuffled = table[rng.permutation(table.height).tolist()]
    turn = pl.int_range(pl.len()).over("subject_id")
    chosen = shuffled.with_columns(turn=turn).sort("turn", maintain_order=True).head(most)
    return np.sort(chosen["image"].to_numpy()).astype(np.int64)


def _sheet(images: npt.NDArray[np.int16], rows: Sequence[int] | npt.NDArray[Any], alt: str) -> Picture | None:
    return picture(_tile_sheet([_tile(images, int(row)) for row in rows]), alt) if len(rows) else None


def _tile(images: npt.NDArray[np.int16], row: int) -> Bytes:
    """One image, its channels side by side."""
    return UNIT_WINDOW.apply(from_int16(np.concatenate(list(images[row]), axis=1)))


def _tile_sheet(tiles: Sequence[Bytes]) -> Bytes:
    return montage(tiles, _COLUMNS, _TILE_PX)
