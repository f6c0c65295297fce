"""Which subject is in which split, from the catalog."""

from typing import Any

import polars as pl

from pipeline.catalog import LOOK_ALIKES_FILE, Catalog
from pipeline.settings import SplitSettings
from pipeline.splits import assign_splits
from pipeline.workspace import Workspace


def split_subjects(workspace: Workspace, catalog: Catalog, shares: SplitSettings) -> dict[str, str]:
    """Split of every subject in the catalog, stratified by body part, modalities and lesion classes.

    Subjects that show the same scan are kept on one side.
    """
    classes = _words(catalog.lesions, "lesion_class")
    bodies, modalities = _words(catalog.series, "body_part"), _words(catalog.series, "modality")
    strata = {
        subject: "|".join((bodies.get(subject, ""), modalities.get(subject, ""), classes.get(subject, "")))
        for subject in catalog.series["subject_id"].unique().to_list()
    }
    published: dict[str, set[str]] = {}
    for row in catalog.series.filter(pl.col("published_split").is_not_null()).to_dicts():
        published.setdefault(row["subject_id"], set()).add(row["published_split"])
    return assign_splits(workspace, strata, published, shares, _groups(catalog))


def _groups(catalog: Catalog) -> list[set[str]]:
    """Subjects that ingest found to show the same, in groups."""
    path = catalog.folder / LOOK_ALIKES_FILE
    groups: list[set[str]] = []
    if path.is_file():
        for pair in pl.read_parquet(path, columns=["subject_id", "other_subject_id"]).iter_rows():
            touching = [group for group in groups if not group.isdisjoint(pair)]
            groups = [group for group in groups if group not in touching] + [set(pair).union(*touching)]
    return groups


def kept_in_split(row: dict[str, Any], splits: dict[str, str]) -> bool:
    """False for an image whose published split is not its subject's: its twin sits in a stricter split."""
    return row["published_split"] in {None, splits[row["subject_id"]]}


def _words(table: pl.DataFrame, column: str) -> dict[str, str]:
    """Subject -> its distinct values of a column, joined."""
    grouped = table.group_by("subject_id").agg(pl.col(column).drop_nulls().unique().sort().str.join("+"))
    return dict(zip(grouped["subject_id"], grouped[column], strict=True))
