"""One MR of a prepared set as translation takes it: voxels on disk, where answers are wanted, and the CT's map."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.body_mask import BODY_MARGIN_PX, dilate_in_plane
from pipeline.domain_card import slice_spacing
from pipeline.inference import SourceVolume
from pipeline.intensity import PiecewiseLinearMap, from_int16
from pipeline.prepared_set import VolumeSet

AIR = {"HU": -1000, "grey": 0}
"""What lies outside the body: the network's word does not count there."""


@dataclass(frozen=True)
class CaseSource:
    """A case.

    Attributes:
        volume: the MR.
        ct_map: HU or grey levels to units.
        unit: HU or grey.
    """

    volume: SourceVolume
    ct_map: PiecewiseLinearMap
    unit: str

    def back(self, pseudo_ct: npt.NDArray[np.int16]) -> SourceVolume:
        """The pseudo-CT as what is translated back: once for each MR sequence."""
        mr = self.volume
        more = (pseudo_ct,) * len(mr.more)
        return SourceVolume(pseudo_ct, mr.mask, mr.near, self.ct_map.encode, mr.spacing_mm, more)


def case_source(volumes: VolumeSet, row: Mapping[str, Any], scratch: Path | None = None) -> CaseSource:
    """Open a case.

    Args:
        volumes: prepared set.
        row: its MR.
        scratch: folder for the map of where answers are wanted; None keeps it in memory.
    """
    mask = volumes.mask(row)
    near = near_body(mask, scratch)
    knots = volumes.facts["ct_map"]
    ct_map = PiecewiseLinearMap(tuple(knots["knots_hu"]), tuple(knots["knots_unit"]))
    spacing = slice_spacing(volumes.facts)
    first, *more = volumes.channels(row)
    volume = SourceVolume(first, mask, near, from_int16, spacing, tuple(more))
    return CaseSource(volume, ct_map, str(volumes.facts["unit"]))


def near_body(mask: npt.NDArray[np.uint8], scratch: Path | None) -> npt.NDArray[np.bool_]:
    """(K, H, W): the body and a margin around it, where the pseudo-CT is not simply air."""
    if scratch is None:
        return dilate_in_plane(mask, BODY_MARGIN_PX)
    near = np.lib.format.open_memmap(scratch / "near.npy", mode="w+", dtype=np.bool_, shape=mask.shape)
    for index in range(len(mask)):
        near[index] = dilate_in_plane(mask[index : index + 1], BODY_MARGIN_PX)[0]
    return near
