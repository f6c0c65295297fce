"""Stacks of images of one size and type, ``<rows>x<columns>[x<channels>]-<dtype>.npy``, written image by image."""

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray


class StackWriter:
    """Appends images to .npy files in a folder; the files are whole after `close`.

    numpy leaves room in the header for the first axis to grow, so that the header is written again in place.

    Args:
        folder: made when the first image comes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, tuple[BinaryIO, NDArray[Any]]] = {}
        self._counts: dict[str, int] = {}

    def append(self, pixels: NDArray[Any]) -> tuple[str, int]:
        """Append (rows, columns[, channels]); returns the file's name and the image's row in it."""
        name = f"{'x'.join(str(size) for size in pixels.shape)}-{pixels.dtype.name}.npy"
        if name not in self._open:
            self._folder.mkdir(exist_ok=True)
            self._open[name] = ((self._folder / name).open("wb"), np.empty((0, *pixels.shape), pixels.dtype))
            self._counts[name] = 0
            self._write_header(name)
        stream, _ = self._open[name]
        stream.write(np.ascontiguousarray(pixels).tobytes())
        self._counts[name] += 1
        return name, self._counts[name] - 1

    def close(self) -> None:
        """Write the true lengths and close the files; closing twice does nothing."""
        for name, (stream, _) in self._open.items():
            stream.seek(0)
            self._write_header(name)
            stream.close()
        self._open = {}

    def _write_header(self, name: str) -> None:
        stream, like = self._open[name]
        header = npy.header_data_from_array_1_0(like)
        header["shape"] = (self._counts[name], *like.shape[1:])
        npy.write_array_header_1_0(stream, header)
