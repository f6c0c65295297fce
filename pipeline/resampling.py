"""Volumes on another grid: interpolation, and the blur that sampling more coarsely needs."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from pipeline.errors import InputError
from pipeline.geometry import Affine, Geometry, Volume, checked_affine

if TYPE_CHECKING:
    import SimpleITK

_INTERPOLATORS = {0: "sitkNearestNeighbor", 1: "sitkLinear", 3: "sitkBSpline"}


def resample(
    array: Volume,
    affine: ArrayLike,
    target: Geometry,
    *,
    order: int = 1,
    fill: float = 0.0,
    antialias: bool = False,
    displacement_mm: Volume | None = None,
) -> Volume:
    """Sample a volume at the voxel centers of another grid.

    Points up to half a voxel beyond the outermost source centers take the edge value, points further out ``fill``.
    With ``antialias`` each axis that is sampled more coarsely by a factor f > 1 is first blurred by a Gaussian of
    variance (f² − 1) / (8 ln 2) source voxels², which matches the point spread functions (Cardoso et al., MICCAI 2015).
    Linear interpolation reproduces linear ramps exactly.

    Args:
        array: (i, j, k) voxels; never changed.
        affine: voxel index → RAS+ mm of ``array``.
        target: the grid to sample on.
        order: 0 nearest (for masks), 1 linear, 3 cubic B-spline.
        fill: value outside, e.g. −1024 for HU.
        antialias: blur before sampling more coarsely; not for order 0.
        displacement_mm: (i, j, k, 3) of the target, RAS+ mm: how far beside each voxel center to sample.

    Returns:
        Array of the target's shape: input dtype for order 0, float64 for float64 input, float32 otherwise.
    """
    import SimpleITK  # a sixth of a second that reading files need not wait for

    source = Geometry(array.shape, checked_affine(affine))
    if order not in _INTERPOLATORS:
        raise InputError(
            "Resampling needs a known interpolation order",
            found=str(order),
            allowed="0 (nearest), 1 (linear), 3 (cubic B-spline)",
            change="choose one of these orders",
        )
    mapping = np.linalg.inv(source.affine) @ target.affine
    if order:
        array = array.astype(np.float64 if array.dtype == np.float64 else np.float32)
    image = SimpleITK.GetImageFromArray(array.astype(np.uint8) if array.dtype == bool else array)
    if antialias and order:
        image = _matched_blur(image, np.abs(mapping[:3, :3]).max(axis=1))
    # SimpleITK counts axes from the last one of the array, hence the reversals.
    transform = SimpleITK.AffineTransform(3)
    transform.SetMatrix(mapping[:3, :3][::-1, ::-1].ravel().tolist())
    transform.SetTranslation(mapping[:3, 3][::-1].tolist())
    sampler = SimpleITK.ResampleImageFilter()
    sampler.SetSize([int(size) for size in target.shape[::-1]])
    if displacement_mm is None:
        sampler.SetTransform(transform)
    else:
        in_voxels = displacement_mm.astype(np.float64) @ np.linalg.inv(target.affine[:3, :3]).T
        beside = SimpleITK.GetImageFromArray(np.ascontiguousarray(in_voxels[..., ::-1]), isVector=True)
        sampler.SetTransform(SimpleITK.CompositeTransform([transform, SimpleITK.DisplacementFieldTransform(beside)]))
    sampler.SetInterpolator(getattr(SimpleITK, _INTERPOLATORS[order]))
    sampler.SetDefaultPixelValue(float(fill))
    return np.asarray(SimpleITK.GetArrayFromImage(sampler.Execute(image))).astype(array.dtype, copy=False)


def _matched_blur(image: "SimpleITK.Image", factors: Affine) -> "SimpleITK.Image":
    """Blur along the axes whose sampling factor is above 1; ``factors`` are in array order."""
    import SimpleITK

    variance = np.maximum(factors**2 - 1.0, 0.0) / (8.0 * math.log(2.0))
    for axis, value in enumerate(variance[::-1]):
        if value > 0 and image.GetSize()[axis] > 1:
            sigma = [0.0, 0.0, 0.0]
            sigma[axis] = float(value)
            image = SimpleITK.DiscreteGaussian(image, sigma, maximumKernelWidth=64, maximumError=[0.005] * 3)
    return image


@contextmanager
def one_thread() -> Iterator[None]:
    """SimpleITK on one thread: sums over several differ in their last digits from run to run.

    Filters inside a filter follow the default alone, and on small planes several threads only wait for each other.
    """
    import SimpleITK

    before = SimpleITK.ProcessObject.GetGlobalDefaultNumberOfThreads()
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
