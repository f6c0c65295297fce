"""Whether the MR and the CT of a game without pairs show the same kinds of things.

Discriminators compare distributions. Where one side shows more of something (a body part, lesions, large bodies, the
lower end of a field of view), the generators win by making it up on the other side, or by taking it away (Cohen,
Luck, Honari, MICCAI 2018, "Distribution matching losses can hallucinate features in medical image translation"). What
the two sides are drawn from is compared before the game starts, slice by slice as they are drawn:

    labels    total variation    ½ Σ_c |p_c − q_c|           body part; lesion classes of the subject
    numbers   Kolmogorov         max_x |F(x) − G(x)|         area of the body; distance from the body's upper end

Both are 0 for equal shares and 1 where nothing is shared. Outlines of MR and CT of one subject differ, so that areas of
the MR are multiplied by whatever factor within `OUTLINES` leaves the smallest distance. A distance above the limit is a
mismatch. Numbers of a few subjects differ by chance: they may also differ by what scans that are shuffled between both
sides exceed once in a hundred times, up to `CHANCE_CAP`. Bone and air are not compared, since MR does not tell them
apart.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.domain_card import ScanFacts, slice_spacing
from pipeline.errors import InputError
from pipeline.prepared_set import VolumeSet
from pipeline.settings import TrainMRToCTSettings
from pipeline.train.alarms import Finding

CHANCE_CAP = 0.6
"""Scans of a few subjects that differ by more are a mismatch, whatever chance could do."""

OUTLINES = 1.2
"""Factor by which areas may differ without meaning anything: MR of real heads measured up to 1.14 times their CT."""

_CHANCE_LEVEL, _SHUFFLES, _EDGES = 0.99, 500, 256
_FACTORS = tuple(float(factor) for factor in np.geomspace(1 / OUTLINES, OUTLINES, 17))
_LABELED = 0.5
"""Share of slices whose label must be known on each side before labels are compared."""

_SHOWN = 4
_HEALTHY = "no lesion"
_ADVICE = {
    "body part": "Set prepare.mr_to_ct.body_parts to what both sides have, or add scans of the side that has fewer.",
    "lesions": "Leave out subjects with lesions on the side that has more of them, or add some on the other.",
    "area of the body in a slice": "Use scans of like subjects and body parts on both sides.",
    "distance of slices from the body's upper end": "Use scans of one field of view, or leave out what one side lacks.",
}


@dataclass(frozen=True)
class Comparison:
    """One kind of thing on both sides.

    Attributes:
        what: that was compared.
        distance: of both sides, in [0, 1].
        allowed: largest distance that is no mismatch.
        mr, ct: what each side shows, in words.
    """

    what: str
    distance: float
    allowed: float
    mr: str
    ct: str

    @property
    def differs(self) -> bool:
        """Whether it is a mismatch."""
        return self.distance > self.allowed

    @property
    def found(self) -> str:
        """Both sides and their distance, for people."""
        return f"{self.what}: MR {self.mr}; CT {self.ct}; distance {self.distance:.2f}"

    def finding(self) -> Finding:
        """The mismatch as an alarm."""
        return Finding(
            "domains_differ",
            "",
            self.found,
            f"MR and CT of a game without pairs differ by {self.allowed:.2f} or less",
            f"{_ADVICE[self.what]} The networks may invent, or remove, what one side shows more of.",
        )

    def facts(self) -> dict[str, Any]:
        """For the model's card."""
        numbers = {"distance": round(self.distance, 4), "allowed": round(self.allowed, 4)}
        return {"what": self.what, **numbers, "differs": self.differs, "mr": self.mr, "ct": self.ct}


@dataclass(frozen=True)
class _Side:
    """Slices with body of one modality: rows, and for each the area and height of its slices."""

    rows: list[dict[str, Any]]
    areas: list[npt.NDArray[np.float64]]
    heights: list[npt.NDArray[np.float64]]

    @property
    def slices(self) -> list[int]:
        return [len(areas) for areas in self.areas]


def compare_domains(volumes: VolumeSet, settings: TrainMRToCTSettings) -> tuple[Comparison, ...]:
    """Compare what both sides of the training split are drawn from; nothing where there is no game without pairs.

    Raises:
        InputError: a mismatch where ``domain_mismatch`` is ``refuse``.
    """
    if settings.supervision not in ("unpaired", "mixed") or settings.lambda_adversarial == 0:
        return ()
    mr = _side(volumes, volumes.volumes("MR", ["train"]))
    ct = _side(volumes, [row for row in volumes.volumes("CT", ["train"]) if row["own_grid"]])
    if not sum(mr.slices) or not sum(ct.slices):
        return ()
    found = _compared(mr, ct, settings.domain_mismatch_limit, geometry=slice_spacing(volumes.facts) is not None)
    wrong = [each for each in found if each.differs]
    if wrong and settings.domain_mismatch == "refuse":
        raise InputError(
            "MR and CT that are trained on without pairs must show the same kinds of things.",
            found="; ".join(each.found for each in wrong),
            allowed="distances of at most " + ", ".join(f"{each.allowed:.2f}" for each in wrong),
            change=" ".join(_ADVICE[each.what] for each in wrong)
            + " Or set train.mr_to_ct.domain_mismatch=warn, and look closely at what is made.",
        )
    return found


def _compared(mr: _Side, ct: _Side, limit: float, *, geometry: bool) -> tuple[Comparison, ...]:
    sides = (mr, ct)
    found = [
        _by_label("body part", [[_body_part(row) for row in side.rows] for side in sides], sides, limit),
        _by_label("lesions", _pathology(sides), sides, limit),
        _by_number(
            "area of the body in a slice", mr.areas, ct.areas, "cm²" if geometry else "of the picture", limit, _FACTORS
        ),
    ]
    if geometry:
        found.append(
            _by_number("distance of slices from the body's upper end", mr.heights, ct.heights, "mm", limit),
        )
    return tuple(each for each in found if each is not None)


def _side(volumes: VolumeSet, rows: list[dict[str, Any]]) -> _Side:
    spacing = slice_spacing(volumes.facts)
    side = _Side([], [], [])
    for row in rows:
        pixels = volumes.mask(row).sum(axis=(1, 2), dtype=np.int64)
        filled = np.flatnonzero(pixels)
        if not len(filled):
            continue
        pixel = 1 / (row["rows"] * row["columns"]) if spacing is None else spacing[1] * spacing[2] / 100
        side.rows.append(row)
        side.areas.append(pixels[filled] * pixel)
        side.heights.append((filled[-1] - filled) * (1.0 if spacing is None else spacing[0]))
    return side


def _body_part(row: Mapping[str, Any]) -> str | None:
    return ScanFacts.of(row).body_part


def _pathology(sides: Sequence[_Side]) -> list[list[str | None]]:
    """Lesion classes of each scan's subject; unknown where nobody of that side is known to have any."""
    named = []
    for side in sides:
        known = [row.get("lesion_classes") for row in side.rows]
        annotated = any(known)
        named.append([("+".join(own) or _HEALTHY) if annotated and own is not None else None for own in known])
    return named


def _by_label(
    what: str, labels: Sequence[Sequence[str | None]], sides: Sequence[_Side], limit: float
) -> Comparison | None:
    shares = [_shares(own, side.slices) for own, side in zip(labels, sides, strict=True)]
    if None in shares:
        return None
    mr, ct = (share or {} for share in shares)
    distance = 0.5 * sum(abs(mr.get(name, 0.0) - ct.get(name, 0.0)) for name in {*mr, *ct})
    return Comparison(what, distance, limit, _share_words(mr), _share_words(ct))


def _shares(labels: Sequence[str | None], slices: Sequence[int]) -> dict[str, float] | None:
    """Share of each label among the labeled slices; None where too few are labeled."""
    counts: Counter[str] = Counter()
    for label, count in zip(labels, slices, strict=True):
        if label is not None:
            counts[label] += count
    labeled = counts.total()
    if labeled < max(1, _LABELED * sum(slices)):
        return None
    return {name: count / labeled for name, count in counts.items()}


def _share_words(shares: Mapping[str, float]) -> str:
    largest = sorted(shares.items(), key=lambda item: (-item[1], item[0]))
    words = [f"{share:.0%} {name}" for name, share in largest[:_SHOWN]]
    rest = 1 - sum(share for _, share in largest[:_SHOWN])
    return ", ".join(words + ([f"{rest:.0%} others"] if len(largest) > _SHOWN else []))


def _by_number(
    what: str,
    mr: Sequence[npt.NDArray[np.float64]],
    ct: Sequence[npt.NDArray[np.float64]],
    unit: str,
    limit: float,
    factors: Sequence[float] = (1.0,),
) -> Comparison:
    """Compare numbers; those of the MR times the factor that leaves the smallest distance, shuffled or not."""
    pooled = np.concatenate([*mr, *ct])
    edges = np.unique(np.quantile(pooled, np.linspace(0, 1, _EDGES), method="inverted_cdf"))
    scans, sizes = (*mr, *ct), np.array([len(values) for values in (*mr, *ct)], float)
    belongs = np.zeros((1 + _SHUFFLES, len(scans)))
    belongs[:, : len(mr)] = 1
    belongs[1:] = np.random.default_rng(0).permuted(belongs[1:], axis=1)
    ours, theirs = belongs / (belongs @ sizes)[:, None], (1 - belongs) / ((1 - belongs) @ sizes)[:, None]
    second = theirs @ _counts_below(scans, edges)
    distances = np.min(
        [np.abs(ours @ _counts_below(scans, edges / factor) - second).max(axis=1) for factor in factors], axis=0
    )
    chance = float(np.quantile(distances[1:], _CHANCE_LEVEL))
    allowed = max(limit, min(chance, CHANCE_CAP))
    return Comparison(what, float(distances[0]), allowed, _number_words(mr, unit), _number_words(ct, unit))


def _counts_below(scans: Sequence[npt.NDArray[np.float64]], edges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Numbers of each scan that lie at or below each edge (scans, edges)."""
    return np.stack([np.searchsorted(np.sort(values), edges, side="right") for values in scans]).astype(np.float64)


def _number_words(values: Sequence[npt.NDArray[np.float64]], unit: str) -> str:
    low, middle, high = np.quantile(np.concatenate(values), (0.05, 0.5, 0.95))
    return f"{middle:.3g} {unit} ({low:.3g} to {high:.3g})"
