"""Use for a classifier within subgroups of the test images that the catalog tells apart."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import polars as pl

from pipeline.evaluate.cohorts import Study
from pipeline.evaluate.leakage import LeakageAudit, clean_audit
from pipeline.evaluate.utility_scores import Utility, arm_interval
from pipeline.evaluate.utility_tables import Row, cells, scored
from pipeline.results import Column, ResultTable
from pipeline.settings import EvaluateLesionsSettings

FEWEST_IMAGES = 10
"""Smaller subgroups, and those that lack a class, are not scored."""

TITLES: Mapping[str, str] = {
    "modality": "modality",
    "body_part": "body part",
    "sequence": "sequence",
    "source": "kind of file",
    "lesion_size": "size of the lesion",
}


def subgroup_table(
    utility: Utility,
    study: Study,
    origins: pl.DataFrame,
    settings: EvaluateLesionsSettings,
    seed: int,
    audit: LeakageAudit | None,
) -> ResultTable | None:
    """AUC of ``real`` and ``real_synthetic`` and their difference in every subgroup; None where there is none.

    Args:
        utility: all arms.
        study: holds the test set.
        origins: one row a test image, with the columns that ``settings.subgroups`` names.
        settings: subgroups and resamples.
        seed: of the resamples.
        audit: of leakage.

    Raises:
        InputError: there is no audit of leakage, or it found leaks.
    """
    clean_audit(audit)
    rows: list[Row] = []
    left_out = 0
    for name in settings.subgroups:
        levels = origins[name].drop_nulls().unique().sort().to_list()
        if len(levels) < 2:
            continue
        for level in levels:
            chosen = (origins[name] == level).fill_null(value=False).to_numpy()
            if chosen.sum() < FEWEST_IMAGES or len(np.unique(study.test.classes[chosen])) < len(study.class_names):
                left_out += 1
                continue
            part = replace(study, test=study.test.part(chosen))
            own = utility.on(chosen)
            row: Row = {
                "attribute": TITLES[name],
                "level": str(level),
                "images": len(part.test),
                "subjects": len(set(part.test.subjects)),
            }
            row |= cells("real", arm_interval(own, "real", part, "macro_auc", settings, seed))
            if "real_synthetic" in own.probabilities:
                row |= cells("synthetic", arm_interval(own, "real_synthetic", part, "macro_auc", settings, seed))
                gain = arm_interval(own, "real_synthetic", part, "macro_auc", settings, seed, against="real")
                row |= cells("difference", gain)
            rows.append(row)
    if not rows:
        return None
    missing = f" {left_out} smaller ones, or without every class, are left out." if left_out else ""
    return ResultTable(
        key="utility_by_subgroup",
        title="Use for a classifier, by subgroup",
        caption=(
            f"Macro AUC on the test images of each subgroup with {FEWEST_IMAGES} images or more.{missing} 95 % "
            "intervals by bootstrap over subjects and seeds, not corrected for their number: read them as hints."
        ),
        columns=(
            Column(key="attribute", title="by"),
            Column(key="level", title="subgroup"),
            Column(key="images", title="test images", digits=0),
            Column(key="subjects", title="subjects", digits=0),
            scored("real", "AUC real", "macro AUC of the arm “real”"),
            scored("synthetic", "AUC real + synthetic", "macro AUC of the arm “real + synthetic”"),
            scored("difference", "difference", "paired, on the same resamples"),
        ),
        rows=tuple(rows),
    )
