"""Does a pseudo-CT lie where the MR lies? Judged on headers, before anything is resampled.

Public scorers write the CT's geometry over that of the pseudo-CT, so that an image stored upside down or half a slice
off passes unseen. Here shape, voxel size, orientation, extent and place are compared as stored, and a pseudo-CT that
fails gets no score. A second test looks at the voxels: a header cannot tell that an array was mirrored under it, but an
image that fits its CT better mirrored can.
"""

from dataclasses import dataclass

import nibabel as nib
import numpy as np

from pipeline.geometry import Geometry
from pipeline.metrics.mae import mae
from pipeline.metrics.pairs import Volume

PLACE_TOLERANCE_MM = 0.05
"""Largest distance of equal voxels; NIfTI and DICOM round positions by less."""

SPACING_TOLERANCE_MM = 1e-3

MIRROR_MARGIN = 0.9
"""A mirrored image must have less than this share of the error before it counts as the better fit."""


@dataclass(frozen=True)
class GeometryAgreement:
    """Comparison of two grids.

    Args:
        same_shape: equal numbers of voxels along every axis.
        orientation: letters of the axes of the found grid, e.g. ``LAS``: toward left, anterior, superior.
        expected_orientation: those of the reference.
        spacing_difference_mm: largest difference of a voxel size.
        extent_difference_mm: largest difference of an edge of the volume (voxels × size) along an axis.
        distance_mm: largest distance between equal voxel indices, over the corners of the reference.
        problems: what differs, in words; empty when the grids agree.
    """

    same_shape: bool
    orientation: str
    expected_orientation: str
    spacing_difference_mm: float
    extent_difference_mm: float
    distance_mm: float
    problems: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether the image may be scored voxel by voxel."""
        return not self.problems


def compare_geometry(reference: Geometry, found: Geometry) -> GeometryAgreement:
    """Compare the grid of a pseudo-CT with that of its MR.

    Args:
        reference: grid of the MR.
        found: grid of the pseudo-CT as stored.
    """
    sizes, own = np.array(reference.spacing_mm), np.array(found.spacing_mm)
    spacing = float(np.abs(sizes - own).max())
    extent = float(np.abs(sizes * reference.shape - own * found.shape).max())
    expected, letters = ("".join(nib.aff2axcodes(grid.affine)) for grid in (reference, found))
    distance = reference.distance_mm(found)
    tests = {
        f"{found.shape} voxels, {reference.shape} expected": found.shape != reference.shape,
        f"axes run {letters}, {expected} expected": letters != expected,
        f"voxel sizes differ by {spacing:.4g} mm": spacing > SPACING_TOLERANCE_MM,
        f"extents differ by {extent:.4g} mm": extent > PLACE_TOLERANCE_MM,
        f"equal voxels lie up to {distance:.4g} mm apart": distance > PLACE_TOLERANCE_MM,
    }
    problems = tuple(words for words, differs in tests.items() if differs)
    return GeometryAgreement(found.shape == reference.shape, letters, expected, spacing, extent, distance, problems)


def better_mirrored(ct: Volume, pseudo_ct: Volume, mask: Volume) -> int | None:
    """Axis along which the pseudo-CT must be mirrored to fit the CT better; None when it fits best as it is.

    Error is the MAE inside the mask; better means less than `MIRROR_MARGIN` of the error as stored. Anatomy is nearly
    symmetric from left to right, where a weak pseudo-CT may hide a mirror: None is no proof.

    Args:
        ct: reference in HU, any number of axes.
        pseudo_ct: of the same shape.
        mask: of the same shape, > 0 inside.

    Raises:
        InputError: shapes differ, the mask is empty, or a value is not finite.
    """
    as_stored = mae(ct, pseudo_ct, mask)
    errors = {
        axis: mae(ct, np.flip(pseudo_ct, axis), mask) for axis, edge in enumerate(np.shape(pseudo_ct)) if edge > 1
    }
    axis = min(errors, key=lambda found: errors[found], default=None)
    return axis if axis is not None and errors[axis] < MIRROR_MARGIN * as_stored else None
