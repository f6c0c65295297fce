"""Tables of pseudo-CT against CT: means over cases, every case, overlap of structures."""

from typing import Any

from pipeline.evaluate.mr_to_ct_cases import Scoring
from pipeline.results import Cell, Column, ResultTable

TITLES = {
    "pseudo_ct": "pseudo-CT",
    "intensity_lookup": "baseline: best intensity lookup",
    "mean_ct": "baseline: one value (median CT)",
}
STRUCTURES = {
    "bone": "bone (> 250 HU; on 8-bit pictures grey ≥ 250)",
    "soft_tissue": "soft tissue (−200 to 250 HU)",
    "air": "air inside the mask (< −200 HU)",
    "air_cavities": "air cavities inside the body outline (< −350 HU)",
    "body": "body outline",
}

_Definitions = dict[str, tuple[str, str, str, int]]


def score_names(scoring: Scoring) -> tuple[str, ...]:
    """Keys of the scores that are averaged over cases."""
    return (*_definitions(scoring), *_overlap_definitions())


def _definitions(scoring: Scoring) -> _Definitions:
    """Key to title, unit, definition and digits."""
    unit, dialect = scoring.unit, scoring.value_range.name
    span = f"[{scoring.value_range.low:g}, {scoring.value_range.high:g}]"
    found: _Definitions = {
        "mae": ("MAE", unit, f"mean |CT − pseudo-CT| {_mask_words(scoring)}, no clipping", 1),
        "mean_error": ("mean error", unit, "mean of pseudo-CT − CT, same voxels", 1),
        "psnr": (
            "PSNR",
            "dB",
            f"dialect {dialect}: both clipped to {span}, masked voxels only; none for equal images",
            2,
        ),
    }
    if "ssim" in scoring.structural:
        words = f"dialect {dialect}: window 7³, sample covariance, rim of 3 voxels dropped, mean over the mask"
        found["ssim"] = ("SSIM", "", words, 3)
    else:
        shipped = f"dialect {dialect}, 5 scales, luminance at every scale, as SynthRAD2025 ships it"
        found["ms_ssim"] = ("MS-SSIM", "", shipped, 3)
        found["ms_ssim_coarsest"] = ("MS-SSIM coarsest", "", "luminance at the coarsest scale alone, as published", 3)
    if unit == "HU":
        found |= {
            "mae_bone": ("MAE bone", "HU", "voxels above 250 HU in the CT", 1),
            "mae_soft_tissue": ("MAE soft tissue", "HU", "voxels from −200 to 250 HU in the CT", 1),
            "mae_air": ("MAE air", "HU", "voxels below −200 HU in the CT", 1),
        }
    found["dice_bone"] = ("Dice bone", "", "overlap of bone (> 250 HU, or grey ≥ 250)", 3)
    if unit == "HU":
        words = (
            f"mean |Δ water-equivalent path length|, parallel beams from {scoring.beams} directions over half a turn, "
            f"stopping powers {scoring.stopping_power.name}; not dose"
        )
        found["wepl_mean_abs"] = ("|ΔWEPL|", "mm", words, 2)
        found["wepl_p95_abs"] = ("|ΔWEPL| p95", "mm", "95th percentile over the same beams", 2)
    return found


def _overlap_definitions() -> tuple[str, ...]:
    return tuple(f"{score}_{structure}" for structure in STRUCTURES for score in ("dice", "hd95")) + tuple(
        f"mean_error_{tissue}" for tissue in ("bone", "soft_tissue", "air")
    )


def _mask_words(scoring: Scoring) -> str:
    if scoring.region is not None:
        return scoring.region
    return f"inside the CT's body outline dilated in plane by {scoring.dilation_px} px, on the prepared grid"


def _score_columns(scoring: Scoring, *, intervals: bool) -> tuple[Column, ...]:
    return tuple(
        Column(
            key=key,
            title=title,
            unit=own_unit,
            definition=definition,
            digits=digits,
            low_key=f"{key}_low" if intervals else None,
            high_key=f"{key}_high" if intervals else None,
        )
        for key, (title, own_unit, definition, digits) in _definitions(scoring).items()
    )


def summary_table(summary: list[dict[str, Cell]], scoring: Scoring) -> ResultTable:
    """Means over held-out cases, one row a method."""
    first = (Column(key="title", title="method"), Column(key="cases", title="cases", digits=0))
    return ResultTable(
        key="mr_to_ct_summary",
        title="Pseudo-CT against CT, mean over cases",
        caption="95 % intervals by bootstrap over subjects. Image metrics do not predict dose; no dose is claimed.",
        columns=first + _score_columns(scoring, intervals=True),
        rows=tuple(summary),
    )


def case_table(rows: list[dict[str, Any]], scoring: Scoring) -> ResultTable:
    """Every case and method."""
    first = (
        Column(key="subject_id", title="subject"),
        Column(key="split", title="split"),
        Column(key="title", title="method"),
    )
    return ResultTable(
        key="mr_to_ct_cases",
        title="Every case",
        caption=f"One row a case and method, {_mask_words(scoring)}.",
        columns=first + _score_columns(scoring, intervals=False),
        rows=tuple({**row, "title": TITLES[row["method"]]} for row in rows),
    )


def structure_table(summary: list[dict[str, Cell]], rows: list[dict[str, Any]]) -> ResultTable:
    """Dice, HD95, mean error and voxels of each structure, one row a method and structure.

    Args:
        summary: means by method.
        rows: the cases behind them, which count voxels and the CTs that lack a structure.
    """
    found: list[dict[str, Cell]] = []
    for line in summary:
        own = [row for row in rows if row["method"] == line["method"]]
        for structure, title in STRUCTURES.items():
            keys = (f"dice_{structure}", f"hd95_{structure}")
            if not any(key in row for row in own for key in keys):
                continue
            scores = {
                f"{name}{end}": line.get(f"{name}_{structure}{end}")
                for name in ("dice", "hd95", "mean_error")
                for end in ("", "_low", "_high")
            }
            found.append(
                {
                    "method": line["method"],
                    "title": line["title"],
                    "structure": title,
                    "voxels": _voxels(own, structure),
                    "absent": sum(row.get(keys[0]) is None for row in own),
                    "missed": sum(row.get(keys[0]) == 0 and row.get(keys[1]) is None for row in own),
                    **scores,
                }
            )
    return ResultTable(
        key="mr_to_ct_structures",
        title="Structures",
        caption="Means over cases whose CT holds the structure, 95 % intervals by bootstrap over subjects.",
        columns=(
            Column(key="title", title="method"),
            Column(key="structure", title="structure"),
            Column(key="voxels", title="voxels", definition="of the tissue in all CT, inside the mask", digits=0),
            Column(key="absent", title="CT without", definition="cases left out: the CT lacks the structure", digits=0),
            Column(key="missed", title="missed", definition="absent in the pseudo-CT: Dice 0, no HD95", digits=0),
            Column(key="dice", title="Dice", low_key="dice_low", high_key="dice_high"),
            Column(
                key="hd95",
                title="HD95",
                unit="mm",
                definition="95th percentile of surface distance, the larger of both directions",
                digits=2,
                low_key="hd95_low",
                high_key="hd95_high",
            ),
            Column(
                key="mean_error",
                title="mean error",
                unit="HU",
                definition="mean of pseudo-CT − CT where the CT is of this tissue",
                digits=1,
                low_key="mean_error_low",
                high_key="mean_error_high",
            ),
        ),
        rows=tuple(found),
    )


def _voxels(rows: list[dict[str, Any]], structure: str) -> int | None:
    counts = [row[f"voxels_{structure}"] for row in rows if f"voxels_{structure}" in row]
    return sum(counts) if counts else None
