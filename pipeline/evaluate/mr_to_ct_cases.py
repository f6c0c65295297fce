"""Scores of single cases: pseudo-CT and two trivial baselines against the CT on the same prepared grid."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.body_mask import CT_SKIN_HU, ct_body_mask, dilate_in_plane
from pipeline.errors import InputError
from pipeline.metrics import METRICS
from pipeline.metrics.baselines import ConstantCT, IntensityLookup
from pipeline.metrics.dice import overlap_by_tissue, structure_overlap
from pipeline.metrics.mae import error_by_tissue
from pipeline.metrics.pairs import DIALECTS, ValueRange
from pipeline.metrics.wepl import ICRU44_70_KEV, StoppingPowerTable, wepl_difference
from pipeline.prepared_set import VolumeSet, from_slices
from pipeline.results import Cell
from pipeline.settings import EvaluateMRToCTSettings

Volume = npt.NDArray[Any]

AIR = {"HU": -1000, "grey": 0}
BONE_GREY = 250
"""Grey level from which a brain-windowed 8-bit CT counts as bone."""

METHODS = ("pseudo_ct", "intensity_lookup", "mean_ct")
STRUCTURAL = {"synthrad2023": ("ssim",)}
"""Structural similarity by dialect: SSIM in 2023, both variants of MS-SSIM in 2025 and of grey pictures."""

_MOST_FIT_VOXELS = 2_000_000


@dataclass(frozen=True)
class Baselines:
    """The two baselines, fitted on registered training pairs; None where there are none."""

    lookup: IntensityLookup | None
    constant: ConstantCT | None


@dataclass(frozen=True)
class Scoring:
    """How cases are scored.

    Attributes:
        unit: HU or grey.
        value_range: dialect of the clipped metrics.
        spacing_mm: (slices, rows, columns) of the prepared grid; pixels where there is no geometry.
        dilation_px: in-plane dilation of the body outline.
        stopping_power: HU to relative stopping power, for water-equivalent path lengths.
        beams: directions of the beams over half a turn.
        region: the voxels that are compared, in words; None is the dilated body outline on the prepared grid.
    """

    unit: str
    value_range: ValueRange
    spacing_mm: tuple[float, float, float]
    dilation_px: int
    stopping_power: StoppingPowerTable = ICRU44_70_KEV
    beams: int = 18
    region: str | None = None

    @property
    def structural(self) -> tuple[str, ...]:
        """Names of the structural similarities that the dialect has."""
        return STRUCTURAL.get(self.value_range.name, ("ms_ssim", "ms_ssim_coarsest"))


def scoring_for(facts: Mapping[str, Any], settings: EvaluateMRToCTSettings) -> Scoring:
    """Scoring for a prepared set; grey sets are scored in grey levels whatever the dialect."""
    spacing = facts["spacing_mm"] or (1.0, 1.0, 1.0)
    name = settings.dialect if facts["unit"] == "HU" else "grey8"
    return Scoring(
        facts["unit"],
        DIALECTS[name],
        (spacing[2], spacing[1], spacing[0]),
        settings.mask_dilation_px,
        stopping_power_table(settings),
        settings.wepl_directions,
    )


def stopping_power_table(settings: EvaluateMRToCTSettings) -> StoppingPowerTable:
    """The table of the settings, or the generic one of ICRU tissues."""
    if settings.stopping_power is None:
        return ICRU44_70_KEV
    hu, rsp = zip(*settings.stopping_power, strict=True)
    return StoppingPowerTable("settings", tuple(hu), tuple(rsp))


def fit_baselines(volumes: VolumeSet) -> Baselines:
    """Fit the baselines on the body voxels of registered training pairs."""
    pairs = [row for row in volumes.volumes("MR", ["train"]) if row["pair_volume"] >= 0]
    if not pairs:
        return Baselines(None, None)
    stride = max(1, sum(row["slices"] * row["rows"] * row["columns"] for row in pairs) // _MOST_FIT_VOXELS)
    mr_parts, ct_parts = [], []
    for row in pairs:
        inside = volumes.mask(row) > 0
        mr_parts.append(volumes.voxels(row)[inside][::stride])
        ct_parts.append(volumes.voxels(volumes.row(row["pair_volume"]))[inside][::stride])
    mr, ct = np.concatenate(mr_parts), np.concatenate(ct_parts)
    everywhere = np.ones(mr.shape, np.bool_)
    return Baselines(IntensityLookup.fit([mr], [ct], [everywhere]), ConstantCT.fit([ct], [everywhere]))


def predictions(
    volumes: VolumeSet, row: Mapping[str, Any], pseudo_ct_path: Path, baselines: Baselines, unit: str
) -> dict[str, Volume]:
    """What each method makes of one MR, (K, H, W).

    The baselines say air outside the MR's body mask. The pseudo-CT's own margin around it would make them worse: a
    lookup cannot tell the dark air there from dark bone.
    """
    made: dict[str, Volume] = {"pseudo_ct": np.load(pseudo_ct_path, allow_pickle=False)}
    body = volumes.mask(row) > 0
    if baselines.lookup is not None:
        made["intensity_lookup"] = np.where(body, baselines.lookup.predict(volumes.voxels(row), body), AIR[unit])
    if baselines.constant is not None:
        made["mean_ct"] = np.where(body, baselines.constant.hu, AIR[unit])
    return made


def evaluation_mask(volumes: VolumeSet, ct_row: Mapping[str, Any], dilation_px: int) -> npt.NDArray[np.bool_]:
    """Outline of the CT's body, dilated in plane by a disk (SynthRAD2025: radius 10 pixels)."""
    return dilate_in_plane(volumes.mask(ct_row), dilation_px)


def score(ct: Volume, predicted: Volume, mask: npt.NDArray[np.bool_], scoring: Scoring) -> dict[str, Cell]:
    """Every score of one prediction (K, H, W) against its CT."""
    cells: dict[str, Cell] = {
        name: _finite_or_none(METRICS[name].compute(ct, predicted, mask, scoring.value_range))
        for name in ("mae", "mean_error", "psnr")
    }
    cells |= {name: _structural_or_none(name, ct, predicted, mask, scoring) for name in scoring.structural}
    cells["voxels"] = int(mask.sum())
    if scoring.unit == "grey":
        bone = structure_overlap((ct >= BONE_GREY) & mask, (predicted >= BONE_GREY) & mask, scoring.spacing_mm)
        return cells | {"dice_bone": bone.dice, "hd95_bone": bone.hd95_mm}
    for tissue, error in error_by_tissue(ct, predicted, mask).items():
        cells |= {
            f"mae_{tissue}": error.mae,
            f"mean_error_{tissue}": error.mean_error,
            f"voxels_{tissue}": error.voxels,
        }
    overlaps = overlap_by_tissue(ct, predicted, mask, scoring.spacing_mm)
    bodies = [_body(image, scoring) for image in (ct, predicted)]
    overlaps["body"] = structure_overlap(bodies[0], bodies[1], scoring.spacing_mm)
    cavities = [body & (image < CT_SKIN_HU) & mask for body, image in zip(bodies, (ct, predicted), strict=True)]
    overlaps["air_cavities"] = structure_overlap(cavities[0], cavities[1], scoring.spacing_mm)
    for structure, overlap in overlaps.items():
        cells |= {f"dice_{structure}": overlap.dice, f"hd95_{structure}": overlap.hd95_mm}
    return cells | _wepl_cells(ct, predicted, mask, scoring)


def _body(hu: Volume, scoring: Scoring) -> Volume:
    """Body outline of a CT or pseudo-CT (K, H, W), as (K, H, W)."""
    slices, rows, columns = scoring.spacing_mm
    return ct_body_mask(np.asarray(hu).transpose(2, 1, 0), (columns, rows, slices)).transpose(2, 1, 0)


def _wepl_cells(ct: Volume, predicted: Volume, mask: npt.NDArray[np.bool_], scoring: Scoring) -> dict[str, Cell]:
    """ΔWEPL in mm over beams in axial slices; None where no beam crosses 10 mm of body."""
    angles = tuple(180 * number / scoring.beams for number in range(scoring.beams))
    volumes = [from_slices(image) for image in (ct, predicted, mask)]
    slices, rows, columns = scoring.spacing_mm
    try:
        found = wepl_difference(
            volumes[0],
            volumes[1],
            volumes[2],
            (columns, rows, slices),
            angles_deg=angles,
            table=scoring.stopping_power,
        )
    except InputError:
        return dict.fromkeys(("wepl_mean_abs", "wepl_p95_abs", "wepl_mean"))
    return {
        "wepl_mean_abs": found.mean_abs_mm,
        "wepl_p95_abs": found.p95_abs_mm,
        "wepl_mean": found.mean_mm,
        "wepl_ct_mean": found.ct_mean_mm,
    }


def _finite_or_none(value: float) -> float | None:
    """None for the PSNR of equal images, which is infinite."""
    return value if math.isfinite(value) else None


def _structural_or_none(
    name: str, ct: Volume, predicted: Volume, mask: npt.NDArray[np.bool_], scoring: Scoring
) -> float | None:
    """SSIM or MS-SSIM, or None where the body is too small for the window or the coarsest scale."""
    x, y, inside = (np.moveaxis(image, 0, -1) for image in (ct, predicted, mask))
    try:
        return METRICS[name].compute(x, y, inside, scoring.value_range)
    except InputError:
        return None
