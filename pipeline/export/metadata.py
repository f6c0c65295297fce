"""What every image format has in common: a row an image on where it comes from, grey levels, names.

Network units are linear over the grey range: p = round((u + 1) / 2 · L) with u clipped to [-1, 1] and L the highest
level; back by u = 2p / L − 1.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.errors import InputError
from pipeline.export.csv_cells import inert_cell
from pipeline.export.dataset import AugmentedDataset, ExportImage
from pipeline.files import write_text
from pipeline.intensity import from_int16

DATASET_FOLDER = "dataset"
Cell = str | int | float | None
Grey = TypeVar("Grey", np.uint8, np.uint16)

METADATA_SCHEMA = {
    "file": pl.String,
    "origin": pl.String,
    "split": pl.String,
    "lesion_class": pl.String,
    "subject_id": pl.String,
    "lesion_id": pl.String,
    "seed": pl.Int64,
    "truncation": pl.Float64,
    "attributes": pl.String,
    "model_sha256": pl.String,
}
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")


@dataclass(frozen=True)
class Written:
    """What a format wrote.

    Attributes:
        metadata: one row an image, columns of ``metadata.csv`` before cells are made inert.
        clipped_pixels: pixels outside [-1, 1] that were clipped.
        pixel_format: in words.
        grey_levels: highest grey level, which stands for 1.
    """

    metadata: pl.DataFrame
    clipped_pixels: int
    pixel_format: str
    grey_levels: int


def metadata_row(file: str, image: ExportImage) -> dict[str, Cell]:
    """The columns of `METADATA_SCHEMA`."""
    return {
        "file": file,
        "origin": image.origin,
        "split": image.split,
        "lesion_class": image.lesion_class,
        "subject_id": image.subject_id,
        "lesion_id": image.lesion_id,
        "seed": image.seed,
        "truncation": image.truncation,
        "attributes": image.attributes,
        "model_sha256": image.model_sha256,
    }


def write_image(path: Path, content: bytes) -> None:
    """Write one of many files; the stage runner flushes them all at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_table(path: Path, table: pl.DataFrame) -> None:
    """Write a CSV whose text cells no spreadsheet runs."""
    inert = table.with_columns(pl.col(pl.String).map_elements(inert_cell, return_dtype=pl.String))
    write_text(path, inert.write_csv())


def grey_pixels(image: ExportImage, levels: int, dtype: type[Grey]) -> tuple[npt.NDArray[Grey], int]:
    """Grey levels of an image, in the shape that it is stored in, and how many pixels were clipped to the range."""
    unit = from_int16(image.stored).astype(np.float64)
    grey = np.rint((np.clip(unit, -1, 1) + 1) / 2 * levels).astype(dtype)
    return grey, int((np.abs(unit) > 1).sum())


def class_folders(classes: Sequence[str]) -> dict[str, str]:
    """A folder name for every class: the class itself where that is safe, else a safe form with six digits of its hash.

    Names stay distinct on file systems that do not tell upper from lower case.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for lesion_class in classes:
        name = lesion_class
        if not _SAFE_NAME.fullmatch(name) or name.endswith(".") or name.lower() in taken:
            digits = hashlib.sha256(lesion_class.encode()).hexdigest()[:6]
            name = f"{re.sub(r'[^A-Za-z0-9_-]', '_', lesion_class)[:40].lstrip('_-') or 'class'}-{digits}"
        names[lesion_class] = name
        taken.add(name.lower())
    return names


def dataset_classes(dataset: AugmentedDataset) -> list[str]:
    """Every class of real and synthetic images, in alphabetical order."""
    return sorted({*dataset.prepared.classes, *dataset.cohort["lesion_class"]})


def image_stem(image: ExportImage) -> str:
    """File name without ending: subject and row, or ``synthetic`` and row."""
    prefix = image.subject_id if image.origin == "real" else "synthetic"
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", str(prefix))[:40]
    return f"{safe}_{image.source_row:06d}"


def image_folder(image: ExportImage, names: dict[str, str]) -> str:
    """``<origin>/<split>/<class folder>``."""
    return f"{image.origin}/{image.split}/{names[image.lesion_class]}"


def require_grey(dataset: AugmentedDataset) -> None:
    """Refuse images of several channels.

    Raises:
        InputError: there are some.
    """
    for name, images in (("prepared set", dataset.prepared.images), ("cohort", dataset.cohort_images)):
        if images.ndim != 4 or images.shape[1] != 1:
            raise InputError(
                "Datasets are exported as grey images.",
                found=f"{name} of shape {images.shape}",
                allowed="(N, 1, H, W)",
                change="Set export.format=medmnist_npz, which holds several channels, or prepare.lesions.sequences=[].",
            )
