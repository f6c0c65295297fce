"""Outline of the body in CT and MR: everything inside the skin, air cavities and bone included.

Both masks work slice by slice along the last axis (axial in canonical RAS+ orientation) and then keep connected parts
in 3-D, so that a single slice of shape (i, j, 1) is as good an input as a volume.

- CT: HU > -350 separates skin from air. A thin sheet beside the body (couch, head holder) is taken away by an opening
  that is wider than the sheet; chest wall and limbs are thicker.
- MR: cortical bone is as dark as air, so that a threshold between the two main classes (Otsu) cuts the skull away and
  often the scalp with it. Here the threshold lies just above the noise of the background, measured in the corners of
  the slices; the dark ring between scalp and brain is then filled because the scalp closes around it.

Morphology uses Euclidean distances in mm, so that voxels need not be square.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.errors import InputError

Mask = npt.NDArray[np.bool_]
Volume = npt.NDArray[Any]
Spacing = tuple[float, float, float]

CT_SKIN_HU = -350.0
"""Threshold between air and skin: near the middle between air (-1000) and fat or soft tissue (-100 to 50), shifted up
because foam and clothes reach -500."""

SHEET_HALF_THICKNESS_MM = 3.0
"""Sheets of up to twice this thickness are cut off before holes are filled."""

COUCH_HALF_THICKNESS_MM = 6.0
"""Filled structures of up to twice this thickness are cut off after holes were filled."""

SMALLEST_BODY_RADIUS_MM = 15.0
"""A part beside the largest one is kept as a limb only when a circle of this radius fits into it."""

SMALLEST_PART = 0.05
"""A part beside the largest one is kept only when it has this share of the largest one's voxels."""

MR_CLOSING_MM = 8.0
"""Gaps of up to twice this width in the bright scalp are closed."""

MR_NOISE_DEVIATIONS = 4.0
"""Threshold above the mean background in standard deviations; for Rayleigh noise 0.05 % of the air exceeds it."""

MR_THRESHOLD_BOUNDS = (0.04, 0.15)
"""The noise threshold is kept between these shares of the 99th percentile: the lower bound serves backgrounds that are
exactly zero, the upper one series whose corners hold anatomy."""

CORNER_SHARE = 0.08
"""Side of the corner blocks in which the background is measured, as a share of the slice."""

BODY_MARGIN_PX = 3
"""A method's word on CT counts up to this many pixels beyond the MR's body mask, whose edge is uncertain."""


def ct_body_mask(hu: Volume, spacing_mm: Spacing) -> Mask:
    """Body outline of a CT without couch and head holder.

    Args:
        hu: (i, j, k) Hounsfield units; slices along the last axis.
        spacing_mm: voxel size along i, j, k.

    Returns:
        (i, j, k) bool; all false when nothing is denser than -350 HU.

    Raises:
        InputError: `hu` is not a volume, or a spacing is not positive.
    """
    _check(hu, spacing_mm)
    dense = np.asarray(hu) > CT_SKIN_HU
    body = _fill(_solid_parts(_open(dense, SHEET_HALF_THICKNESS_MM, spacing_mm), spacing_mm))
    body = _solid_parts(_open(body, COUCH_HALF_THICKNESS_MM, spacing_mm), spacing_mm)
    # The openings round off corners by up to a voxel or two; one voxel of dense neighbors gives the skin back.
    rim = ndimage.binary_dilation(body, structure=np.ones((3, 3, 1), bool)) & dense
    return _fill(body | rim)


def mr_body_mask(mr: Volume, spacing_mm: Spacing) -> Mask:
    """Body outline of an MR series; skull, sinuses and other dark parts inside the skin belong to it.

    Args:
        mr: (i, j, k) intensities, not negative; slices along the last axis.
        spacing_mm: voxel size along i, j, k.

    Returns:
        (i, j, k) bool; all false when the series is constant.

    Raises:
        InputError: `mr` is not a volume, or a spacing is not positive.
    """
    _check(mr, spacing_mm)
    signal = np.asarray(mr, dtype=np.float32) > mr_noise_threshold(mr)
    # Single voxels of noise would grow into bridges when gaps are closed: take them out first.
    signal = ndimage.median_filter(signal.astype(np.uint8), size=(3, 3, 1)).astype(bool)
    outline = _fill(_close(signal, MR_CLOSING_MM, spacing_mm))
    return _solid_parts(_open(outline, SHEET_HALF_THICKNESS_MM, spacing_mm), spacing_mm)


def dilate_in_plane(mask: npt.NDArray[Any], radius_px: float) -> npt.NDArray[np.bool_]:
    """Grow a mask of slices (K, H, W) by a disk of ``radius_px`` pixels, slice by slice; empty slices stay empty.

    By distance, which is much faster than a large structuring element.
    """
    inside = np.asarray(mask) > 0
    if radius_px == 0:
        return inside
    return np.stack([ndimage.distance_transform_edt(~plane) <= radius_px if plane.any() else plane for plane in inside])


def mr_noise_threshold(mr: Volume) -> float:
    """Intensity just above the background noise of an MR series.

    mean + 4 standard deviations of the two darkest of the four corner columns, kept within `MR_THRESHOLD_BOUNDS` times
    the 99th percentile of the series. Magnitude noise in air follows a Rayleigh distribution (Gudbjartsson and Patz,
    Magn Reson Med 34:910, 1995), for which the threshold is 3.87 sigma.

    Args:
        mr: (i, j, k) intensities.
    """
    voxels = np.asarray(mr, dtype=np.float32)
    rows, columns = (max(2, round(CORNER_SHARE * edge)) for edge in voxels.shape[:2])
    corners = [
        voxels[part_i, part_j]
        for part_i in (slice(None, rows), slice(-rows, None))
        for part_j in (slice(None, columns), slice(-columns, None))
    ]
    air = np.concatenate([corner.ravel() for corner in sorted(corners, key=lambda corner: float(corner.mean()))[:2]])
    brightest = float(np.percentile(voxels, 99))
    low, high = (share * brightest for share in MR_THRESHOLD_BOUNDS)
    return float(np.clip(air.mean() + MR_NOISE_DEVIATIONS * air.std(), low, high))


def _check(voxels: Volume, spacing_mm: Spacing) -> None:
    if np.ndim(voxels) == 3 and len(spacing_mm) == 3 and min(spacing_mm) > 0:
        return
    raise InputError(
        "A body mask needs a volume and its voxel size.",
        found=f"array of shape {np.shape(voxels)}, spacing {spacing_mm}",
        allowed="shape (i, j, k), a single slice as (i, j, 1); three positive spacings in mm",
        change="Add the missing axis, or correct the spacing.",
    )


def _slicewise_distance(mask: Mask, spacing_mm: Spacing) -> npt.NDArray[np.float64]:
    """In-plane distance in mm from each voxel to the nearest one outside the mask; beyond the array counts as mask."""
    distance = np.full(mask.shape, np.inf)
    for k in range(mask.shape[2]):
        if not mask[:, :, k].all():
            distance[:, :, k] = ndimage.distance_transform_edt(mask[:, :, k], sampling=spacing_mm[:2])
    return distance


def _radius(radius_mm: float, spacing_mm: Spacing) -> float:
    """At least one voxel, so that an operation is never empty on coarse grids."""
    return max(radius_mm, *spacing_mm[:2])


def _erode(mask: Mask, radius_mm: float, spacing_mm: Spacing) -> Mask:
    return _slicewise_distance(mask, spacing_mm) > _radius(radius_mm, spacing_mm)


def _dilate(mask: Mask, radius_mm: float, spacing_mm: Spacing) -> Mask:
    return ~(_slicewise_distance(~mask, spacing_mm) > _radius(radius_mm, spacing_mm))


def _open(mask: Mask, radius_mm: float, spacing_mm: Spacing) -> Mask:
    return _dilate(_erode(mask, radius_mm, spacing_mm), radius_mm, spacing_mm) & mask


def _close(mask: Mask, radius_mm: float, spacing_mm: Spacing) -> Mask:
    return _erode(_dilate(mask, radius_mm, spacing_mm), radius_mm, spacing_mm) | mask


def _fill(mask: Mask) -> Mask:
    """Fill holes slice by slice: a cavity that is open to the front only further up or down is still inside."""
    filled = np.empty_like(mask)
    for k in range(mask.shape[2]):
        filled[:, :, k] = ndimage.binary_fill_holes(mask[:, :, k])
    return filled


def _solid_parts(mask: Mask, spacing_mm: Spacing) -> Mask:
    """The largest connected part, and others that are large and thick enough to be limbs."""
    parts, count = ndimage.label(mask)
    if count <= 1:
        return mask
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    radii = ndimage.maximum(_slicewise_distance(mask, spacing_mm), parts, index=np.arange(count + 1))
    kept = (sizes >= SMALLEST_PART * sizes.max()) & (np.asarray(radii) >= SMALLEST_BODY_RADIUS_MM)
    kept[int(sizes.argmax())] = True
    kept[0] = False
    return np.asarray(kept[parts], dtype=np.bool_)
