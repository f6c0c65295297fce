"""Image folder: ``dataset/{real,synthetic}/<split>/<class>/<name>.png``, ``metadata.csv`` and a data card.

Pixels are 16-bit grey, linear over the unit range: p = round((u + 1) / 2 · 65535) with u clipped to [-1, 1]; back by
u = 2p / 65535 − 1, exact to 1/65535. The step of the stored units is 1/16384, so that nothing is lost in [-1, 1].
Class folders are named after the class, made safe for every file system; ``metadata.csv`` has the class as it is.
"""

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image

from pipeline.errors import InputError
from pipeline.export.csv_cells import inert_cell
from pipeline.export.dataset import AugmentedDataset, ExportImage
from pipeline.files import write_text
from pipeline.intensity import from_int16
from pipeline.records import ProgressCallback

DATASET_FOLDER = "dataset"
GREY_LEVELS = 65535
"""Highest level of 16-bit grey."""

_METADATA_SCHEMA = {
    "file": pl.String,
    "origin": pl.String,
    "split": pl.String,
    "lesion_class": pl.String,
    "subject_id": pl.String,
    "lesion_id": pl.String,
    "seed": pl.Int64,
    "truncation": pl.Float64,
    "model_sha256": pl.String,
}
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")


@dataclass(frozen=True)
class Written:
    """What a format wrote.

    Attributes:
        metadata: one row an image, columns of ``metadata.csv`` before cells are made inert.
        clipped_pixels: pixels outside [-1, 1] that were clipped.
    """

    metadata: pl.DataFrame
    clipped_pixels: int


def write_image_folder(folder: Path, dataset: AugmentedDataset, progress: ProgressCallback) -> Written:
    """Write the images of ``dataset`` below ``folder``/dataset and their ``metadata.csv``.

    Raises:
        InputError: the images have more than one channel.
    """
    _require_grey(dataset)
    names = class_folders(sorted({*dataset.prepared.classes, *dataset.cohort["lesion_class"]}))
    rows, clipped = [], 0
    for done, image in enumerate(dataset, start=1):
        file = f"{image.origin}/{image.split}/{names[image.lesion_class]}/{_stem(image)}.png"
        path = folder / DATASET_FOLDER / file
        path.parent.mkdir(parents=True, exist_ok=True)
        unit = from_int16(image.stored)
        path.write_bytes(grey_png(unit))
        clipped += int((np.abs(unit) > 1).sum())
        rows.append(_metadata_row(file, image, dataset.model_sha256))
        progress("exported images", done, len(dataset))
    metadata = pl.DataFrame(rows, schema=_METADATA_SCHEMA)
    inert = metadata.with_columns(pl.col(pl.String).map_elements(inert_cell, return_dtype=pl.String))
    write_text(folder / DATASET_FOLDER / "metadata.csv", inert.write_csv())
    return Written(metadata, clipped)


def grey_png(unit: npt.NDArray[np.float32]) -> bytes:
    """16-bit grey PNG of a (H, W) image in units; [-1, 1] spans 0 to 65535, the rest is clipped."""
    grey = np.rint((np.clip(unit.astype(np.float64), -1, 1) + 1) / 2 * GREY_LEVELS).astype(np.uint16)
    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, format="PNG")
    return stream.getvalue()


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


def _require_grey(dataset: AugmentedDataset) -> None:
    for name, images in (("prepared set", dataset.prepared.images), ("cohort", dataset.cohort_images)):
        if images.ndim != 4 or images.shape[1] != 1:
            raise InputError(
                "The image folder format holds grey images.",
                found=f"{name} of shape {images.shape}",
                allowed="(N, 1, H, W)",
                change="Prepare the images with one channel.",
            )


def _stem(image: ExportImage) -> str:
    prefix = image.subject_id if image.origin == "real" else "synthetic"
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", str(prefix))[:40]
    return f"{safe}_{image.source_row:06d}"


def _metadata_row(file: str, image: ExportImage, model_sha256: str) -> dict[str, str | int | float | None]:
    return {
        "file": file,
        "origin": image.origin,
        "split": image.split,
        "lesion_class": image.lesion_class,
        "subject_id": image.subject_id,
        "lesion_id": image.lesion_id,
        "seed": image.seed,
        "truncation": image.truncation,
        "model_sha256": model_sha256 if image.origin == "synthetic" else None,
    }
