"""Slices of a volume in three planes, as a radiologist hangs them, with true proportions and letters for the sides.

Axial slices are seen from the feet and coronal ones from the front, so that the patient's right is on the viewer's
left; sagittal ones from the patient's left, anterior on the viewer's left. Slices follow the voxel axes closest to the
patient's (nothing is interpolated between slices); an oblique grid says so by two letters at an edge. Letters name the
direction in which the edge points, like DICOM Patient Orientation (PS3.3 C.7.6.1.1.1), with S and I for head and feet.
"""

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, ConfigDict
from skimage.measure import approximate_polygon, find_contours

from pipeline.geometry import Geometry, to_canonical
from pipeline.report.pictures import Bytes

SIDE_PX = 144
"""Longest side of a thumbnail."""

MAX_BYTES = 6 * 1024
"""Size of a thumbnail's file, at the most."""

_QUALITIES = (70, 50, 30, 15, 5)
_SECOND_LETTER = 0.35
"""Component of a direction from which it gets a letter of its own; sine of 20 degrees."""
_LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))
_MAX_OUTLINES = 12

PLANES: Mapping[str, tuple[int, int, int]] = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}
"""Plane → axis (of right, anterior, superior) across the slice, down its rows, along its columns; rows and columns
run towards lower indices: to posterior, inferior and left."""


class Outline(BaseModel):
    """Outlines of one lesion class in one picture.

    Attributes:
        lesion_class: the class.
        path: SVG path in units of display pixels.
    """

    model_config = ConfigDict(frozen=True)
    lesion_class: str
    path: str


class PlanePicture(BaseModel):
    """One thumbnail.

    Attributes:
        plane: axial, coronal or sagittal.
        note: which slice, in words.
        uri: WebP data URI, grey.
        width, height: pixels.
        left, right, top, bottom: letters at the edges.
        outlines: lesions that the slice cuts.
    """

    model_config = ConfigDict(frozen=True)
    plane: str
    note: str
    uri: str
    width: int
    height: int
    left: str
    right: str
    top: str
    bottom: str
    outlines: tuple[Outline, ...] = ()


def direction_letters(direction: npt.ArrayLike) -> str:
    """Letters of a direction in RAS+, the strongest first; a weaker component counts from 20 degrees on.

    >>> direction_letters([1, 0, 0]), direction_letters([0, -0.8, 0.6])
    ('R', 'PS')
    """
    vector = np.asarray(direction, dtype=np.float64)
    vector = vector / np.linalg.norm(vector)
    strongest = np.argsort(-np.abs(vector), kind="stable")
    kept = [axis for rank, axis in enumerate(strongest) if rank == 0 or abs(vector[axis]) >= _SECOND_LETTER]
    return "".join(_LETTERS[axis][int(vector[axis] > 0)] for axis in kept)


def orientation_code(geometry: Geometry) -> str:
    """Letters of the patient axes that i, j, k run closest to, e.g. ``LPS`` for an axial DICOM series."""
    return "".join(direction_letters(column)[0] for column in geometry.direction.T)


def native_plane(geometry: Geometry) -> tuple[str, float]:
    """Plane that the stored slices (i, j) are closest to, and the angle of their normal to that plane's, degrees."""
    normal = np.cross(geometry.direction[:, 0], geometry.direction[:, 1])
    axis = int(np.argmax(np.abs(normal)))
    cosine = min(1.0, float(np.abs(normal[axis]) / np.linalg.norm(normal)))
    return ("sagittal", "coronal", "axial")[axis], float(np.degrees(np.arccos(cosine)))


def patient_order(voxels: npt.NDArray[Any], geometry: Geometry) -> tuple[npt.NDArray[Any], Geometry]:
    """Voxels and grid with i, j, k closest to right, anterior, superior; a view, nothing is copied."""
    _, _, order = to_canonical(np.zeros(geometry.shape, bool), geometry.affine)
    flips = tuple(axis for axis, backwards in enumerate(order.reversed_axes) if backwards)
    return np.flip(voxels.transpose(order.axes), flips), order.target


def plane_picture(
    plane: str,
    voxels: npt.NDArray[Any],
    geometry: Geometry,
    center: tuple[int, int, int],
    window: tuple[float, float],
    labels: npt.NDArray[Any] | None = None,
    classes: Mapping[int, str] | None = None,
) -> PlanePicture:
    """Thumbnail of the slice through ``center``.

    Args:
        plane: a key of `PLANES`.
        voxels: (i, j, k) in patient order, see `patient_order`.
        geometry: its grid.
        center: index that the slice goes through.
        window: intensities shown black and white.
        labels: label map on the same grid, in patient order.
        classes: lesion class of each label.
    """
    across, down, along = PLANES[plane]
    pixels = np.asarray(_slice(voxels, plane, center[across]), dtype=np.float32)
    width, height = _display_size(geometry, plane)
    low, high = window
    grey = np.rint(np.clip((pixels - low) / ((high - low) or 1.0), 0, 1) * 255).astype(np.uint8)
    outlines = () if labels is None else _outlines(_slice(labels, plane, center[across]), classes or {}, width, height)
    columns, rows = -geometry.direction[:, along], -geometry.direction[:, down]
    return PlanePicture(
        plane=plane,
        note=f"slice {center[across] + 1} of {geometry.shape[across]}",
        uri=webp_uri(_fitted(grey, width, height)),
        width=width,
        height=height,
        left=direction_letters(-columns),
        right=direction_letters(columns),
        top=direction_letters(-rows),
        bottom=direction_letters(rows),
        outlines=outlines,
    )


def webp_uri(pixels: Bytes, most: int = MAX_BYTES) -> str:
    """Data URI of a WebP of grey (H, W) or RGB (H, W, 3) pixels, without metadata, of ``most`` bytes at the most.

    Quality falls until it fits; a picture that still does not fit is shrunk by half.
    """
    image = Image.fromarray(pixels).convert("RGB")
    while True:
        for quality in _QUALITIES:
            stream = io.BytesIO()
            image.save(stream, format="WEBP", quality=quality, method=4)
            if stream.tell() <= most:
                return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
        image = image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.BOX)


def _slice(voxels: npt.NDArray[Any], plane: str, place: int) -> npt.NDArray[Any]:
    """Pixels (rows, columns) of one slice as it hangs."""
    across, down, along = PLANES[plane]
    pixels = np.take(voxels, place, axis=across)
    # The axes left over are in ascending order; rows take the later one.
    return np.flip(pixels.T if down > along else pixels, (0, 1))


def _display_size(geometry: Geometry, plane: str) -> tuple[int, int]:
    """(width, height) with true proportions; all planes of a volume share one scale."""
    sides = [count * side for count, side in zip(geometry.shape, geometry.spacing_mm, strict=True)]
    _, down, along = PLANES[plane]
    scale = SIDE_PX / max(sides)
    return max(1, round(sides[along] * scale)), max(1, round(sides[down] * scale))


def _fitted(grey: Bytes, width: int, height: int) -> Bytes:
    image = Image.fromarray(np.ascontiguousarray(grey))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), dtype=np.uint8)


def _outlines(labels: npt.NDArray[Any], classes: Mapping[int, str], width: int, height: int) -> tuple[Outline, ...]:
    """SVG paths around the labels of each class in one slice."""
    scale = np.array([height / labels.shape[0], width / labels.shape[1]])
    found = []
    for name in sorted({classes[value] for value in np.unique(labels).tolist() if value in classes})[:_MAX_OUTLINES]:
        values = [value for value, own in classes.items() if own == name]
        inside = np.pad(np.isin(labels, values).astype(np.float32), 1)
        paths = [_path((contour - 0.5) * scale) for contour in find_contours(inside, 0.5)]
        found.append(Outline(lesion_class=name, path=" ".join(paths)))
    return tuple(found)


def _path(contour: npt.NDArray[np.float64]) -> str:
    """A closed path of (row, column) points; corners that move it by under half a pixel are left out."""
    points = approximate_polygon(contour, 0.5)
    steps = " ".join(f"{column:.1f},{row:.1f}" for row, column in points)
    return f"M{steps}Z"
