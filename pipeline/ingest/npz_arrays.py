"""What runs in the parsing process for .npz files: load the arrays of one split and check them."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import QuarantineError
from pipeline.ingest.images import refuse_color

Arrays = tuple[NDArray[Any], NDArray[np.int64]]


def read_split(task: tuple[Path, str]) -> Arrays:
    """Images and labels of one split.

    Raises:
        QuarantineError: UNREADABLE, MISSING_ARRAY, BAD_ARRAY, UNSUPPORTED_COLOR.
    """
    path, prefix = task
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in (f"{prefix}_images", f"{prefix}_labels") if name not in archive]
            if missing:
                raise QuarantineError(
                    "MISSING_ARRAY", f"no array {' or '.join(missing)}", "Add it, or ignore this row."
                )
            images, labels = archive[f"{prefix}_images"], archive[f"{prefix}_labels"]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        found = f"{type(error).__name__} while reading the {prefix} arrays"
        raise QuarantineError("UNREADABLE", found, "Arrays of objects are never loaded; save plain arrays.") from error
    return _checked_images(images), _checked_labels(labels, len(images))


def _checked_images(images: NDArray[Any]) -> NDArray[Any]:
    gray_or_color = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
    if not gray_or_color or images.dtype not in (np.uint8, np.uint16) or 0 in images.shape:
        found = f"images of shape {images.shape} and type {images.dtype}"
        advice = "Save (N, rows, columns) or (N, rows, columns, 3) as uint8 or uint16."
        raise QuarantineError("BAD_ARRAY", found, advice)
    if images.ndim == 4:
        refuse_color(images)
    return images


def _checked_labels(labels: NDArray[Any], count: int) -> NDArray[np.int64]:
    flat = labels.reshape(-1)
    if labels.shape not in ((count,), (count, 1)) or not np.issubdtype(labels.dtype, np.integer) or flat.min() < 0:
        found = f"labels of shape {labels.shape} and type {labels.dtype} for {count} images"
        raise QuarantineError("BAD_ARRAY", found, "Save one whole number from 0 up for each image.")
    return flat.astype(np.int64)
