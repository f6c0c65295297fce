"""One case of the MR-to-CT track as voxels that the page's script shows slice by slice, within a given size.

The page holds volumes cut to the body's box, and the same windows and error colors as the still pictures. Where a case
would take more room than it is given, values are rounded to coarser steps, then neighboring voxels are averaged in
plane; the page says which.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.report.packed_slices import PackedVolume, packed
from pipeline.report.pictures import DIVERGING_STOPS, Window

Voxels = npt.NDArray[Any]
Box = tuple[int, int, int, int]

MR_STEP = 128
"""Rounding of an MR in unit × 16384: 256 grey levels from −1 to 1."""


@dataclass(frozen=True)
class MapScale:
    """How a map of a pseudo-CT is shown.

    Attributes:
        white: what is shown as white, in stored values; 0 is black.
        per_unit: stored values of one unit.
        digits: decimals read out.
        unit: e.g. HU; empty for grey levels.
    """

    white: float
    per_unit: float
    digits: int
    unit: str

    @property
    def words(self) -> str:
        """Scale of the pictures."""
        return f"black 0 to white {self.white / self.per_unit:g}{f' {self.unit}' if self.unit else ''}"


MAP_SCALES: Mapping[str, Mapping[str, MapScale]] = {
    "HU": {"uncertainty": MapScale(300, 1, 0, "HU"), "cycle_residual": MapScale(500, 1000, 3, "MR units")},
    "grey": {"uncertainty": MapScale(64, 1, 0, ""), "cycle_residual": MapScale(500, 1000, 3, "MR units")},
}
"""Scales by unit of the CT and key of the volume."""

COARSER = ((1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (2, 4), (4, 2), (4, 4), (8, 4))
"""(voxels averaged along each side, rounding step) from the finest to the coarsest that is tried."""

PRESETS: Mapping[str, tuple[Window, ...]] = {
    "HU": (
        Window("brain", 80, 40),
        Window("soft tissue", 400, 40),
        Window("bone", 2000, 300),
        Window("lung", 1500, -600),
        Window("full", 4095, 1023.5),
    ),
    "grey": (Window("full", 255, 127.5), Window("upper half", 128, 191), Window("lower half", 128, 64)),
}
"""Display windows of the number keys from 1 on, by unit. The full one spans the 12 bits of a CT from −1024 HU."""

_FIRST_PRESET = {"HU": 1, "grey": 0}
_MR_PER_UNIT = 16384
_SAMPLED = 12


@dataclass(frozen=True)
class Place:
    """Where the voxels (slice, row, column) of a case lie.

    Attributes:
        affine: (4, 4) from (column, row, slice) to RAS+ mm; None where it is not known.
        spacing_mm: distance of slices, rows, columns; None without geometry.
    """

    affine: npt.NDArray[np.float64] | None
    spacing_mm: tuple[float, float, float] | None

    @classmethod
    def of_display(
        cls, affine: Sequence[float] | None, shape: Sequence[int], spacing_mm: tuple[float, float, float] | None
    ) -> "Place":
        """From the affine of a canonical grid (i, j, k) whose display slices have (K, H, W) = ``shape``.

        Display slices run right to left and anterior to posterior: i = W − 1 − column, j = H − 1 − row, k = slice.
        """
        if affine is None:
            return cls(None, spacing_mm)
        turn = np.diag([-1.0, -1.0, 1.0, 1.0])
        turn[:2, 3] = shape[2] - 1, shape[1] - 1
        return cls(np.asarray(affine, dtype=np.float64).reshape(4, 4) @ turn, spacing_mm)

    def cut(self, box: Box, factor: int) -> "Place":
        """The same place in voxels of ``factor`` × ``factor`` old ones of a box."""
        spacing = self.spacing_mm
        coarse = None if spacing is None else (spacing[0], spacing[1] * factor, spacing[2] * factor)
        if self.affine is None:
            return Place(None, coarse)
        middle = (factor - 1) / 2
        turn = np.diag([factor, factor, 1.0, 1.0])
        turn[:2, 3] = box[2] + middle, box[0] + middle
        return Place(self.affine @ turn, coarse)


@dataclass(frozen=True)
class Volume:
    """One volume of a viewer.

    Attributes:
        key: mr, pseudo_ct, ct, uncertainty or cycle_residual.
        title: heading.
        packed: its slices.
    """

    key: str
    title: str
    packed: PackedVolume


@dataclass(frozen=True)
class SliceViewer:
    """A case that can be scrolled through.

    Attributes:
        volumes: what is stored; the error is computed in the page.
        shape: slices, rows, columns stored.
        place: where they lie.
        oriented: sides of the patient are known.
        unit: HU or grey.
        error_limit: end of the error colors.
        factor, step: what was averaged and rounded, see `COARSER`.
    """

    volumes: tuple[Volume, ...]
    shape: tuple[int, int, int]
    place: Place
    oriented: bool
    unit: str
    error_limit: float
    factor: int
    step: int

    @property
    def maps(self) -> dict[str, MapScale]:
        """Scales of the maps that are there."""
        keys = {volume.key for volume in self.volumes}
        return {key: scale for key, scale in MAP_SCALES[self.unit].items() if key in keys}

    @property
    def windows(self) -> tuple[Window, ...]:
        """Windows of the number keys, from 1 on."""
        return PRESETS[self.unit]

    @property
    def panels(self) -> tuple[tuple[str, str], ...]:
        """(key, title) of what is shown side by side, the error after the CT."""
        shown = [(volume.key, volume.title) for volume in self.volumes]
        keys = [key for key, _ in shown]
        if "ct" in keys:
            shown.insert(keys.index("ct") + 1, ("error", "Error: pseudo-CT − CT"))
        return tuple(shown)

    @property
    def size(self) -> int:
        """Characters in the page."""
        return sum(volume.packed.size for volume in self.volumes)

    @property
    def facts(self) -> str:
        """What the script needs, as JSON."""
        affine = self.place.affine
        return json.dumps(
            {
                "shape": self.shape,
                "affine": None if affine is None else np.round(affine[:3], 4).tolist(),
                "spacing": self.place.spacing_mm,
                "oriented": self.oriented,
                "unit": self.unit,
                "volumes": {volume.key: [volume.packed.low, volume.packed.step] for volume in self.volumes},
                "windows": [[window.width, window.level] for window in self.windows],
                "window": _FIRST_PRESET[self.unit],
                "mr_per_unit": _MR_PER_UNIT,
                "stops": DIVERGING_STOPS,
                "error_limit": self.error_limit,
                "maps": {key: asdict(scale) for key, scale in self.maps.items()},
            },
            separators=(",", ":"),
        )


def slice_viewer(
    volumes: Mapping[str, tuple[str, Voxels]],
    box: Box,
    place: Place,
    *,
    unit: str,
    oriented: bool,
    error_limit: float,
    room: int,
) -> SliceViewer:
    """Pack a case into at most about ``room`` characters.

    Args:
        volumes: title and voxels (K, H, W) by key: mr in unit × 16384; pseudo_ct, ct, uncertainty in ``unit``;
            cycle_residual in thousandths of an MR unit.
        box: first and end row, first and end column of the body.
        place: of the whole volumes.
        unit: HU or grey.
        oriented: sides of the patient are known.
        error_limit: end of the error colors.
        room: characters; where even the coarsest form takes more, that one is taken.
    """
    cut = {key: voxels[:, box[0] : box[1], box[2] : box[3]] for key, (_, voxels) in volumes.items()}
    factor, step = next((tried for tried in COARSER if _estimate(cut, *tried) <= room), COARSER[-1])
    coarse = {key: averaged(voxels, factor) for key, voxels in cut.items()}
    slices, rows, columns = next(iter(coarse.values())).shape
    return SliceViewer(
        tuple(Volume(key, volumes[key][0], packed(coarse[key], _step_of(key, step))) for key in volumes),
        (slices, rows, columns),
        place.cut(box, factor),
        oriented,
        unit,
        error_limit,
        factor,
        step,
    )


def averaged(voxels: Voxels, factor: int) -> npt.NDArray[np.int32]:
    """Rounded means over ``factor`` × ``factor`` voxels of each slice; what is left at the far edges is dropped."""
    whole: npt.NDArray[np.int32] = np.rint(voxels).astype(np.int32)
    factor = min(factor, *whole.shape[1:])
    if factor == 1:
        return whole
    slices, rows, columns = whole.shape[0], whole.shape[1] // factor, whole.shape[2] // factor
    blocks = whole[:, : rows * factor, : columns * factor].reshape(slices, rows, factor, columns, factor)
    means: npt.NDArray[np.int32] = np.rint(blocks.mean(axis=(2, 4))).astype(np.int32)
    return means


def _estimate(cut: Mapping[str, Voxels], factor: int, step: int) -> float:
    """Characters that a case would take, from a dozen of its slices spread evenly."""
    size = 0.0
    for key, voxels in cut.items():
        chosen = np.unique(np.linspace(0, len(voxels) - 1, _SAMPLED).round().astype(int))
        size += packed(averaged(voxels[chosen], factor), _step_of(key, step)).size * len(voxels) / len(chosen)
    return size


def _step_of(key: str, step: int) -> int:
    return MR_STEP * step if key == "mr" else step
