"""A first guess of the CT of an MR without its pair: other patients' CTs as a prior, the MR's intensities as evidence.

For every slice, CT slices of other subjects at about the same height are laid over the body outline (position and
extent, as they are and mirrored, at a few sizes, since the two modalities need not outline the body alike). The best
ones vote for bone, soft tissue and air, pixel by pixel; expectation-maximization (Dempster 1977, with histograms of
the case's own intensities for the three tissues: Van Leemput 1999 is the idea) turns the vote into a posterior, the
atlas slices are ranked again by how well they agree with it, moved a little, and vote again. Where the MR tells bone
from soft tissue, they are then bent onto the posterior, and vote for the last time. The result is no truth, it is a
place to start from: skull and air where they belong, soft tissue as flat as the average of patients is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.errors import InputError
from pipeline.intensity import from_int16
from pipeline.prepared_set import VolumeSet
from pipeline.train.weak_bending import bent_onto
from pipeline.train.weak_values import LevelValues, by_place

Volume = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Known:
    """What is known before any scan is seen, by unit of the CT, of air, soft tissue and bone.

    Attributes:
        limits: upper end of air and lower end of bone; between is soft tissue. Six tissues in HU were no better.
        first: their look in MR: d dark, b bright, o open.
        stays_dark: tissues that are dark in every MR, to the end: others' slices that lie wrong would teach else.
        by_level: tissues whose value goes with the MR level, for partial volumes; that of others goes with the place.
        spread_px: deviation of the point spread that edges between tissues are given; none where bone is one value,
            since what is less is no bone.
        bent_below: atlas slices are bent where the MR's intensities of bone and of soft tissue have less than this in
            common, of 1: heads .06 to .10. In pelves, .21 to .26, marrow is bright and muscle dark: bone would be bent
            onto muscle.
    """

    limits: tuple[float, float]
    first: str
    stays_dark: tuple[int, ...] = ()
    by_level: tuple[int, ...] = ()
    spread_px: float = 0.0
    bent_below: float = 0.0


_KNOWN = {
    "HU": _Known((-300.0, 250.0), first="dbd", stays_dark=(0, 2), by_level=(1, 2), spread_px=0.5, bent_below=0.15),
    # In a brain window fat is as black as air, a scalp may be cut off, and bone is one value.
    "grey": _Known((20.0, 250.0), first="obd"),
}

HEIGHT_WINDOW = 0.12
"""Atlas slices are tried up to this far in relative height."""

SIZES = (0.86, 0.9, 0.94, 0.98, 1.02)
"""Sizes of an atlas slice relative to the outline it is laid over; one is chosen for a whole volume."""

DARKNESS = 0.25
"""Bone gives little signal, soft tissue much: e-folding of the first likelihood of bone in ranks of intensity."""

STAYING_DARK = 0.15
"""The same of what stays dark, as a factor of every later likelihood."""

BENT_BONE = 1.5
"""Factor of the posterior of bone after bending: what is smoothed above is taken from thin bone above all."""

ATLASES = 8
"""CTs that are tried for one MR, the first ones of the set."""

VOTERS, ROUNDS, EM_STEPS, BINS = 10, 3, 5, 32
PRIOR_BLUR_PX, PRIOR_FLOOR, POSTERIOR_BLUR_PX = 1.0, 0.02, 0.7
NUDGES = ((1.0, 0, 1), (1.0, 0, -1), (1.0, 1, 0), (1.0, -1, 0), (1.03, 0, 0), (0.97, 0, 0))
"""Factor of size and shift in pixels that are tried for a voter, again and again while they help."""
_TRIES = 4
_COARSE = 2


@dataclass(frozen=True)
class Atlas:
    """The CT of another subject.

    Attributes:
        ct: (K, H, W) in HU or grey levels.
        mask: (K, H, W) its outline.
    """

    ct: Volume
    mask: Mask


@dataclass(frozen=True)
class _Pose:
    """Where an atlas slice is laid: centers and extents are (row, column) in pixels."""

    atlas: int
    index: int
    mirrored: bool
    scale: tuple[float, float]
    center: tuple[float, float]
    source: tuple[float, float]

    def nudged(self, factor: float, down: float, right: float) -> "_Pose":
        """A pose close by."""
        scale = (self.scale[0] * factor, self.scale[1] * factor)
        center = (self.center[0] + down, self.center[1] + right)
        return _Pose(self.atlas, self.index, self.mirrored, scale, center, self.source)


def weak_labels_of(volumes: VolumeSet) -> dict[int, Volume]:
    """Guess the CT of every training MR from the training CTs of other subjects.

    Raises:
        InputError: an MR with no CT of another subject.
    """
    ct_rows = [row for row in volumes.volumes("CT", ["train"]) if row["own_grid"]]
    unit, guesses = str(volumes.facts["unit"]), {}
    for row in volumes.volumes("MR", ["train"]):
        others = [other for other in ct_rows if other["subject_id"] != row["subject_id"]][:ATLASES]
        if not others:
            raise InputError(
                "Weak labels are made from the CTs of other subjects.",
                found=f"no training CT but that of {row['subject_id']}",
                allowed="CTs of two or more training subjects",
                change="Add CTs, or set train.mr_to_ct.lambda_weak=0.",
            )
        atlases = [
            Atlas(np.asarray(volumes.voxels(other), np.float32), volumes.mask(other).astype(bool)) for other in others
        ]
        guesses[row["volume"]] = weak_ct(from_int16(volumes.voxels(row)), volumes.mask(row).astype(bool), atlases, unit)
    return guesses


def weak_ct(mr_units: Volume, mask: Mask, atlases: Sequence[Atlas], unit: str) -> Volume:
    """Guess the CT of an MR volume.

    Args:
        mr_units: (K, H, W) in [-1, 1].
        mask: (K, H, W) body mask of the MR.
        atlases: CTs of other subjects, at least one.
        unit: HU or grey.

    Returns:
        (K, H, W) in the unit of the atlases: the value of the likeliest tissue; air outside the body.
    """
    guess = _Guess(mr_units, mask, atlases, unit)
    for _ in range(ROUNDS):
        guess.vote()
        guess.rank()
    guess.vote()
    if guess.tells_bone():
        guess.bend()
        guess.vote()
    return guess.values()


class _Guess:
    """State of one volume: poses of each slice, best first, prior and posterior (K, H, W, tissues)."""

    def __init__(self, mr_units: Volume, mask: Mask, atlases: Sequence[Atlas], unit: str) -> None:
        self._bins = np.clip(((mr_units + 1) / 2 * BINS).astype(np.int64), 0, BINS - 1)
        self._mr_units, self._mask, self._atlases, self._known = mr_units, mask.astype(bool), atlases, _KNOWN[unit]
        self._limits = self._known.limits
        self._tissue_count = len(self._limits) + 1
        self._darkness = _darkness_of_bins(self._bins[self._mask])
        self._near = np.stack([ndimage.binary_dilation(plane, iterations=2) for plane in self._mask])
        self._extents = [_extents(atlas.mask) for atlas in atlases]
        own = _extents(self._mask)
        # The first evidence is the same for every scan: by rank of intensity, bone is dark and soft tissue bright.
        self._posterior = _first_likelihood(mr_units, self._mask, self._known.first)
        best: dict[float, list[float]] = {}
        scored: list[list[tuple[float, float, int]]] = []
        poses = [self._candidates(own, k) for k in range(len(mr_units))]
        for k, found in enumerate(poses):
            scored.append(
                sorted(((self._agreement(k, pose), size, n) for n, (size, pose) in enumerate(found)), reverse=True)
            )
            for size in SIZES:
                best.setdefault(size, []).extend([score for score, of, _ in scored[k] if of == size][:1])
        means = {size: float(np.mean(values)) for size, values in best.items() if values}
        chosen = max(means, key=lambda size: means[size], default=1.0)
        self._poses = [[found[n][1] for _, size, n in scored[k] if size == chosen] for k, found in enumerate(poses)]
        self._bent: list[Volume] = []

    def vote(self) -> None:
        """Prior from the best poses, then expectation-maximization over the whole volume."""
        prior = np.full(self._posterior.shape, 1 / self._tissue_count, np.float32)
        for k in range(len(prior)):
            tissues = np.searchsorted(self._limits, self._voters(k), side="right")
            if not len(tissues):
                continue
            votes = np.eye(self._tissue_count, dtype=np.float32)[tissues].mean(axis=0)
            prior[k] = ndimage.gaussian_filter(votes, (PRIOR_BLUR_PX, PRIOR_BLUR_PX, 0))
        prior = np.maximum(prior, PRIOR_FLOOR)
        posterior = prior / prior.sum(axis=-1, keepdims=True)
        for _ in range(EM_STEPS):
            likelihood = self._likelihood(posterior)
            posterior = prior * likelihood[self._bins]
            posterior /= posterior.sum(axis=-1, keepdims=True)
        self._posterior = posterior.astype(np.float32)

    def rank(self) -> None:
        """Sort the poses of each slice by agreement with the posterior, and move the best ones."""
        for k, poses in enumerate(self._poses):
            scored = sorted(((self._agreement(k, pose), n) for n, pose in enumerate(poses)), reverse=True)
            best = [self._climb(k, poses[n], score) for score, n in scored[:VOTERS]]
            self._poses[k] = best + [poses[n] for _, n in scored[VOTERS : 4 * VOTERS]]

    def tells_bone(self) -> bool:
        """Whether the intensities of bone and of soft tissue inside the body have little in common."""
        bins, posterior = self._bins[self._mask], self._posterior[self._mask]
        soft, bone = (
            np.bincount(bins, weights=posterior[:, tissue], minlength=BINS)
            for tissue in (self._tissue_count - 2, self._tissue_count - 1)
        )
        common = np.minimum(soft / max(soft.sum(), 1e-6), bone / max(bone.sum(), 1e-6)).sum()
        return bool(common < self._known.bent_below)

    def bend(self) -> None:
        """Bend the voters onto the posterior."""
        scale = np.linspace(-1, 1, self._tissue_count, dtype=np.float32)
        bent = []
        for k, posterior in enumerate(self._posterior):
            voters = self._voters(k)
            bent.append(bent_onto(posterior @ scale, voters, scale[np.searchsorted(self._limits, voters, "right")]))
        self._bent = bent

    def values(self) -> Volume:
        """Likeliest tissue of each pixel as a CT value, from the voters that have it."""
        smooth = ndimage.gaussian_filter(self._posterior, (0, POSTERIOR_BLUR_PX, POSTERIOR_BLUR_PX, 0))
        if self._bent:
            smooth[..., -1] *= BENT_BONE
        tissue = smooth.argmax(axis=-1)
        everything = np.concatenate([atlas.ct[atlas.mask] for atlas in self._atlases])
        kinds = np.searchsorted(self._limits, everything, side="right")
        parts = [everything[kinds == number] for number in range(self._tissue_count)]
        typical = [float(np.median(part)) if part.size else 0.0 for part in parts]
        lowest = float(min(atlas.ct.min() for atlas in self._atlases))
        result = np.empty(self._mask.shape, np.float32)
        by_level = LevelValues(self._limits, self._known.by_level)
        for k in range(len(result)):
            voters = self._voters(k)
            result[k] = by_place(voters, tissue[k], self._limits, typical)
            by_level.add(voters[:, self._near[k]], tissue[k][self._near[k]], self._mr_units[k][self._near[k]])
        by_level.fill(result, tissue, self._mr_units)
        result = np.where(self._near, result, lowest)
        return ndimage.gaussian_filter(result, (0, self._known.spread_px, self._known.spread_px)).astype(np.float32)

    def _candidates(self, own: Sequence[Any], k: int) -> list[tuple[float, _Pose]]:
        if own[k] is None:
            return []
        height, center, extent = own[k]
        poses = []
        for number, extents in enumerate(self._extents):
            places = sorted((abs(found[0] - height), j, found) for j, found in enumerate(extents) if found is not None)
            near = [place for place in places if place[0] <= HEIGHT_WINDOW] or places[:1]
            for _, j, (_, source, size) in near:
                scale = (extent[0] / size[0], extent[1] / size[1])
                poses += [
                    (factor, _Pose(number, j, mirrored, (scale[0] * factor, scale[1] * factor), center, source))
                    for factor in SIZES
                    for mirrored in (False, True)
                ]
        return poses

    def _voters(self, k: int) -> Volume:
        """CT values of the best atlas slices where they lie, (V, H, W)."""
        if self._bent:
            return self._bent[k]
        laid = [self._laid(pose) for pose in self._poses[k][:VOTERS]]
        return np.stack(laid) if laid else np.empty((0, *self._mask.shape[1:]), np.float32)

    def _laid(self, pose: _Pose, step: int = 1) -> Volume:
        """An atlas slice in its pose, every ``step``-th pixel."""
        plane = self._atlases[pose.atlas].ct[pose.index]
        rows = (np.arange(0, self._mask.shape[1], step) - pose.center[0]) / pose.scale[0] + pose.source[0]
        columns = (np.arange(0, self._mask.shape[2], step) - pose.center[1]) / pose.scale[1]
        columns = pose.source[1] + (-columns if pose.mirrored else columns)
        rows = np.clip(np.rint(rows), 0, plane.shape[0] - 1).astype(np.int64)
        columns = np.clip(np.rint(columns), 0, plane.shape[1] - 1).astype(np.int64)
        return np.asarray(plane[np.ix_(rows, columns)], np.float32)

    def _tissues(self, pose: _Pose, step: int = 1) -> npt.NDArray[np.int64]:
        return np.searchsorted(self._limits, self._laid(pose, step), side="right")

    def _likelihood(self, posterior: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """p(bin | tissue), (bins, tissues), from the volume's own pixels near the body."""
        table = np.empty((BINS, self._tissue_count))
        bins = self._bins[self._near]
        for tissue in range(self._tissue_count):
            counts = np.bincount(bins, weights=posterior[self._near][:, tissue], minlength=BINS)
            smooth = ndimage.gaussian_filter1d(counts, 1.0, mode="nearest") + 1e-3 * counts.sum() / BINS + 1e-6
            if tissue in self._known.stays_dark:
                smooth *= self._darkness
            table[:, tissue] = smooth / smooth.sum()
        return table

    def _agreement(self, k: int, pose: _Pose) -> float:
        tissues, coarse = self._tissues(pose, _COARSE), slice(None, None, _COARSE)
        posterior = self._posterior[k][coarse, coarse]
        near = self._near[k][coarse, coarse]
        chosen = np.take_along_axis(posterior, tissues[..., None], axis=-1)[..., 0]
        return float(np.log(chosen[near] + 0.02).mean())

    def _climb(self, k: int, pose: _Pose, score: float) -> _Pose:
        for _ in range(_TRIES):
            tried = [(self._agreement(k, pose.nudged(*nudge)), n) for n, nudge in enumerate(NUDGES)]
            best, n = max(tried)
            if best <= score:
                break
            score, pose = best, pose.nudged(*NUDGES[n])
        return pose


def _extents(mask: Mask) -> list[tuple[float, tuple[float, float], tuple[float, float]] | None]:
    """Of each slice: height relative to the body in [-1, 1], center, and deviation along rows and columns."""
    filled = np.flatnonzero(mask.any(axis=(1, 2)))
    if not len(filled):
        return [None] * len(mask)
    low, high = int(filled[0]), int(filled[-1])
    found: list[tuple[float, tuple[float, float], tuple[float, float]] | None] = []
    for k, plane in enumerate(mask):
        rows, columns = np.nonzero(plane)
        if len(rows) < 2 or rows.std() == 0 or columns.std() == 0:
            found.append(None)
            continue
        height = (k - (low + high) / 2) / max((high - low) / 2, 0.5)
        center = (float(rows.mean()), float(columns.mean()))
        found.append((height, center, (float(rows.std()), float(columns.std()))))
    return found


def _darkness_of_bins(bins: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(BINS,): 1 for the darkest of these, falling with the rank of a bin's middle."""
    counts = np.bincount(bins, minlength=BINS).astype(np.float64)
    ranks = (np.cumsum(counts) - counts / 2) / max(counts.sum(), 1)
    return np.asarray(np.exp(-ranks / STAYING_DARK))


def _first_likelihood(mr_units: Volume, mask: Mask, known: str) -> npt.NDArray[np.float32]:
    """(K, H, W, tissues), each row sums to 1: by rank of intensity, as far as it is known."""
    inside = np.sort(mr_units[mask])
    rank = np.searchsorted(inside, mr_units) / max(1, len(inside))
    kinds = {
        "o": np.ones_like(rank),
        "b": np.exp(-(1 - rank) / (2 * DARKNESS)) / (2 * DARKNESS),
        "d": np.exp(-rank / DARKNESS) / DARKNESS,
    }
    table = np.stack([kinds[kind] for kind in known], axis=-1)
    return np.asarray(table / table.sum(axis=-1, keepdims=True), np.float32)
