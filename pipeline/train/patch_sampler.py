"""Draws MR and CT patches for translation training from a prepared volume set.

A draw picks a volume in proportion to its slices with body, then a slice, then a patch that holds the body where it
can, and else has its middle in the body. Draw first, cut second; the same generator state gives the same batch.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from models.mr_to_ct.step import MRToCTBatch
from pipeline.errors import InputError
from pipeline.intensity import PiecewiseLinearMap, from_int16
from pipeline.prepared_set import VolumeSet
from pipeline.settings import TrainMRToCTSettings
from pipeline.slice_stacks import BodyFrame, middle_inside, neighbors, window

PAIRED = ("paired", "registered")
"""Supervisions that see nothing but pairs."""

MARGIN = 0.125
"""Share of its side by which a patch may cut off a body that it could hold."""

_STORED_AIR = {"MR": -16384, "CT": -1024}


class PatchSampler:
    """Batches of patches for `models.mr_to_ct.step.MRToCTStep`.

    Args:
        volumes: prepared set; only the rows of ``split`` are read.
        settings: patch, slices, supervision.
        rng: every draw comes from it.
        device: where batches go.
        split: train or validation.
        weak: MR volume → guess of its CT (K, H, W), see `pipeline.train.weak_labels`; batches then hold it.

    Raises:
        InputError: the split lacks MR, CT or, for ``paired``, pairs.
    """

    def __init__(
        self,
        volumes: VolumeSet,
        settings: TrainMRToCTSettings,
        rng: torch.Generator,
        device: torch.device,
        split: Literal["train", "validation"] = "train",
        weak: Mapping[int, npt.NDArray[np.float32]] | None = None,
    ) -> None:
        self._set, self._settings, self._rng, self._device = volumes, settings, rng, device
        self._weak = weak or {}
        knots = volumes.facts["ct_map"]
        self._ct_map = PiecewiseLinearMap(tuple(knots["knots_hu"]), tuple(knots["knots_unit"]))
        self._ct_air = knots["knots_hu"][0]
        mr = volumes.volumes("MR", [split])
        self._paired = _places(volumes, [row for row in mr if row["pair_volume"] >= 0])
        self._mr = _places(volumes, mr)
        self._ct = _places(volumes, [row for row in volumes.volumes("CT", [split]) if row["own_grid"]])
        self._check(split)

    def draw(self, batch_size: int) -> MRToCTBatch:
        """One batch. ``mixed`` draws a pair for every other row, as far as there are pairs."""
        rows = [self._draw_row(number) for number in range(batch_size)]
        mr, mr_mask, ct, ct_mask, paired, weak = zip(*rows, strict=True)

        def tensor(parts: Sequence[npt.NDArray[np.float32]]) -> torch.Tensor:
            return torch.from_numpy(np.stack(parts)).to(self._device)

        pairing = torch.tensor(paired, device=self._device)
        guesses = tensor(weak) if self._weak else None
        return MRToCTBatch(tensor(mr), tensor(ct), tensor(mr_mask), tensor(ct_mask), pairing, guesses)

    def _draw_row(self, number: int) -> tuple[Any, Any, Any, Any, bool, Any]:
        supervision = self._settings.supervision
        wanted = supervision in PAIRED or (supervision == "mixed" and number % 2 == 0)
        as_pair = bool(self._paired) and wanted
        mirrored = self._settings.mirror and float(torch.rand((), generator=self._rng)) < 0.5
        row, index, frame = self._pick(self._paired if as_pair else self._mr)
        top, left = self._corner(frame)
        mr = self._cut(row, frame, index, top, left, mirrored)
        weak = self._cut_weak(row, index, top, left, mirrored)
        if as_pair:
            partner = self._set.row(row["pair_volume"])
            return (*mr, *self._cut(partner, frame, index, top, left, mirrored), True, weak)
        row, index, frame = self._pick(self._ct)
        return (*mr, *self._cut(row, frame, index, *self._corner(frame), mirrored), False, weak)

    def _cut_weak(
        self, row: dict[str, Any], index: int, top: int, left: int, mirrored: bool
    ) -> npt.NDArray[np.float32] | None:
        if not self._weak:
            return None
        side = self._settings.patch_px
        stack = neighbors(index, self._settings.slices, row["slices"])
        units = self._ct_map.encode(window(self._weak[row["volume"]], stack, top, left, side, self._ct_air))
        return units[..., ::-1].copy() if mirrored else units

    def _pick(self, places: list[tuple[dict[str, Any], int, BodyFrame]]) -> tuple[dict[str, Any], int, BodyFrame]:
        row, index, frame = places[int(torch.randint(len(places), (), generator=self._rng))]
        if self._settings.dimensions == 3:
            index = middle_inside(index, self._settings.slices, row["slices"])
        return row, index, frame

    def _corner(self, frame: BodyFrame) -> tuple[int, int]:
        side = self._settings.patch_px
        place = torch.rand(2, generator=self._rng).tolist()
        top, left = (
            _first_pixel(frame.low[axis], frame.high[axis] + 1, side, share)
            for axis, share in zip((1, 2), place, strict=True)
        )
        return top, left

    def _cut(
        self, row: dict[str, Any], frame: BodyFrame, index: int, top: int, left: int, mirrored: bool
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Network input and body mask (k, P, P) of one patch; outside the body CT is air.

        The input is (k + c, P, P), of an MR of s sequences (s k + c, P, P).
        """
        side = self._settings.patch_px
        stack = neighbors(index, self._settings.slices, row["slices"])
        mask = window(self._set.mask(row), stack, top, left, side, 0).astype(np.float32)
        air = _STORED_AIR["MR"] if row["modality"] == "MR" else self._ct_air
        stored = np.concatenate([window(part, stack, top, left, side, air) for part in self._set.channels(row)])
        if row["modality"] == "MR":
            units = from_int16(stored)
        else:
            units = self._ct_map.encode(np.where(mask > 0, stored, self._ct_air))
        parts = [units]
        if self._settings.coordinates:
            parts.append(frame.coordinates(index, np.arange(top, top + side), np.arange(left, left + side)))
        channels = np.concatenate(parts)
        if mirrored:
            channels, mask = channels[..., ::-1].copy(), mask[..., ::-1].copy()
            if self._settings.coordinates:
                channels[-1] *= -1
        return channels, mask

    def central_slices(self, count: int) -> dict[str, npt.NDArray[np.float32]]:
        """Up to ``count`` slices of each modality, evenly over all, cut around the middle of the body.

        Returns:
            MR and CT → (N, P, P) in units.
        """
        side, found = self._settings.patch_px, {}
        for name, places in (
            ("MR", self._paired if self._settings.supervision in PAIRED else self._mr),
            ("CT", self._ct),
        ):
            chosen = [places[int(place)] for place in np.linspace(0, len(places) - 1, min(count, len(places)))]
            slices = []
            for row, index, frame in chosen:
                top, left = (int(frame.low[axis] + frame.high[axis] + 1 - side) // 2 for axis in (1, 2))
                slices.append(self._cut(row, frame, index, top, left, False)[0][self._settings.slices // 2])
            found[name] = np.stack(slices) if slices else np.empty((0, side, side), np.float32)
        return found

    def _check(self, split: str) -> None:
        needs = {"MR volumes": len(self._mr), "CT volumes": len(self._ct)}
        if self._settings.supervision in PAIRED:
            needs = {"registered MR-CT pairs": len(self._paired)}
        missing = [name for name, count in needs.items() if not count]
        if missing:
            raise InputError(
                f"Training with supervision `{self._settings.supervision}` needs data in the {split} split.",
                found=f"no {' and no '.join(missing)}",
                allowed="at least one of each",
                change="Add subjects, use supervision: unpaired, or set prepare.mr_to_ct.pair_by: subject "
                "where you know that MR and CT of a subject are registered.",
            )


def _first_pixel(low: int, end: int, side: int, share: float) -> int:
    """Where a patch begins along an axis on which the body covers [low, end), for a share in [0, 1).

    A patch that can hold the body does, but for `MARGIN`. A smaller one has its middle anywhere in the body: within it
    alone, the skin and the skull below it would be seen more seldom than what they surround.
    """
    if side < end - low:
        return int(low + share * (end - low)) - side // 2
    margin = int(MARGIN * side)
    return end - side - margin + int(share * (low - end + side + 2 * margin + 1))


def _places(volumes: VolumeSet, rows: list[dict[str, Any]]) -> list[tuple[dict[str, Any], int, BodyFrame]]:
    """Every slice with body of the given volumes, with the volume's row and frame."""
    places = []
    for row in rows:
        mask = volumes.mask(row)
        frame = BodyFrame.of(mask)
        places += [(row, int(index), frame) for index in np.flatnonzero(mask.any(axis=(1, 2)))]
    return places
