"""Decode PNG, JPEG, BMP and TIFF images with Pillow; runs in the parsing process.

A color image whose channels are equal becomes a gray one. Opaque alpha is dropped. Exif orientation is applied.
`refuse_color` is for layouts that learn from gray alone.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.errors import QuarantineError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
MAX_PIXELS = 64_000_000
"""Larger images are refused before they are decoded (8000 × 8000)."""

MIN_SIDE_PX = 8

COLOR_TOLERANCE = 0.1
"""Largest share of the brightness by which the channels of a picture may differ that is learned as gray.

Of 2,000 published MR pictures in JPEG, 22 were tinted or carried a mark in color; they differed by 0.08 at the most.
Sequences of MR put into the channels differ by several times as much.
"""


def read_images(paths: tuple[Path, ...]) -> list[NDArray[Any] | QuarantineError]:
    """Pixels or refusal of each file: (rows, columns) or (rows, columns, 3), uint8 or uint16."""
    return [_attempt(path) for path in paths]


def read_gray_images(paths: tuple[Path, ...]) -> list[NDArray[Any] | QuarantineError]:
    """As `read_images`; what is in color is refused."""
    return [_attempt(path, gray=True) for path in paths]


def read_image(path: Path) -> NDArray[Any]:
    """Pixels of one file.

    Raises:
        QuarantineError: TRUNCATED, UNREADABLE, TOO_LARGE, TOO_SMALL, MULTI_FRAME, UNSUPPORTED_PIXELS.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                _check(image)
                return _pixels(ImageOps.exif_transpose(image))
    except UnidentifiedImageError as error:
        advice = "Copy the file again from its source."
        raise QuarantineError("UNREADABLE", "not a PNG, JPEG, BMP or TIFF image", advice) from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow raises on damaged files
        advice = "Copy the file again from its source."
        cut = "truncated" in str(error).lower() or isinstance(error, EOFError)
        reason = "TRUNCATED" if cut else "UNREADABLE"
        raise QuarantineError(reason, f"{type(error).__name__} while decoding", advice) from error


def color_share(pixels: NDArray[Any]) -> float:
    """Difference of the channels (last axis), summed over the pixels, as a share of their brightest channel."""
    brightest = pixels.max(axis=-1)
    difference = brightest - pixels.min(axis=-1)
    return float(difference.sum(dtype=np.int64) / max(1, brightest.sum(dtype=np.int64)))


def refuse_color(pixels: NDArray[Any]) -> None:
    """Refuse pictures (…, channels) that would lose what their channels tell apart if they were learned as gray.

    Raises:
        QuarantineError: UNSUPPORTED_COLOR.
    """
    share = color_share(pixels)
    if share > COLOR_TOLERANCE:
        found = f"channels that differ by {share:.0%} of their brightness, more than {COLOR_TOLERANCE:.0%}"
        advice = "Convert to gray yourself, or give MR sequences as volumes, with prepare.lesions.sequences."
        raise QuarantineError("UNSUPPORTED_COLOR", found, advice)


def _attempt(path: Path, *, gray: bool = False) -> NDArray[Any] | QuarantineError:
    try:
        pixels = read_image(path)
        if gray and pixels.ndim == 3:
            refuse_color(pixels)
        return pixels
    except QuarantineError as refusal:
        return refusal


def _check(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise QuarantineError("TOO_LARGE", f"{width} x {height} pixels", f"At most {MAX_PIXELS} pixels are read.")
    if min(width, height) < MIN_SIDE_PX:
        raise QuarantineError("TOO_SMALL", f"{width} x {height} pixels", f"At least {MIN_SIDE_PX} a side are needed.")
    if getattr(image, "n_frames", 1) > 1:
        found = f"{getattr(image, 'n_frames', 1)} frames in one file"
        raise QuarantineError("MULTI_FRAME", found, "Store one image a file.")


def _pixels(image: Image.Image) -> NDArray[Any]:
    if image.mode in {"I;16", "I;16B", "I;16L", "I;16N"} or image.mode == "I":
        return _as_uint16(np.asarray(image))
    if image.mode in {"LA", "RGBA", "PA", "P"} or image.has_transparency_data:
        return _without_alpha(np.asarray(image.convert("RGBA")))
    if image.mode in {"1", "L"}:
        return np.asarray(image.convert("L"))
    if image.mode == "RGB":
        return _gray_if_equal(np.asarray(image))
    advice = "Convert to 8- or 16-bit gray or RGB."
    raise QuarantineError("UNSUPPORTED_PIXELS", f"pixels of mode {image.mode}", advice)


def _as_uint16(values: NDArray[Any]) -> NDArray[np.uint16]:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > np.iinfo(np.uint16).max:
        found = f"pixel values from {low} to {high}"
        raise QuarantineError("UNSUPPORTED_PIXELS", found, "Convert to 8- or 16-bit gray or RGB.")
    return values.astype(np.uint16)


def _without_alpha(pixels: NDArray[Any]) -> NDArray[Any]:
    if int(pixels[..., 3].min()) < np.iinfo(np.uint8).max:
        raise QuarantineError("UNSUPPORTED_PIXELS", "transparent pixels", "Store the image without transparency.")
    return _gray_if_equal(pixels[..., :3])


def _gray_if_equal(pixels: NDArray[Any]) -> NDArray[Any]:
    first = pixels[..., 0]
    equal = np.array_equal(first, pixels[..., 1]) and np.array_equal(first, pixels[..., 2])
    return np.ascontiguousarray(first if equal else pixels)
