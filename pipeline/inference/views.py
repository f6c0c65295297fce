"""A volume as stacks of pictures in one of three planes, and mirrored.

Pictures across the slices (coronal, sagittal) get rows between the slices by linear interpolation, m for each slice,
where m is the slice distance over the pixel size, rounded: pixels then have nearly the size that networks know, and
every slice lies on a row exactly. Neighbors in a stack lie m pixels apart, as far as slices do.

Coordinates keep their meaning in every plane: height, row and column in the body, see `pipeline.slice_stacks`. In the
mirror image left and right change places, and so do their coordinates.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.inference.windows import Box, padded_box
from pipeline.slice_stacks import BodyFrame
from pipeline.trained_models import TranslatorSettings

Plane = Literal["axial", "coronal", "sagittal"]
AIR = -1.0
_AXES: dict[str, tuple[int, int, int]] = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}
"""Axes of (K, H, W) that pictures follow each other along, that their rows and that their columns run along."""

_LEFT_RIGHT = 2
"""Axis of (K, H, W), and coordinate channel, that runs from the patient's right to the left."""


@dataclass(frozen=True)
class SourceVolume:
    """What is translated; arrays may be memory-mapped, and are read slice by slice.

    Attributes:
        stored: (K, H, W).
        mask: (K, H, W) body mask, the frame of the coordinates.
        near: (K, H, W) bool, where an answer is wanted.
        encode: stored values of any shape to float32 units.
        spacing_mm: (slices, rows, columns); None without geometry.
        more: (K, H, W) each: the second and further sequences, where several are one input.
    """

    stored: npt.NDArray[Any]
    mask: npt.NDArray[np.uint8]
    near: npt.NDArray[np.bool_]
    encode: Callable[[npt.NDArray[Any]], npt.NDArray[np.float32]]
    spacing_mm: tuple[float, float, float] | None = None
    more: tuple[npt.NDArray[Any], ...] = ()


class View:
    """A volume in one plane.

    Args:
        source: the volume.
        plane: how it is cut.

    Attributes:
        depth: pictures.
        shape: rows and columns of a picture.
        rows_per_slice: m; 1 in the axial plane.
        filled: the pictures in which answers are wanted.
    """

    def __init__(self, source: SourceVolume, plane: Plane) -> None:
        self._source, self._axes = source, _AXES[plane]
        self.rows_per_slice = 1
        if plane != "axial" and source.spacing_mm is not None:
            self.rows_per_slice = max(1, round(source.spacing_mm[0] / source.spacing_mm[2]))
        sizes = [source.stored.shape[axis] for axis in self._axes]
        self.depth, self.shape = sizes[0], ((sizes[1] - 1) * self.rows_per_slice + 1, sizes[2])
        self._frame = BodyFrame.of(source.mask)
        self._touched = [np.zeros(size, bool) for size in self.shape]
        self.filled: list[int] = []
        for index in range(self.depth):
            wanted = self.wanted(index)
            self._touched = [line | wanted.any(axis=1 - axis) for axis, line in enumerate(self._touched)]
            if wanted.any():
                self.filled.append(index)

    def wanted(self, index: int) -> npt.NDArray[np.bool_]:
        """Pixels (H, W) of a picture where an answer is wanted; rows between two slices follow either."""
        here = np.asarray(self.place(self._source.near, index))
        if self.rows_per_slice == 1:
            return here
        lower, upper, _ = self._between()
        return np.asarray(here[lower] | here[upper])

    def body(self, margin_px: int) -> Box:
        """Box of the pixels that are wanted in any picture, grown by a margin within the picture; all without any."""
        box: list[int] = []
        for line, size in zip(self._touched, self.shape, strict=True):
            found = np.flatnonzero(line)
            first, end = (int(found[0]), int(found[-1]) + 1) if len(found) else (0, size)
            box += [max(0, first - margin_px), min(size, end + margin_px)]
        return box[0], box[1], box[2], box[3]

    def stack(self, index: int, settings: TranslatorSettings, box: Box, *, mirrored: bool) -> npt.NDArray[np.float32]:
        """What a network is shown of a picture, cut to a box; air beyond the picture.

        (k + c, rows, columns), of s sequences (s k + c, rows, columns).
        """
        places = np.arange(settings.slices) - settings.slices // 2
        steps = np.clip(index + self.rows_per_slice * places, 0, self.depth - 1)
        sequences = (self._source.stored, *self._source.more)
        pictures = [self.place(volume, int(step)) for volume in sequences for step in steps]
        units = [self._interpolated(self._source.encode(picture)) for picture in pictures]
        shown = padded_box(np.stack(units), box, AIR)
        if settings.coordinates:
            shown = np.concatenate([shown, self._coordinates(index, box)])
        return self._mirror(shown, settings) if mirrored else shown

    def inside(self, wanted: npt.NDArray[np.bool_], box: Box, *, mirrored: bool) -> npt.NDArray[np.bool_]:
        """Wanted pixels of a picture, cut to a box as `stack` cuts it."""
        cut = padded_box(wanted, box, 0)
        return cut[:, ::-1] if mirrored and self._axes[0] != _LEFT_RIGHT else cut

    def restore(self, picture: npt.NDArray[np.float32], box: Box, *, mirrored: bool) -> npt.NDArray[np.float32]:
        """Answers in a box, at the slices of the volume: (rows, columns) of the volume's axes, 0 beyond the box."""
        if mirrored and self._axes[0] != _LEFT_RIGHT:
            picture = picture[:, ::-1]
        top, left = box[0], box[2]
        rows, columns = self.shape
        whole = padded_box(picture, (-top, rows - top, -left, columns - left), 0.0)
        return np.asarray(whole[:: self.rows_per_slice])

    def place(self, volume: npt.NDArray[Any], index: int) -> npt.NDArray[Any]:
        """The picture of a volume (K, H, W) that an answer belongs to, as a view that can be written."""
        moved: npt.NDArray[Any] = np.moveaxis(volume, self._axes[0], 0)[index]
        return moved

    def _mirror(self, shown: npt.NDArray[np.float32], settings: TranslatorSettings) -> npt.NDArray[np.float32]:
        """The same of the mirrored patient: pictures turned over, or sagittal ones in reverse order."""
        across, images = self._axes[0] == _LEFT_RIGHT, settings.mr_channels
        if across:
            stacks = [shown[first : first + settings.slices][::-1] for first in range(0, images, settings.slices)]
            mirrored = np.concatenate([*stacks, shown[images:]])
        else:
            mirrored = np.ascontiguousarray(shown[..., ::-1])
        if settings.coordinates:
            mirrored[images + _LEFT_RIGHT] *= -1
        return mirrored

    def _between(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """For each row the slices below and above it, and the share of the upper one."""
        place = np.arange(self.shape[0])
        lower = place // self.rows_per_slice
        share = (place % self.rows_per_slice) / self.rows_per_slice
        return lower, np.minimum(lower + 1, self._source.stored.shape[0] - 1), share.astype(np.float32)

    def _interpolated(self, picture: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if self.rows_per_slice == 1:
            return picture
        lower, upper, share = self._between()
        return np.asarray(picture[lower] * (1 - share[:, None]) + picture[upper] * share[:, None], dtype=np.float32)

    def _coordinates(self, index: int, box: Box) -> npt.NDArray[np.float32]:
        """Channels of height, row and column in the body (3, rows, columns), which go on beyond the picture."""
        places = (
            np.asarray(index),
            np.arange(box[0], box[1])[:, None] / self.rows_per_slice,
            np.arange(box[2], box[3])[None, :],
        )
        channels = np.empty((3, box[1] - box[0], box[3] - box[2]), np.float32)
        for axis, place in zip(self._axes, places, strict=True):
            channels[axis] = self._frame.relative(axis, place)
        return channels
