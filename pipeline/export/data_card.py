"""Data card of an exported dataset: what is in it, how it was made, what the release gate said, what it is not for.

The idea of a card that travels with the data is that of Gebru et al., Datasheets for Datasets, CACM 64:86, 2021.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from pipeline.export.dataset import AugmentedDataset
from pipeline.export.metadata import Written
from pipeline.records import StageRecord

INTENDED_USE = "Research use only: not for diagnosis, treatment or any other clinical decision."


def data_card(dataset: AugmentedDataset, written: Written, records: Mapping[str, StageRecord]) -> dict[str, Any]:
    """The card's content as JSON values.

    Args:
        dataset: what was exported.
        written: what the format wrote.
        records: records of the stages that the dataset comes from, by name.
    """
    facts = dataset.prepared.facts
    flagged = len(dataset.release.flagged)
    return {
        "intended_use": INTENDED_USE,
        "classes": dataset.prepared.classes,
        "counts": counts(written.metadata),
        "synthetic": {
            "made": dataset.cohort.height,
            "exported": dataset.synthetic_count,
            "flagged_and_left_out": flagged if dataset.release.released else dataset.cohort.height,
            "splits": ["train"],
            "recipe": dataset.recipe["recipe"],
            "model_sha256": dataset.model_sha256,
        },
        "gate": {
            "released": dataset.release.released,
            "decision": dataset.release.reason,
            "override": dataset.release.override,
            **dataset.release.gate,
        },
        "pixels": {
            "format": written.pixel_format,
            "size_px": list(dataset.prepared.images.shape[2:]),
            "pixel_mm": facts.get("pixel_mm"),
            "unit_from_grey": f"unit = 2 * grey / {written.grey_levels} - 1",
            "clipped_pixels": written.clipped_pixels,
            "intensity": facts.get("intensity"),
        },
        "provenance": {name: {"key": record.key, "sha256": record.content_sha256} for name, record in records.items()},
        "csv": "Text cells that a spreadsheet might run as a formula begin with an apostrophe.",
    }


def counts(metadata: pl.DataFrame) -> dict[str, dict[str, dict[str, int]]]:
    """Images by origin, split and class, each level in alphabetical order."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    keys = ["origin", "split", "lesion_class"]
    for origin, split, lesion_class, number in metadata.group_by(keys).len().sort(keys).iter_rows():
        found.setdefault(origin, {}).setdefault(split, {})[lesion_class] = number
    return found


def card_markdown(card: Mapping[str, Any]) -> str:
    """The card for people."""
    pixels, synthetic, gate = card["pixels"], card["synthetic"], card["gate"]
    lines = ["# Data card", "", f"**{card['intended_use']}**", "", "## Images", ""]
    lines += ["| origin | split | class | images |", "|---|---|---|---:|"]
    for origin, splits in card["counts"].items():
        for split, classes in splits.items():
            lines += [f"| {origin} | {split} | {_inline(name)} | {number} |" for name, number in classes.items()]
    lines += [
        "",
        "Real images keep the split of their subject. Synthetic images are in the training split only.",
        "",
        "## Release gate",
        "",
        gate["decision"],
        *(["", f"Reason given for the override: {_inline(gate['override'])}"] if gate.get("override") else []),
        "",
        f"{synthetic['made']} synthetic images were made, {synthetic['exported']} exported.",
        f"SHA-256 of the generator's weights: `{synthetic['model_sha256']}`.",
        "",
        "## Pixels",
        "",
        f"{pixels['format']}, {' × '.join(map(str, pixels['size_px']))} pixels, {_pixel_size(pixels['pixel_mm'])}.",
        f"Back to units in [-1, 1]: `{pixels['unit_from_grey']}`. Pixels clipped: {pixels['clipped_pixels']}.",
        "",
        "## Provenance",
        "",
        *(
            f"- {name}: key `{entry['key'][:16]}`, content `{entry['sha256']}`"
            for name, entry in card["provenance"].items()
        ),
        "",
        f"`metadata.csv` has one row an image. {card['csv']}",
    ]
    return "\n".join(lines) + "\n"


def _pixel_size(pixel_mm: float | None) -> str:
    return "pixel size unknown" if pixel_mm is None else f"{pixel_mm:g} mm a pixel"


def _inline(text: str) -> str:
    """Text that cannot break out of a Markdown table cell nor start markup."""
    plain = " ".join(text.split())
    return "".join("\\" + sign if sign in r"\`*_{}[]<>()#+-.!|" else sign for sign in plain)
