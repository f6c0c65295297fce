"""Real images for `lesions_real`: near-copies removed, one split for all, and small training sets drawn from it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from skimage.io import imread

from pipeline.intensity import to_int16
from pipeline.near_duplicates import find_near_duplicates
from pipeline.prepare.lesion_crops import image_to_square
from pipeline.prepared_set import ImageSet, read_image_set, write_image_set

SHARES = {"train": 0.55, "validation": 0.15, "test": 0.30}
FEW = 50
"""Training images of a class in a small set."""

SEARCH_PX = 64
"""Side at which near-copies are searched."""

Images = npt.NDArray[np.float32]


def prepare_class_folders(source: Path, work: Path, size_px: int, draws: int, seed: int = 0) -> dict[str, Any]:
    """Write ``brain<size>``: one image of every group of near-copies, split within classes; and small sets.

    ``brain<size>_few<draw>`` has the same test split, `FEW` training images of each class, and the rest as validation.
    """
    names = sorted(folder.name for folder in source.iterdir() if folder.is_dir())
    files = [(path, name) for name in names for path in sorted((source / name).iterdir())]
    pixels = [imread(path) for path, _ in files]
    # Searched at one size, so that sets of every size have the same images and the same split.
    clusters = find_near_duplicates([image_to_square(image, SEARCH_PX) for image in pixels]).clusters
    first = np.unique(clusters, return_index=True)[1]
    kept = np.stack([image_to_square(pixels[index], size_px) for index in first])
    classes = [files[index][1] for index in first]
    splits = _split(classes, np.random.default_rng(seed))
    _write(work / f"brain{size_px}", kept, classes, splits)
    for draw in range(draws):
        few = _few(classes, splits, np.random.default_rng([seed, draw]))
        _write(work / f"brain{size_px}_few{draw}", kept, classes, few)
    return {"images": len(files), "without near-copies": len(kept)}


def prepare_npz(source: Path, work: Path, name: str, size_px: int) -> dict[str, Any]:
    """Write a MedMNIST-style archive with its published split; what validation or test repeats leaves training."""
    archive = np.load(source, allow_pickle=False)
    images, classes, splits = [], [], []
    for key, split in (("train", "train"), ("val", "validation"), ("test", "test")):
        pixels, labels = archive[f"{key}_images"], archive[f"{key}_labels"].ravel()
        images += [image_to_square(image, size_px) for image in pixels]
        classes += [f"class_{int(label)}" for label in labels]
        splits += [split] * len(pixels)
    _write(work / name, np.stack(images), classes, splits)
    return {"images": len(images)}


def _split(classes: list[str], rng: np.random.Generator) -> list[str]:
    """Shares of every class."""
    splits = np.empty(len(classes), dtype=object)
    for name in sorted(set(classes)):
        members = rng.permutation(np.flatnonzero(np.array(classes) == name))
        edges = np.round(np.cumsum([SHARES["train"], SHARES["validation"]]) * len(members)).astype(int)
        for split, part in zip(SHARES, np.split(members, edges), strict=True):
            splits[part] = split
    return [str(split) for split in splits]


def _few(classes: list[str], splits: list[str], rng: np.random.Generator) -> list[str]:
    few = np.array(["test" if split == "test" else "validation" for split in splits], dtype=object)
    for name in sorted(set(classes)):
        pool = np.flatnonzero((np.array(classes) == name) & (np.array(splits) == "train"))
        few[rng.choice(pool, FEW, replace=False)] = "train"
    return [str(split) for split in few]


def _write(folder: Path, images: Images, classes: list[str], splits: list[str]) -> None:
    rows = [f"image-{index}" for index in range(len(images))]
    table = pl.DataFrame({"image": list(range(len(images))), "lesion_class": classes, "split": splits})
    table = table.with_columns(subject_id=pl.Series(rows), series_id=pl.Series(rows), lesion_id=pl.Series(rows))
    table = table.with_columns(slice_index=pl.lit(-1))
    names = sorted(set(classes))
    counts = {
        split: {name: sum(a == name and b == split for a, b in zip(classes, splits, strict=True)) for name in names}
        for split in SHARES
    }
    facts: Mapping[str, Any] = {
        "classes": names,
        "size_px": images.shape[1],
        "pixel_mm": None,
        "modality": None,
        "counts": counts,
    }
    write_image_set(folder, to_int16(images)[:, None], table, facts)


def open_set(work: Path, name: str) -> ImageSet:
    """A set that was prepared before."""
    return read_image_set(work / name)
