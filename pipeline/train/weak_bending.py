"""Bends other subjects' CT slices onto the tissues found in an MR: demons with symmetric forces and a smooth field.

Thirion 1998, "Image matching as a diffusion process"; Vercauteren 2009, "Diffeomorphic demons", section 2.2. Both
sides are maps of tissue, never intensities of two modalities. Slices are matched at half resolution: at full
resolution the guess was no better, at four times the time.
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.resampling import one_thread

Plane = npt.NDArray[np.float32]

ITERATIONS, FIELD_SPREAD_PX = 10, 1.4
"""Steps of the demons, and the deviation that smooths the field after each of them, in pixels of the slice."""

_MAP_SPREAD_PX = 0.9
_STEP = 2


def bent_onto(target: Plane, slices: npt.NDArray[np.float32], maps: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Bend each slice so that its map of tissue comes to lie on the target.

    Args:
        target: (H, W) map of tissue in [-1, 1], as far as it is known: the mean of what a pixel may be.
        slices: (V, H, W) CT values.
        maps: (V, H, W) the maps of these slices, on the same scale.

    Returns:
        (V, H, W) CT values, linear between those of a slice.
    """
    coarse, places = _coarse(target), np.indices(target.shape, np.float64)
    bent = np.empty_like(slices)
    with one_thread():
        for plane, moving, result in zip(slices, maps, bent, strict=True):
            origins = places + _displacement(coarse, _coarse(moving), places)
            ndimage.map_coordinates(plane, origins, result, order=1, mode="nearest")
    return bent


def _displacement(target: Plane, moving: Plane, places: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Where each pixel comes from, (2, H, W) pixels along rows and columns, from maps of every second pixel."""
    import SimpleITK  # a sixth of a second that trainings without guesses need not wait for

    demons = SimpleITK.FastSymmetricForcesDemonsRegistrationFilter()
    demons.SetNumberOfIterations(ITERATIONS)
    demons.SetStandardDeviations(FIELD_SPREAD_PX / _STEP)
    field = demons.Execute(SimpleITK.GetImageFromArray(target), SimpleITK.GetImageFromArray(moving))
    columns_rows = SimpleITK.GetArrayViewFromImage(field)
    return np.stack(
        [
            _STEP * ndimage.map_coordinates(columns_rows[..., axis], places / _STEP, order=1, mode="nearest")
            for axis in (1, 0)
        ]
    )


def _coarse(plane: Plane) -> Plane:
    smooth = ndimage.gaussian_filter(np.asarray(plane, np.float32), _MAP_SPREAD_PX)
    return np.ascontiguousarray(smooth[::_STEP, ::_STEP])
