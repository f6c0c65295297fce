"""Image folder: ``dataset/{real,synthetic}/<split>/<class>/<name>.png``, ``metadata.csv`` and a data card.

Pixels are 16-bit grey; the step of the stored units is 1/16384, so that nothing is lost in [-1, 1]. Class folders are
named after the class, made safe for every file system; ``metadata.csv`` has the class as it is. ``real/`` and
``synthetic/`` each hold a ``labels.csv``, with which `scanloom ingest` reads them: class, subject and split.
"""

import io
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from pipeline.export.dataset import AugmentedDataset
from pipeline.export.metadata import (
    DATASET_FOLDER,
    METADATA_SCHEMA,
    Written,
    class_folders,
    dataset_classes,
    grey_pixels,
    image_folder,
    image_stem,
    metadata_row,
    write_image,
    write_table,
)
from pipeline.records import ProgressCallback

GREY_LEVELS = 65535


def write_image_folder(folder: Path, dataset: AugmentedDataset, progress: ProgressCallback) -> Written:
    """Write the images of ``dataset`` below ``folder``/dataset and their tables."""
    names = class_folders(dataset_classes(dataset))
    rows, clipped = [], 0
    for done, image in enumerate(dataset, start=1):
        file = f"{image_folder(image, names)}/{image_stem(image)}.png"
        grey, outside = grey_pixels(image, GREY_LEVELS, np.uint16)
        stream = io.BytesIO()
        Image.fromarray(grey).save(stream, format="PNG")
        write_image(folder / DATASET_FOLDER / file, stream.getvalue())
        clipped += outside
        rows.append(metadata_row(file, image))
        progress("exported images", done, len(dataset))
    metadata = pl.DataFrame(rows, schema=METADATA_SCHEMA)
    write_table(folder / DATASET_FOLDER / "metadata.csv", metadata)
    for origin in metadata["origin"].unique():
        _write_labels(folder / DATASET_FOLDER / origin, metadata.filter(pl.col("origin") == origin))
    return Written(metadata, clipped, "16-bit grey PNG", GREY_LEVELS)


def _write_labels(folder: Path, metadata: pl.DataFrame) -> None:
    """The table that the layout `class_folders` reads; a synthetic image is a subject of its own."""
    labels = metadata.select(
        image_path=pl.col("file").str.split("/").list.slice(1).list.join("/"),
        lesion_class="lesion_class",
        subject=pl.coalesce("subject_id", pl.col("file").str.split("/").list.last().str.strip_suffix(".png")),
        split="split",
    )
    write_table(folder / "labels.csv", labels)
