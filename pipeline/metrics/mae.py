"""Mean absolute error and mean error of a pseudo-CT in HU, over the body and by tissue.

    MAE = Σ |CT − pCT| · m / Σ m,    ME = Σ (pCT − CT) · m / Σ m,    m = mask > 0, without clipping.

Definition of SynthRAD2023 and SynthRAD2025. Tissues are told apart by the reference CT alone, so that a pseudo-CT
cannot choose where it is scored.
"""

import math
from dataclasses import dataclass

import numpy as np

from pipeline.metrics.pairs import Volume, masked_pair

TISSUES_HU: dict[str, tuple[float, float]] = {
    "bone": (250.0, math.inf),
    "soft_tissue": (-200.0, 250.0),
    "air": (-math.inf, -200.0),
}
"""Tissues by HU of the reference CT. Bone is above 250, air is below -200, the bounds themselves are soft tissue."""


@dataclass(frozen=True)
class TissueError:
    """Errors inside one tissue.

    Args:
        voxels: number of voxels of the tissue inside the mask.
        mae: mean absolute error in HU, None when there is no voxel.
        mean_error: mean of pseudo-CT − CT in HU, None when there is no voxel.
    """

    voxels: int
    mae: float | None
    mean_error: float | None


def mae(ct: Volume, pseudo_ct: Volume, mask: Volume | None) -> float:
    """Mean absolute error in HU inside the mask; arrays of one shape, None takes the whole image.

    Raises:
        InputError: shapes differ, the mask is empty, or a value is not finite.
    """
    reference, prediction = masked_pair(ct, pseudo_ct, mask)
    return float(np.abs(reference - prediction).mean())


def mean_error(ct: Volume, pseudo_ct: Volume, mask: Volume | None) -> float:
    """Mean of pseudo-CT − CT in HU inside the mask: positive when the pseudo-CT is too dense.

    Raises:
        InputError: as `mae`.
    """
    reference, prediction = masked_pair(ct, pseudo_ct, mask)
    return float((prediction - reference).mean())


def error_by_tissue(ct: Volume, pseudo_ct: Volume, mask: Volume | None) -> dict[str, TissueError]:
    """MAE, mean error and voxel count for every tissue of `TISSUES_HU` inside the mask.

    Raises:
        InputError: as `mae`.
    """
    reference, prediction = masked_pair(ct, pseudo_ct, mask)
    difference = prediction - reference
    members = {
        "bone": reference > TISSUES_HU["bone"][0],
        "soft_tissue": (reference >= TISSUES_HU["soft_tissue"][0]) & (reference <= TISSUES_HU["soft_tissue"][1]),
        "air": reference < TISSUES_HU["air"][1],
    }
    return {tissue: _error(difference[inside]) for tissue, inside in members.items()}


def _error(difference: Volume) -> TissueError:
    if not len(difference):
        return TissueError(0, None, None)
    return TissueError(len(difference), float(np.abs(difference).mean()), float(difference.mean()))
