"""Read a lesion mask and bring it onto the grid of its image; runs in the parsing process.

A mask may list the voxels of the image in another order (axes swapped or flipped); it is reordered exactly. A mask on
any other grid is refused: resampling would move its border.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import QuarantineError
from pipeline.geometry import Geometry
from pipeline.scan_io import read_image

GRID_TOLERANCE_MM = 1e-3
"""Largest distance between a mask voxel and its image voxel."""


@dataclass(frozen=True)
class MaskTask:
    """A mask and the images it may belong to: (shape, affine as 16 numbers) each."""

    path: Path
    grids: tuple[tuple[tuple[int, ...], tuple[float, ...]], ...]


@dataclass(frozen=True)
class AlignedMask:
    """A mask on the grid of image number ``grid`` of the task; ``voxels`` int16."""

    grid: int
    voxels: NDArray[np.int16]


def read_mask(task: MaskTask) -> AlignedMask:
    """The mask on the grid of the one image that it fits.

    Raises:
        QuarantineError: MASK_GRID_MISMATCH, AMBIGUOUS_REFERENCE, MASK_NOT_INTEGER, and what `read_image` raises.
    """
    mask = read_image(task.path)
    if mask.voxels.dtype != np.int16:
        found = f"mask values of type {mask.voxels.dtype}"
        raise QuarantineError("MASK_NOT_INTEGER", found, "Save lesion numbers from 1 to 32767.")
    grids = [Geometry(shape, np.reshape(affine, (4, 4))) for shape, affine in task.grids]
    aligned = [reordered(mask.voxels, mask.geometry, grid) for grid in grids]
    fitting = [(index, voxels) for index, voxels in enumerate(aligned) if voxels is not None]
    if len(fitting) == 1:
        index, voxels = fitting[0]
        return AlignedMask(index, np.ascontiguousarray(voxels))
    if fitting:
        found = f"{len(fitting)} series with the grid of the mask"
        raise QuarantineError("AMBIGUOUS_REFERENCE", found, "Let image_path name one series, e.g. one of its files.")
    found = f"a mask of {mask.geometry.shape} voxels of {_rounded(mask.geometry)} mm; " + " or ".join(
        f"an image of {grid.shape} voxels of {_rounded(grid)} mm" for grid in grids
    )
    raise QuarantineError("MASK_GRID_MISMATCH", found, "Draw or resample the mask on the grid of the image.")


def reordered(voxels: NDArray[np.int16], geometry: Geometry, target: Geometry) -> NDArray[np.int16] | None:
    """``voxels`` in the order of ``target``, or None where the grids differ by more than the order of voxels.

    With A the affine of the mask and B that of the target, B⁻¹A must be a signed permutation of axes.
    """
    steps = np.linalg.solve(target.affine[:3, :3], geometry.affine[:3, :3])
    rounded = np.rint(steps).astype(int)
    is_permutation = np.array_equal(np.abs(rounded).sum(axis=0), [1, 1, 1]) and np.array_equal(
        np.abs(rounded).sum(axis=1), [1, 1, 1]
    )
    if not is_permutation:
        return None
    order = np.argmax(np.abs(rounded), axis=1)  # axis of the mask that runs along each axis of the target
    result = voxels.transpose(order)
    affine = geometry.affine.copy()
    affine[:3, :3] = geometry.affine[:3, order]
    for axis in range(3):
        if rounded[axis, order[axis]] < 0:
            result = np.flip(result, axis)
            affine[:3, 3] += affine[:3, axis] * (result.shape[axis] - 1)
            affine[:3, axis] *= -1
    return result if Geometry(result.shape, affine).matches(target, GRID_TOLERANCE_MM) else None


def _rounded(geometry: Geometry) -> str:
    return " x ".join(f"{size:.4g}" for size in geometry.spacing_mm)
