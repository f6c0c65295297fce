"""Which subject is in which split, from the catalog."""

from typing import Any

import polars as pl

from pipeline.catalog import Catalog
from pipeline.settings import SplitSettings
from pipeline.splits import assign_splits
from pipeline.workspace import Workspace


def split_subjects(workspace: Workspace, catalog: Catalog, shares: SplitSettings) -> dict[str, str]:
    """Split of every subject in the catalog, stratified by body part, modalities and lesion classes."""
    classes = _words(catalog.lesions, "lesion_class")
    bodies, modalities = _words(catalog.series, "body_part"), _words(catalog.series, "modality")
    strata = {
        subject: "|".join((bodies.get(subject, ""), modalities.get(subject, ""), classes.get(subject, "")))
        for subject in catalog.series["subject_id"].unique().to_list()
    }
    published: dict[str, set[str]] = {}
    for row in catalog.series.filter(pl.col("published_split").is_not_null()).to_dicts():
        published.setdefault(row["subject_id"], set()).add(row["published_split"])
    return assign_splits(workspace, strata, published, shares)


def kept_in_split(row: dict[str, Any], splits: dict[str, str]) -> bool:
    """False for an image whose published split is not its subject's: its twin sits in a stricter split."""
    return row["published_split"] in {None, splits[row["subject_id"]]}


def _words(table: pl.DataFrame, column: str) -> dict[str, str]:
    """Subject -> its distinct values of a column, joined."""
    grouped = table.group_by("subject_id").agg(pl.col(column).drop_nulls().unique().sort().str.join("+"))
    return dict(zip(grouped["subject_id"], grouped[column], strict=True))
