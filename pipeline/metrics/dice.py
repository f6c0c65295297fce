"""Overlap and surface distance of structures: Dice and the 95th percentile of the Hausdorff distance.

    Dice = 2 |A ∩ B| / (|A| + |B|)
    HD95 = max(P95{d(a, ∂B): a ∈ ∂A}, P95{d(b, ∂A): b ∈ ∂B}), distances between surface voxels in mm

Dice, Ecology 26:297, 1945; percentile form of Huttenlocher et al., IEEE TPAMI 15:850, 1993. A structure that the
reference does not hold has no score: it is None with the reason, never 0 and never perfect.

Without any network, structures come from HU: bone, soft tissue, air inside the body, and the body itself. With a
segmenter of the user's, they come from its label maps of CT and pseudo-CT (SynthRAD2025: TotalSegmentator).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.errors import InputError
from pipeline.metrics.mae import TISSUES_HU
from pipeline.metrics.pairs import Volume, checked_mask

Mask = npt.NDArray[Any]


@dataclass(frozen=True)
class StructureOverlap:
    """Agreement on one structure.

    Args:
        dice: in [0, 1], None when the reference lacks the structure.
        hd95_mm: in mm, None when reference or prediction lack the structure.
        reference_voxels: size of the structure in the reference.
        reason: why a value is None, empty otherwise.
    """

    dice: float | None
    hd95_mm: float | None
    reference_voxels: int
    reason: str


def structure_overlap(reference: Mask, prediction: Mask, spacing_mm: tuple[float, ...]) -> StructureOverlap:
    """Dice and HD95 of two masks.

    Args:
        reference: bool mask, 2-D or 3-D; axes of one voxel do not count as surface.
        prediction: same shape.
        spacing_mm: voxel size along every axis.

    Raises:
        InputError: shapes or the number of spacings differ.
    """
    truth, guess = np.asarray(reference) > 0, np.asarray(prediction) > 0
    if truth.shape != guess.shape or len(spacing_mm) != truth.ndim:
        raise InputError(
            "Overlap is taken between masks on one grid.",
            found=f"reference {truth.shape}, prediction {guess.shape}, spacing {spacing_mm}",
            allowed="equal shapes and one spacing for each axis",
            change="Bring both masks onto the grid of the reference.",
        )
    voxels = int(truth.sum())
    if not voxels:
        return StructureOverlap(None, None, 0, "absent in the reference")
    if not guess.any():
        return StructureOverlap(0.0, None, voxels, "absent in the prediction")
    dice = 2 * int((truth & guess).sum()) / (voxels + int(guess.sum()))
    return StructureOverlap(dice, _hd95(truth, guess, spacing_mm), voxels, "")


def overlap_by_tissue(
    ct: Volume, pseudo_ct: Volume, mask: Volume | None, spacing_mm: tuple[float, ...]
) -> dict[str, StructureOverlap]:
    """Overlap of bone (> 250 HU), soft tissue and air (< -200 HU), each taken inside the mask in both images.

    Raises:
        InputError: shapes differ, or the mask is empty.
    """
    inside = checked_mask(ct, pseudo_ct, mask)
    truth, guess = (_tissues(np.asarray(image), inside) for image in (ct, pseudo_ct))
    return {tissue: structure_overlap(truth[tissue], guess[tissue], spacing_mm) for tissue in truth}


def overlap_by_label(
    reference: Mask, prediction: Mask, spacing_mm: tuple[float, ...], names: Mapping[int, str]
) -> dict[str, StructureOverlap]:
    """Overlap of every named structure of two label maps, for example a segmenter's of CT and pseudo-CT.

    Args:
        reference: labels of the CT, whole numbers, 0 is background.
        prediction: labels of the pseudo-CT, same shape.
        spacing_mm: voxel size along every axis.
        names: label to name; labels without a name are not scored.

    Raises:
        InputError: shapes or the number of spacings differ, or a label is not a whole number.
    """
    maps = [np.asarray(labels) for labels in (reference, prediction)]
    if not all(np.isfinite(labels).all() and (labels == np.rint(labels)).all() for labels in maps):
        raise InputError(
            "A label map holds whole numbers.",
            found="fractions or values that are not finite",
            allowed="0 for background and a whole number for each structure",
            change="Resample label maps with nearest neighbor, and give labels, not probabilities.",
        )
    return {
        name: structure_overlap(maps[0] == label, maps[1] == label, spacing_mm) for label, name in sorted(names.items())
    }


def mean_overlap(overlaps: Mapping[str, StructureOverlap]) -> tuple[float | None, float | None, tuple[str, ...]]:
    """Mean Dice and mean HD95 in mm over the structures that have one, and the structures left out of either.

    Both are None where no structure can be scored: public scorers print Dice 0 and HD95 0 there, worst and best.
    """
    dice = [found.dice for found in overlaps.values() if found.dice is not None]
    hd95 = [found.hd95_mm for found in overlaps.values() if found.hd95_mm is not None]
    left_out = tuple(f"{name}: {found.reason}" for name, found in overlaps.items() if found.reason)
    return (float(np.mean(dice)) if dice else None, float(np.mean(hd95)) if hd95 else None, left_out)


def _tissues(hu: Volume, inside: Mask) -> dict[str, Mask]:
    bone, air = hu > TISSUES_HU["bone"][0], hu < TISSUES_HU["air"][1]
    return {"bone": bone & inside, "soft_tissue": ~bone & ~air & inside, "air": air & inside}


def _hd95(truth: Mask, guess: Mask, spacing_mm: tuple[float, ...]) -> float:
    """HD95 on the part of the grid that holds both structures."""
    axes = tuple(axis for axis, edge in enumerate(truth.shape) if edge == 1)
    spacing = [size for axis, size in enumerate(spacing_mm) if axis not in axes]
    truth, guess = (np.squeeze(mask, axis=axes) for mask in (truth, guess))
    if truth.ndim == 0:
        return 0.0
    box = ndimage.find_objects((truth | guess).astype(np.uint8))[0]
    surfaces = [mask[box] & ~ndimage.binary_erosion(mask[box]) for mask in (truth, guess)]
    far = [
        float(np.percentile(ndimage.distance_transform_edt(~other, sampling=spacing)[own], 95))
        for own, other in (surfaces, surfaces[::-1])
    ]
    return max(far)
