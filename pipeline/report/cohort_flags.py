"""Rules that compare a series with its kind: same modality, sequence and body part in the same ingest.

A kind of fewer than `LEAST_SERIES` series has no habit to break.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.report.quality_flags import MEANINGS, Flag, Meaning

LEAST_SERIES = 5
MODE_SHARE = 0.5
SPACING_TOLERANCE = 0.2
COVERAGE_TOLERANCE = 0.35
HISTOGRAM_FACTOR, HISTOGRAM_LEAST = 5.0, 0.06


@dataclass(frozen=True)
class Member:
    """What the comparison knows of a series.

    Attributes:
        series_id: pseudonym.
        kind: modality, sequence, body part.
        spacing_mm: along right, anterior, superior, however the axes are stored.
        extent_mm: field of view along the same.
        quantiles: scaled intensities inside the body (`quality_measures.QUANTILE_LEVELS`).
    """

    series_id: str
    kind: tuple[str | None, ...]
    spacing_mm: tuple[float, float, float]
    extent_mm: tuple[float, float, float]
    quantiles: tuple[float, ...]


def cohort_flags(members: Sequence[Member]) -> dict[str, list[Flag]]:
    """Flags by series id."""
    kinds: dict[tuple[str | None, ...], list[Member]] = defaultdict(list)
    for member in members:
        kinds[member.kind].append(member)
    found: dict[str, list[Flag]] = defaultdict(list)
    for group in kinds.values():
        if len(group) >= LEAST_SERIES:
            for rule in (outlier_spacing, outlier_coverage, outlier_histogram):
                for series_id, flag in rule(group).items():
                    found[series_id].append(flag)
    return dict(found)


def outlier_spacing(group: Sequence[Member]) -> dict[str, Flag]:
    """Series whose voxel size differs from the one that most of the kind share."""
    rounded = Counter(tuple(round(side, 2) for side in member.spacing_mm) for member in group)
    usual, count = max(rounded.items(), key=lambda item: (item[1], item[0]))
    if count < MODE_SHARE * len(group):
        return {}
    flags = {}
    for member in group:
        off = max(abs(own / side - 1) for own, side in zip(member.spacing_mm, usual, strict=True))
        if off > SPACING_TOLERANCE:
            text = (
                f"{_sides(member.spacing_mm)} mm (R, A, S); {count} of {len(group)} of its kind have {_sides(usual)} mm"
            )
            flags[member.series_id] = Flag(code="OUTLIER_SPACING", found=text)
    return flags


def outlier_coverage(group: Sequence[Member]) -> dict[str, Flag]:
    """Series whose field of view is much smaller than the median of the kind along a patient axis."""
    usual = np.median([member.extent_mm for member in group], axis=0)
    flags = {}
    for member in group:
        shares = np.asarray(member.extent_mm) / usual
        axis = int(np.argmin(shares))
        if shares[axis] < 1 - COVERAGE_TOLERANCE:
            name = ("right to left", "anterior to posterior", "superior to inferior")[axis]
            text = f"{member.extent_mm[axis]:.0f} mm {name}, median of its kind {usual[axis]:.0f} mm"
            flags[member.series_id] = Flag(code="OUTLIER_COVERAGE", found=text)
    return flags


def outlier_histogram(group: Sequence[Member]) -> dict[str, Flag]:
    """Series whose body intensities are distributed unlike those of the kind.

    The distance is the mean absolute difference of scaled quantiles from the kind's median quantiles, which is the
    first Wasserstein distance of the two distributions (Villani, Optimal Transport, 2009, remark 6.6).
    """
    quantiles = np.asarray([member.quantiles for member in group])
    distances = np.abs(quantiles - np.median(quantiles, axis=0)).mean(axis=1)
    usual = float(np.median(distances))
    limit = max(HISTOGRAM_LEAST, HISTOGRAM_FACTOR * usual)
    return {
        member.series_id: Flag(
            code="OUTLIER_HISTOGRAM", found=f"distance {distance:.2f}, median of its kind {usual:.2f}"
        )
        for member, distance in zip(group, distances, strict=True)
        if distance > limit
    }


def _sides(spacing: Sequence[float]) -> str:
    return " × ".join(f"{side:.3g}" for side in spacing)


_RECORDED: Mapping[str, Meaning] = {
    "TILT_CORRECTED": Meaning(
        1, "set by ingest", "The gantry was tilted; slices were shifted so that the grid is straight."
    ),
    "NON_FINITE_REPLACED": Meaning(2, "set by ingest", "Voxels that held no number were replaced."),
    "FORM_CONFLICT": Meaning(
        3, "set by ingest", "The two orientations in the NIfTI header differ; the settings chose one."
    ),
    "DEFACED": Meaning(1, "set by ingest", "The face was blanked on request."),
    "FACE_OUT_OF_VIEW": Meaning(1, "set by ingest", "Defacing was asked for; the face lies outside the field of view."),
    "BURNED_IN_TEXT": Meaning(3, "set by ingest", "Text in the pixels; it may name the patient."),
    "DERIVED": Meaning(1, "set by ingest", "The image type says DERIVED: computed from other images."),
    "LOSSY": Meaning(1, "set by ingest", "The pixels were compressed with loss."),
    "TRAILING_BYTES": Meaning(1, "set by ingest", "The file goes on after the voxels."),
    "MASK_THRESHOLDED": Meaning(
        1, "set by ingest", "A segmentation of fractions: voxels from half of its maximum on are lesion."
    ),
    "LOOK_ALIKE": Meaning(
        3,
        "set by ingest's search for copies",
        "Another series has the same or nearly the same pixels: one patient under two names, or a copy.",
    ),
}
_COMPARED: Mapping[str, Meaning] = {
    "OUTLIER_SPACING": Meaning(
        2,
        f"a voxel side differs by over {SPACING_TOLERANCE:.0%} from the size that at least {MODE_SHARE:.0%} of its "
        "kind share",
        "Another protocol, a resampled copy, or a wrong header.",
    ),
    "OUTLIER_COVERAGE": Meaning(
        2,
        f"field of view under {1 - COVERAGE_TOLERANCE:.0%} of its kind's median along a patient axis",
        "A cut field of view, or slices that are missing at an end.",
    ),
    "OUTLIER_HISTOGRAM": Meaning(
        2,
        f"distribution of body intensities over {HISTOGRAM_FACTOR:g} × as far from its kind's median as usual, and "
        f"over {HISTOGRAM_LEAST:g}",
        "Another contrast under the same name, contrast agent, metal, another body region.",
    ),
}
ALL_MEANINGS: Mapping[str, Meaning] = {**MEANINGS, **_COMPARED, **_RECORDED}
"""Meaning of every flag that is known."""


def meaning(code: str) -> Meaning:
    """Meaning of a flag; ingest may set flags that this page does not know yet."""
    return ALL_MEANINGS.get(code, Meaning(1, "set by ingest", "See the documentation of ingest."))
