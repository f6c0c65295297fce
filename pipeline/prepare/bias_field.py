"""N4 bias field correction of MR volumes (Tustison et al., IEEE TMI 29:1310, 2010), through SimpleITK."""

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from pipeline.settings import N4Settings


def correct_bias(
    mr: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_], settings: N4Settings
) -> npt.NDArray[np.float32]:
    """Divide an MR volume by its estimated bias field.

    Args:
        mr: intensities (i, j, k), ≥ 0.
        mask: body, same shape; the field is estimated inside.
        settings: shrink factor and iterations; ``enabled: false`` returns a copy.

    Returns:
        Corrected intensities, same shape. One thread, so that equal input gives equal output.
    """
    if not settings.enabled or not mask.any():
        return mr.copy()
    if mr.shape[2] == 1:  # the field's splines need an extent along every axis
        return correct_bias(np.repeat(mr, 2, axis=2), np.repeat(mask, 2, axis=2), settings)[:, :, :1]
    image = sitk.GetImageFromArray(mr.transpose(2, 1, 0))
    inside = sitk.GetImageFromArray(mask.transpose(2, 1, 0).astype(np.uint8))
    shrink = [min(settings.shrink, size) for size in (mr.shape[0], mr.shape[1], max(1, mr.shape[2] // 4))]
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetNumberOfThreads(1)
    n4.SetMaximumNumberOfIterations(list(settings.iterations))
    n4.Execute(sitk.Shrink(image, shrink), sitk.Shrink(inside, shrink))
    field = sitk.GetArrayFromImage(sitk.Exp(n4.GetLogBiasFieldAsImage(image))).transpose(2, 1, 0)
    return np.asarray(mr / np.maximum(field, 1e-3), dtype=np.float32)
