"""Tables about the data: images or volumes by split and class, quarantine by reason."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from pipeline.records import StageRecord
from pipeline.report.charts import BarGroup, bar_groups
from pipeline.report.outside_methods import OUTSIDE_COHORT, OUTSIDE_PAIRS
from pipeline.report.stage_rows import fact_list, fact_mapping
from pipeline.report.tables import TableView, table_view
from pipeline.results import Cell, Column, ResultTable

_SPLITS = ("train", "validation", "test")
_SUBJECT_SOURCES = {
    "patient_id": "DICOM Patient ID (pseudonymized)",
    "bids": "the BIDS subject in the file's path",
    "file": "the file name: one subject a file",
    "case": "the case number in the file's name",
    "table": "the subject column of the table of labels",
    "near_duplicates": "clusters of near-identical images, for the source names no subjects",
}


def lesion_counts(records: Mapping[str, StageRecord]) -> TableView | None:
    """Images of each class by split, and the synthetic images of each class."""
    if "prepare_lesions" not in records:
        return None
    facts = records["prepare_lesions"].facts
    counts = {split: fact_mapping(fact_mapping(facts, "counts"), split) for split in _SPLITS}
    synthetic = _synthetic_counts(records)
    rows: list[dict[str, Cell]] = []
    for name in fact_list(facts, "classes"):
        row: dict[str, Cell] = {"lesion_class": name}
        row |= {split: _count(counts[split].get(name)) for split in _SPLITS}
        rows.append(row | {kind: numbers.get(name, 0) for kind, numbers in synthetic.items()})
    subjects = fact_mapping(facts, "subjects")
    rows.append({"lesion_class": "Subjects"} | {split: _count(subjects.get(split)) for split in _SPLITS})
    columns = [Column(key="lesion_class", title="Class", definition="Lesion class, as the source names it.")]
    columns += [Column(key=split, title=f"Real, {split}", digits=0) for split in _SPLITS]
    columns += [Column(key=kind, title=_KIND_TITLES[kind], definition=_KIND_DEFINITIONS[kind]) for kind in synthetic]
    caption = "Every image of a subject is in one split; the last row counts subjects."
    return table_view(
        ResultTable(
            key="lesion_counts", title="Lesion images", caption=caption, columns=tuple(columns), rows=tuple(rows)
        )
    )


def class_balance(records: Mapping[str, StageRecord]) -> tuple[BarGroup, ...]:
    """Training images of each class: real, and synthetic ones as exported, or as made before an export."""
    if "prepare_lesions" not in records:
        return ()
    facts = records["prepare_lesions"].facts
    names = fact_list(facts, "classes")
    train = fact_mapping(fact_mapping(facts, "counts"), "train")
    counts = [("real", [_count(train.get(name)) or 0 for name in names])]
    synthetic = _synthetic_counts(records)
    if synthetic:
        numbers = synthetic.get("exported", next(iter(synthetic.values())))
        counts.append(("synthetic", [numbers.get(name, 0) for name in names]))
    return bar_groups(names, counts)


def volume_counts(records: Mapping[str, StageRecord]) -> TableView | None:
    """Subjects of the MR-to-CT track by split."""
    if "prepare_mr_to_ct" not in records or records["prepare_mr_to_ct"].stage == OUTSIDE_PAIRS:
        return None
    facts = records["prepare_mr_to_ct"].facts
    subjects = fact_mapping(facts, "subjects")
    rows: tuple[dict[str, Cell], ...] = (
        {"what": "Subjects"} | {split: _count(subjects.get(split)) for split in _SPLITS},
    )
    columns = (Column(key="what", title="MR and CT"), *(Column(key=name, title=name.capitalize()) for name in _SPLITS))
    volumes = f"{facts.get('mr_volumes')} MR and {facts.get('ct_volumes')} CT volumes, {facts.get('pairs')} pairs."
    return table_view(
        ResultTable(key="volume_counts", title="MR and CT subjects", caption=volumes, columns=columns, rows=rows)
    )


def quarantine_table(folder: Path) -> TableView | None:
    """Refused files by reason with what to do, from ingest's ``quarantine.parquet``; None where nothing was refused."""
    refused = pl.read_parquet(folder / "quarantine.parquet")
    if refused.is_empty():
        return None
    by_reason = (
        refused.sort(["reason", "path_hash"])
        .group_by("reason", maintain_order=True)
        .agg(pl.col("files").sum(), pl.col("found").first(), pl.col("advice").first())
    )
    columns = (
        Column(key="reason", title="Reason", definition="Stable code of the rule that was broken."),
        Column(key="files", title="Files", definition="Files refused for this reason."),
        Column(key="found", title="Found, for example"),
        Column(key="advice", title="What to do"),
    )
    return table_view(
        ResultTable(
            key="quarantine",
            title="Quarantine",
            caption="Input that was refused, by reason; scanloom quarantine list shows every row.",
            columns=columns,
            rows=tuple(by_reason.to_dicts()),
        )
    )


def subject_sources(ingest: StageRecord) -> tuple[str, ...]:
    """Where subject ids come from, in words."""
    return tuple(_SUBJECT_SOURCES.get(name, name) for name in fact_list(ingest.facts, "subject_source"))


_KIND_TITLES = {"given": "Synthetic, given", "made": "Synthetic, made", "exported": "Synthetic, exported"}
_KIND_DEFINITIONS = {
    "given": "Images that were made elsewhere.",
    "made": "Images drawn from the trained generator.",
    "exported": "Images in the augmented dataset, all in its training split: those that were not flagged as "
    "near-copies, or none while the release gate is closed.",
}


def _synthetic_counts(records: Mapping[str, StageRecord]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    if "synthesize_lesions" in records:
        cohort = records["synthesize_lesions"]
        kind = "given" if cohort.stage == OUTSIDE_COHORT else "made"
        found[kind] = _numbers(fact_mapping(cohort.facts, "per_class"))
    if "export_lesions" in records:
        exported = fact_mapping(fact_mapping(records["export_lesions"].facts, "counts"), "synthetic")
        found["exported"] = _numbers(fact_mapping(exported, "train"))
    return found


def _numbers(values: Mapping[str, object]) -> dict[str, int]:
    return {name: count for name, value in values.items() if (count := _count(value)) is not None}


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
