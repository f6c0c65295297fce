"""Does anything of the training set lie in the test set? Subjects, studies, series, lesions, (nearly) equal images.

A figure on a test set that shares a patient with the training set is inflated, and no later statistic mends it. The
table of use for a classifier is made from an audit without leaks, and from nothing else (`clean_audit`).

A prepared set does not keep studies; the catalog knows them, so that one study under two subject names is found.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import polars as pl

from pipeline.errors import InputError
from pipeline.intensity import from_int16
from pipeline.near_duplicates import find_near_duplicates
from pipeline.prepared_set import ImageSet
from pipeline.results import Cell, Column, ResultTable, Verdict
from pipeline.splits import SPLITS

NEAR_COPY = 0.995
"""Correlation of 32 × 32 averages from which two images across the split are one image saved twice."""

MOST_IMAGES = 20_000
"""Larger sets are searched for near-copies in a random part of the training images, and the table says so."""

RULE = (
    "bad: a subject, study, series, lesion or image occurs in two splits, or two images across splits correlate by "
    f"{NEAR_COPY} or more, mirrored or not; then no use for a classifier is judged"
)
_IDENTITIES = {"subject_id": "subjects", "series_id": "series", "lesion_id": "lesions"}


@dataclass(frozen=True)
class LeakageAudit:
    """What two splits share.

    Attributes:
        rows: one a pair of splits and kind of overlap.
        searched: images that were searched for near-copies, of all images.
    """

    rows: tuple[dict[str, Cell], ...]
    searched: tuple[int, int]

    @property
    def leaks(self) -> tuple[str, ...]:
        """Findings in words; empty when nothing is shared."""
        return tuple(
            f"{row['shared']} {row['kind']} in {row['splits']}"
            for row in self.rows
            if isinstance(row["shared"], int) and row["shared"]
        )


def audit_leakage(prepared: ImageSet, seed: int, studies: pl.Series | None = None) -> LeakageAudit:
    """Audit the splits of an image set.

    Args:
        prepared: the set.
        seed: draws which images are searched where there are too many.
        studies: study of every image, null where it is unknown; None leaves studies out.
    """
    table = prepared.table.with_columns(pixels=pl.Series(_hashes(prepared), dtype=pl.String))
    rows: list[dict[str, Cell]] = []
    kinds = {**_IDENTITIES, "pixels": "identical images"}
    if studies is not None and studies.drop_nulls().len():
        table, kinds = table.with_columns(study=studies), {"study": "studies", **kinds}
    for first, second in combinations(SPLITS, 2):
        for column, kind in kinds.items():
            sides = [set(table.filter(pl.col("split") == split)[column].drop_nulls()) for split in (first, second)]
            rows.append(_row(kind, first, second, len(sides[0] & sides[1])))
    chosen = _searched(table, np.random.default_rng(seed))
    rows += _near_copies(prepared, table, chosen)
    return LeakageAudit(tuple(rows), (len(chosen), table.height))


def _row(kind: str, first: str, second: str, shared: int) -> dict[str, Cell]:
    return {"kind": kind, "splits": f"{first} and {second}", "shared": shared}


def _hashes(prepared: ImageSet) -> list[str]:
    return [hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest() for image in prepared.images]


def _searched(table: pl.DataFrame, rng: np.random.Generator) -> list[int]:
    """Rows searched for near-copies: all held-out ones, and as many training ones as fit."""
    held_out = table.filter(pl.col("split") != "train")["image"].to_list()
    train = table.filter(pl.col("split") == "train")["image"].to_list()
    room = max(0, MOST_IMAGES - len(held_out))
    kept = train if len(train) <= room else sorted(rng.choice(train, room, replace=False).tolist())
    return [int(row) for row in sorted(held_out + kept)]


def _near_copies(prepared: ImageSet, table: pl.DataFrame, chosen: Sequence[int]) -> list[dict[str, Cell]]:
    """Images with a near-copy in another split that is not an identical one."""
    planes = from_int16(np.asarray(prepared.images[list(chosen)])).mean(axis=1)
    splits, pixels = table["split"].to_list(), table["pixels"].to_list()
    found: dict[tuple[str, str], set[int]] = defaultdict(set)
    for pair in find_near_duplicates(planes, threshold=NEAR_COPY).pairs:
        first, second = chosen[pair.first], chosen[pair.second]
        if splits[first] == splits[second] or pixels[first] == pixels[second]:
            continue
        low, high = sorted((first, second), key=lambda row: SPLITS.index(splits[row]))
        found[splits[low], splits[high]].add(high)
    return [
        _row("nearly equal images", first, second, len(found[first, second]))
        for first, second in combinations(SPLITS, 2)
    ]


def clean_audit(audit: LeakageAudit | None) -> LeakageAudit:
    """The audit, where it found nothing.

    Raises:
        InputError: there is no audit, or it found leaks: no figure of a classifier may be printed.
    """
    if audit is not None and not audit.leaks:
        return audit
    raise InputError(
        "Use for a classifier is judged on splits that share nothing.",
        found="no audit" if audit is None else "; ".join(audit.leaks),
        allowed="an audit without leaks",
        change="Give one subject one identity, remove copies, and split again in a new workspace.",
    )


def leakage_table(audit: LeakageAudit) -> ResultTable:
    """Every kind of overlap for every pair of splits."""
    part, whole = audit.searched
    words = "" if part == whole else f" Searched: {part} of {whole}."
    return ResultTable(
        key="leakage",
        title="Leakage over splits",
        caption=f"What two splits share; 0 is right. Nearly equal: correlation of {NEAR_COPY}, mirrored or not.{words}",
        columns=(
            Column(key="kind", title="what"),
            Column(key="splits", title="splits"),
            Column(key="shared", title="shared", digits=0),
        ),
        rows=audit.rows,
    )


def leakage_verdict(audit: LeakageAudit) -> Verdict:
    """Bad as soon as anything is shared."""
    if not audit.leaks:
        sentence = "No subject, study, series, lesion or image is shared between splits."
        return Verdict(key="leakage", outcome="good", sentence=sentence, rule=RULE)
    sentence = f"LEAKAGE between splits: {'; '.join(audit.leaks)}. Every figure on held-out images is inflated."
    return Verdict(key="leakage", outcome="bad", sentence=sentence, rule=RULE)
