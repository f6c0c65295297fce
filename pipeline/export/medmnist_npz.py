"""One archive in the form of MedMNIST v2 (Yang et al., Sci Data 10:41, 2023): ``lesions.npz`` and ``lesions.json``.

``{train,val,test}_images`` uint8 (N, H, W), or (N, H, W, C) of several sequences, and ``{train,val,test}_labels``
(N, 1) hold real images alone, so that any reader of MedMNIST trains and tests on real data. Synthetic images lie beside
them, for training, as ``synthetic_images``, ``synthetic_labels``, ``synthetic_seeds`` and ``synthetic_truncations``.
``lesions.json`` names the classes. 8 bits are the format's: a step of 1/127.5 of the unit range is coarser than what
the network makes.
"""

from collections import defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.export.dataset import AugmentedDataset, ExportImage
from pipeline.export.metadata import (
    DATASET_FOLDER,
    METADATA_SCHEMA,
    Written,
    dataset_classes,
    grey_pixels,
    metadata_row,
    write_table,
)
from pipeline.files import write_json
from pipeline.records import ProgressCallback

ARCHIVE = "lesions.npz"
GREY_LEVELS = 255
SYNTHETIC = "synthetic"
_PREFIXES = {"train": "train", "validation": "val", "test": "test"}


def write_medmnist_npz(folder: Path, dataset: AugmentedDataset, progress: ProgressCallback) -> Written:
    """Write ``folder``/dataset/lesions.npz; ``metadata.csv`` names array and index of every image."""
    classes = dataset_classes(dataset)
    members: dict[str, list[tuple[ExportImage, npt.NDArray[np.uint8]]]] = defaultdict(list)
    rows, clipped = [], 0
    for done, image in enumerate(dataset, start=1):
        prefix = SYNTHETIC if image.origin == "synthetic" else _PREFIXES[image.split]
        grey, outside = grey_pixels(image, GREY_LEVELS, np.uint8)
        place = {"array": f"{prefix}_images", "index": len(members[prefix])}
        rows.append(metadata_row(ARCHIVE, image) | place)
        members[prefix].append((image, grey))
        clipped += outside
        progress("exported images", done, len(dataset))
    channels, *sides = dataset.prepared.images.shape[1:]
    shape = sides if channels == 1 else [*sides, channels]
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for prefix in (*_PREFIXES.values(), SYNTHETIC):
        pixels = [grey for _, grey in members[prefix]]
        labels = [classes.index(image.lesion_class) for image, _ in members[prefix]]
        arrays[f"{prefix}_images"] = np.array(pixels, np.uint8).reshape(-1, *shape)
        arrays[f"{prefix}_labels"] = np.array(labels, np.min_scalar_type(len(classes))).reshape(-1, 1)
    made = [image for image, _ in members[SYNTHETIC]]
    arrays["synthetic_seeds"] = np.array([image.seed for image in made], np.int64)
    arrays["synthetic_truncations"] = np.array([image.truncation for image in made], np.float64)
    target = folder / DATASET_FOLDER
    target.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(target / ARCHIVE, **arrays)  # type: ignore[arg-type]
    write_json(target / "lesions.json", {str(index): name for index, name in enumerate(classes)})
    metadata = pl.DataFrame(rows, schema=METADATA_SCHEMA | {"array": pl.String, "index": pl.Int64})
    write_table(target / "metadata.csv", metadata)
    return Written(metadata, clipped, "8-bit grey, arrays of one .npz archive", GREY_LEVELS)
