"""Overlap of a segmenter's structures: label maps of CT and pseudo-CT that the user's own program drew.

What a pseudo-CT is for is often to be segmented, and thresholds see bone and air alone. The maps are compared on the
CT's grid, structure by structure; one that the CT's map lacks has no score.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.evaluate.mr_to_ct import mean_cells
from pipeline.metrics.dice import mean_overlap, overlap_by_label
from pipeline.pair_set import PairSet
from pipeline.results import Cell, Column, ResultTable
from pipeline.settings import EvaluateMRToCTSettings

MEAN = "mean over structures"
Row = dict[str, Any]


def segmentation_rows(pairs: PairSet, settings: EvaluateMRToCTSettings) -> list[Row]:
    """One row a case and structure of either map, and one a case for the mean over its structures."""
    rows: list[Row] = []
    for pair in pairs.pairs:
        if not pair["comparable"] or pair["labels_finding"]:
            continue
        maps = [np.asarray(pairs.volume(pair, name)) for name in ("ct_labels", "pseudo_ct_labels")]
        drawn = sorted({int(label) for labels in maps for label in np.unique(labels)} - {0})
        numbers = {label: str(label) for label in drawn}  # two labels may share a name, as left and right do
        overlaps = overlap_by_label(maps[0], maps[1], tuple(pair["spacing_mm"]), numbers)
        place = {"subject_id": pair["subject_id"], "series_id": pair["series_id"]}
        rows += [
            {
                **place,
                "structure": settings.label_names.get(label, f"label {label}"),
                "dice": found.dice,
                "hd95": found.hd95_mm,
                "voxels": found.reference_voxels,
                "finding": found.reason,
            }
            for label, found in zip(drawn, overlaps.values(), strict=True)
        ]
        dice, hd95, left_out = mean_overlap(overlaps)
        finding = f"{len(left_out)} of {len(overlaps)} structures lack a score" if left_out else ""
        rows.append({**place, "structure": MEAN, "dice": dice, "hd95": hd95, "voxels": None, "finding": finding})
    return rows


def segmentation_warnings(pairs: PairSet) -> tuple[str, ...]:
    """Which cases have no two label maps to compare, and why."""
    if not pairs.facts["labels_given"]:
        return ()
    missing = [str(pair["labels_finding"]) for pair in pairs.pairs if pair["comparable"] and pair["labels_finding"]]
    return tuple(
        f"Structures not compared in {missing.count(why)} of {len(pairs.pairs)} pairs: {why}."
        for why in sorted(set(missing))
    )


def segmentation_tables(
    rows: Sequence[Mapping[str, Any]], settings: EvaluateMRToCTSettings, seed: int
) -> tuple[ResultTable, ...]:
    """Means by structure with intervals over subjects, and every case; none without rows."""
    if not rows:
        return ()
    names = list(dict.fromkeys(row["structure"] for row in rows if row["structure"] != MEAN))
    means = tuple(_mean_row(name, rows, settings, seed) for name in (MEAN, *names))
    dice = Column(
        key="dice", title="Dice", definition="2 |A∩B| / (|A| + |B|)", low_key="dice_low", high_key="dice_high"
    )
    hd95 = Column(
        key="hd95",
        title="HD95",
        unit="mm",
        definition="95th percentile of surface distance, the larger of both directions",
        digits=2,
        low_key="hd95_low",
        high_key="hd95_high",
    )
    plain = {"low_key": None, "high_key": None}
    structure = Column(key="structure", title="structure")
    return (
        ResultTable(
            key="mr_to_ct_segmentations",
            title="Structures of the segmenter",
            caption="Label maps of CT and pseudo-CT as given. Means over cases whose CT holds the structure, 95 % "
            "intervals by bootstrap over subjects. How well the segmenter itself finds a structure is not judged.",
            columns=(
                structure,
                Column(key="cases", title="cases", definition="whose CT holds the structure", digits=0),
                Column(key="absent", title="CT without", definition="left out: drawn in the pseudo-CT only", digits=0),
                Column(key="missed", title="missed", definition="absent in the pseudo-CT: Dice 0, no HD95", digits=0),
                dice,
                hd95,
            ),
            rows=means,
        ),
        ResultTable(
            key="mr_to_ct_segmentation_cases",
            title="Structures of the segmenter, every case",
            caption="One row a case and structure.",
            columns=(
                Column(key="subject_id", title="subject"),
                structure,
                Column(key="voxels", title="voxels", definition="in the CT", digits=0),
                dice.model_copy(update=plain),
                hd95.model_copy(update=plain),
                Column(key="finding", title="finding"),
            ),
            rows=tuple(dict(row) for row in rows),
        ),
    )


def _mean_row(
    structure: str, rows: Sequence[Mapping[str, Any]], settings: EvaluateMRToCTSettings, seed: int
) -> dict[str, Cell]:
    own = [row for row in rows if row["structure"] == structure]
    cells: dict[str, Cell] = {
        "structure": structure,
        "cases": sum(row["dice"] is not None for row in own),
        "absent": sum(row["dice"] is None for row in own),
        "missed": sum(row["dice"] == 0 and row["hd95"] is None for row in own),
    }
    for name in ("dice", "hd95"):
        cells |= mean_cells(name, [row for row in own if row[name] is not None], settings, seed)
    return cells
