"""Voxels inside the page: each slice predicted, deflated and written as base64, for a script to unpack when shown.

A slice of integers q = round((value − low) / step) is stored as what a median edge detector does not foresee of it: the
prediction of a voxel from its left, upper and upper left neighbors a, b, c is min(a, b) where c ≥ max(a, b), max(a, b)
where c ≤ min(a, b), else a + b − c (Weinberger, Seroussi and Sapiro, LOCO-I, IEEE Trans. Image Process. 9(8), 2000).
Residuals are taken modulo 2¹⁶ and folded to small numbers (0, −1, 1, −2 … to 0, 1, 2, 3 …); all their low bytes, then
all their high bytes are deflated (RFC 1950). With step 1 whole numbers come back exactly.
"""

import base64
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_LEVEL = 7


@dataclass(frozen=True)
class PackedVolume:
    """A volume as text.

    Attributes:
        slices: base64 of each slice, inferior first.
        low: value of the integer 0.
        step: distance of neighboring integers.
    """

    slices: tuple[str, ...]
    low: float
    step: float

    @property
    def size(self) -> int:
        """Characters in the page."""
        return sum(map(len, self.slices))


def packed(volume: npt.NDArray[np.integer], step: int = 1) -> PackedVolume:
    """Pack integers (K, H, W) that span less than 2¹⁶ steps, rounded to multiples of ``step`` above the lowest."""
    low = int(volume.min()) if volume.size else 0
    return PackedVolume(tuple(_pack(_steps(plane, low, step)) for plane in volume), low, step)


def _steps(plane: npt.NDArray[np.integer], low: int, step: int) -> npt.NDArray[np.int32]:
    return np.asarray((plane.astype(np.int32) - low + step // 2) // step, np.int32)


def _pack(steps: npt.NDArray[np.int32]) -> str:
    padded = np.pad(steps, ((1, 0), (1, 0)))
    left, upper, corner = padded[1:, :-1], padded[:-1, 1:], padded[:-1, :-1]
    # The detector's three cases are the median of left, upper and left + upper − corner.
    foreseen = np.maximum(np.minimum(left, upper), np.minimum(np.maximum(left, upper), left + upper - corner))
    residual = (steps - foreseen).astype(np.int16)
    folded = ((residual << 1) ^ (residual >> 15)).astype(np.uint16).ravel()
    content = (folded & 0xFF).astype(np.uint8).tobytes() + (folded >> 8).astype(np.uint8).tobytes()
    return base64.b64encode(zlib.compress(content, _LEVEL)).decode("ascii")
