"""Which CT belongs to an MR, and how it gets onto the MR's grid: as its frame of reference says, or registered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.body_mask import ct_body_mask
from pipeline.catalog import Catalog
from pipeline.geometry import Geometry, geometry_with_spacing, to_canonical
from pipeline.intensity import HU_HIGH, HU_LOW, from_int16
from pipeline.prepare.bend_check import find_bend
from pipeline.prepare.registration import LEVELS_MM, Side, Transform, register
from pipeline.prepare.registration_check import RegistrationCheck, check_registration
from pipeline.prepare.volumes import PreparedVolume, prepare_ct_volume
from pipeline.prepared_set import from_slices
from pipeline.resampling import resample
from pipeline.scan_io import AIR_HU
from pipeline.settings import PrepareMRToCTSettings, RegistrationLimits

REGISTRATIONS_FILE = "registrations.parquet"
_SCHEMA: dict[str, Any] = {
    "mr_series_id": pl.String,
    "ct_series_id": pl.String,
    "subject_id": pl.String,
    "method": pl.String,  # rigid or deformable: what was used
    "same_frame": pl.Boolean,
    "accepted": pl.Boolean,
    "refusal": pl.String,  # why not, with numbers; empty where accepted
    "mr_to_ct_mm": pl.List(pl.Float64),  # 16 numbers, RAS+ mm
    "overlap": pl.Float64,
    "body_dice": pl.Float64,
    "rotation_degrees": pl.Float64,
    "shift_mm": pl.Float64,  # of the middle of the body
    "disagreement_mm": pl.Float64,
    "mirrored_gain": pl.Float64,
    "mutual_information": pl.Float64,  # nats
    "mutual_information_before": pl.Float64,  # null where the frames of reference differ
    "bend_refusal": pl.String,  # why the pair stayed rigid although a bend was asked for; else empty
    "bend_mean_mm": pl.Float64,  # this and the next: null where no bend was tried
    "bend_max_mm": pl.Float64,
    "volume_ratio_min": pl.Float64,
    "volume_ratio_max": pl.Float64,
    "information_gain": pl.Float64,
    "body_dice_gain": pl.Float64,
    "bend_disagreement_mm": pl.Float64,
    "bend_counts": pl.List(pl.Int64),  # control points along the axes of the prepared grid (bend.py)
    "bend_points_mm": pl.List(pl.Float64),  # their displacements, RAS+ mm, the last axis fastest
}
_FEWEST_VOXELS = 4
"""Fewer along an axis hold too little to be registered."""


@dataclass(frozen=True)
class Attempt:
    """One pair that was tried.

    Attributes:
        ct: row of the catalog.
        same_frame: as the MR.
        transform: None where the search ended without one.
        check: its numbers and failures.
        bend_refusal: why a bend was dropped.
    """

    ct: Mapping[str, Any]
    same_frame: bool
    transform: Transform | None
    check: RegistrationCheck
    bend_refusal: str = ""


@dataclass(frozen=True)
class Pairing:
    """Finds the CT of an MR.

    Attributes:
        catalog: where the scans lie.
        settings: ``pair_by``, ``registration`` and its limits.
    """

    catalog: Catalog
    settings: PrepareMRToCTSettings

    def partner(
        self, row: Mapping[str, Any], mr: PreparedVolume, own: Sequence[dict[str, Any]], tried: list[dict[str, Any]]
    ) -> tuple[dict[str, Any], PreparedVolume] | None:
        """The CT of an MR, on the grid of the MR; None where there is none, or no registration can be believed.

        Args:
            row: of the MR.
            mr: as it was prepared.
            own: rows of every CT of its subject.
            tried: a row for each registration that was tried is added.
        """
        grid = mr.grid
        if grid is None:
            return None
        if self.settings.registration == "none":
            for ct in own:
                if self.settings.pair_by == "subject" or same_frame(row, ct):
                    return ct, prepare_ct_volume(self.catalog, ct, self.settings, grid)
            return None
        for ct in sorted(own, key=lambda ct: not same_frame(row, ct)):
            attempt = self._attempt(row, ct, mr, grid)
            tried.append(self._row(row, attempt))
            if attempt.transform is not None and not attempt.check.failures:
                return ct, prepare_ct_volume(self.catalog, ct, self.settings, grid, attempt.transform)
        return None

    def _attempt(
        self, row: Mapping[str, Any], ct_row: Mapping[str, Any], mr: PreparedVolume, grid: Geometry
    ) -> Attempt:
        fixed, moving, same = mr_side(mr, grid), ct_side(self.catalog, ct_row), same_frame(row, ct_row)
        thin = min(*fixed.grid.shape, *moving.grid.shape)
        if thin < _FEWEST_VOXELS:
            return _ended(ct_row, same, f"{thin} voxels along an axis (at least {_FEWEST_VOXELS})")
        try:
            found = register(fixed, moving, same_frame=same)
            check = check_registration(fixed, moving, found, self.settings.registration_limits, same_frame=same)
        except RuntimeError:  # how SimpleITK says that its samples left the image
            return _ended(ct_row, same, "MR and CT were moved apart until nothing overlapped")
        attempt = Attempt(ct_row, same, found, check)
        if self.settings.registration == "rigid" or check.failures:
            return attempt
        return _bent(attempt, fixed, moving, found, self.settings.registration_limits)

    def _row(self, row: Mapping[str, Any], attempt: Attempt) -> dict[str, Any]:
        matrix = None if attempt.transform is None else attempt.transform.rigid.ravel().tolist()
        bend = None if attempt.transform is None else attempt.transform.bend
        return {
            "mr_series_id": row["series_id"],
            "ct_series_id": attempt.ct["series_id"],
            "subject_id": row["subject_id"],
            "method": "rigid" if bend is None else "deformable",
            "same_frame": attempt.same_frame,
            "accepted": not attempt.check.failures,
            "refusal": "; ".join(attempt.check.failures),
            "mr_to_ct_mm": matrix,
            "bend_refusal": attempt.bend_refusal,
            "bend_counts": None if bend is None else list(bend.splines.counts),
            "bend_points_mm": None if bend is None else bend.points.ravel().tolist(),
        } | attempt.check.numbers


@dataclass
class Registrations:
    """What registrations came to.

    Attributes:
        rows: of `REGISTRATIONS_FILE`, in the order in which they were tried.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def refusals(self) -> dict[str, str]:
        """Why MR have no pair although a CT was tried: series of the MR → reason of the last try."""
        accepted = {row["mr_series_id"] for row in self.rows if row["accepted"]}
        return {row["mr_series_id"]: row["refusal"] for row in self.rows if row["mr_series_id"] not in accepted}

    @property
    def kept_rigid(self) -> dict[str, str]:
        """Why pairs stayed rigid although bends were asked for: series of the MR → reason."""
        return {row["mr_series_id"]: row["bend_refusal"] for row in self.rows if row["bend_refusal"]}

    def write(self, folder: Path) -> None:
        """Write `REGISTRATIONS_FILE`."""
        pl.DataFrame(self.rows, schema=_SCHEMA).write_parquet(folder / REGISTRATIONS_FILE)


def mr_side(mr: PreparedVolume, grid: Geometry) -> Side:
    """A prepared MR as a side of a registration: units from −1 up, bias field taken out."""
    return Side((from_slices(from_int16(mr.slices)) + 1.0).astype(np.float32), grid, from_slices(mr.mask) > 0)


def ct_side(catalog: Catalog, row: Mapping[str, Any]) -> Side:
    """A CT as a side of a registration: HU on voxels no finer than the finest level, without its couch."""
    voxels, affine = catalog.volume(row)
    canonical, canonical_affine, _ = to_canonical(voxels, affine)
    own = Geometry(canonical.shape, canonical_affine)
    grid = geometry_with_spacing(own, [max(LEVELS_MM[-1], step) for step in own.spacing_mm])
    hu = resample(canonical.astype(np.float32), canonical_affine, grid, fill=HU_LOW, antialias=True)
    body = ct_body_mask(hu, grid.spacing_mm).astype(bool)
    return Side(np.where(body, np.clip(hu, HU_LOW, HU_HIGH), AIR_HU).astype(np.float32), grid, body)


def same_frame(mr: Mapping[str, Any], ct: Mapping[str, Any]) -> bool:
    """Whether two rows of the catalog lie in one known frame of reference."""
    frame = mr["frame_of_reference_uid"]
    return frame is not None and bool(ct["frame_of_reference_uid"] == frame)


def _bent(attempt: Attempt, mr: Side, ct: Side, rigid: Transform, limits: RegistrationLimits) -> Attempt:
    """The attempt with a bend, or as it was with the reason why not."""
    bend, check = find_bend(mr, ct, rigid.rigid, limits)
    both = RegistrationCheck(attempt.check.numbers | check.numbers, attempt.check.failures)
    found = rigid if check.failures else Transform(rigid.rigid, bend)
    return Attempt(attempt.ct, attempt.same_frame, found, both, "; ".join(check.failures))


def _ended(ct: Mapping[str, Any], same_frame: bool, why: str) -> Attempt:
    return Attempt(ct, same_frame, None, RegistrationCheck({}, (why,)))
