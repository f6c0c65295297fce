"""Two ways to set a patch into a slice without a seam: Poisson blending and feathering.

Poisson blending (Perez, Gangnet and Blake 2003) keeps the gradients of the patch: the result is g + h with Δh = 0
inside and h = f − g along the rim, where f is the slice and g the patch. A patch that differs from the slice by a
constant or a linear ramp therefore changes nothing. Feathering mixes slice and patch by a weight that falls from 1 to
0, after the patch's background was brought to the level of the slice.
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse
from scipy.sparse import linalg

Plane = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_NEIGHBORS = ((-1, 0), (1, 0), (0, -1), (0, 1))


def poisson_blend(slice_: Plane, patch: Plane, inside: Mask) -> Plane:
    """The slice with the patch's gradients inside; outside it stays as it is.

    Args:
        slice_: (H, W).
        patch: (H, W), g.
        inside: (H, W), true where the patch is set in; nowhere along the outer edge of the arrays.
    """
    count = int(inside.sum())
    result = slice_.copy()
    if not count:
        return result
    number = np.full(inside.shape, -1)
    number[inside] = np.arange(count)
    rows, columns = np.nonzero(inside)
    own = number[inside]
    difference = slice_ - patch
    known = np.zeros(count)
    first, second = [own], [own]
    values = [np.full(count, 4.0)]
    for down, across in _NEIGHBORS:
        other = number[rows + down, columns + across]
        free = other >= 0
        first.append(own[free])
        second.append(other[free])
        values.append(np.full(int(free.sum()), -1.0))
        known[~free] += difference[rows[~free] + down, columns[~free] + across]
    places = (np.concatenate(first), np.concatenate(second))
    laplacian = sparse.csc_array((np.concatenate(values), places), shape=(count, count))
    result[inside] = patch[inside] + linalg.spsolve(laplacian, known)
    return result


def feathered_blend(slice_: Plane, patch: Plane, weight: Plane) -> Plane:
    """The slice mixed with the patch; where the weight is 0 it stays as it is.

    Args:
        slice_: (H, W).
        patch: (H, W); its median where the weight is between 0 and 1 is brought to that of the slice.
        weight: (H, W) in [0, 1].
    """
    rim = (weight > 0) & (weight < 1)
    level = float(np.median(slice_[rim]) - np.median(patch[rim])) if rim.any() else 0.0
    mixed = slice_ + weight * (patch + level - slice_)
    return np.where(weight > 0, mixed, slice_)


def feather_weight(mask: Mask, width_mm: float, pixel_mm: tuple[float, float]) -> Plane:
    """1 inside the mask, falling linearly to 0 at a distance of ``width_mm`` from it; (H, W)."""
    if not mask.any():
        return np.zeros(mask.shape)
    distance = ndimage.distance_transform_edt(~mask, sampling=pixel_mm)
    return np.asarray(np.clip(1 - distance / max(width_mm, 1e-6), 0, 1))
