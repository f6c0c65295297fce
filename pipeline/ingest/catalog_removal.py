"""Take subjects out of a catalog folder, in place, so that being killed and run again leads to the same end.

New files come first, then the tables that name them, then whatever no table names any more goes. Voxels of other
subjects are not rewritten, but for the rows of their image stacks.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.files import sha256_file

VOXEL_FOLDERS = ("volumes", "masks", "stacks")


def remove_subjects(folder: Path, subjects: Collection[str], path_hashes: Collection[str] = ()) -> bool:
    """Take subjects' rows and voxels out of a catalog.

    Args:
        folder: a catalog, see `pipeline.catalog`; also one that an earlier removal left half done.
        subjects: pseudonyms.
        path_hashes: keyed hashes of source paths whose quarantine rows go too.

    Returns:
        Whether any series is left.
    """
    series = pl.read_parquet(folder / "series.parquet")
    gone = pl.col("subject_id").is_in(list(subjects))
    words = {*subjects, *path_hashes, *series.filter(gone)["series_id"]}
    kept = _without_stack_rows(folder, series, series.filter(~gone))
    for path in sorted(folder.glob("*.parquet")):
        if path.name != "series.parquet":
            table = pl.read_parquet(path)
            _replace(path, table.filter(~_names_any(table, words)))
    _replace(folder / "series.parquet", kept)
    _remove_unnamed(folder, kept, pl.read_parquet(folder / "lesions.parquet"))
    return kept.height > 0


def _names_any(table: pl.DataFrame, words: Collection[str]) -> pl.Expr:
    """Whether any text of a row is one of the words."""
    texts = [name for name, kind in table.schema.items() if kind == pl.String]
    named = [pl.col(name).is_in(list(words)).fill_null(value=False) for name in texts]
    return pl.any_horizontal(named) if named else pl.lit(value=False)


def _without_stack_rows(folder: Path, series: pl.DataFrame, kept: pl.DataFrame) -> pl.DataFrame:
    """Write the stacks that lose rows anew, under new names; returns the kept rows with their new places."""
    changed = (
        series.filter(pl.col("stack_index") >= 0).join(kept, on="series_id", how="anti")["path"].unique().to_list()
    )
    for path in sorted(changed):
        rows = kept.filter(pl.col("path") == path).sort("stack_index")
        if not rows.height:
            continue
        taken = rows["stack_index"].to_numpy()
        pixels = np.load(folder / path, mmap_mode="r", allow_pickle=False)[taken]
        draft = folder / "stacks" / "draft.npy"
        np.save(draft, pixels)
        name = f"stacks/{Path(path).stem.partition('_')[0]}_{sha256_file(draft)[:8]}.npy"
        draft.replace(folder / name)
        places = pl.DataFrame({"series_id": rows["series_id"], "_place": np.arange(rows.height, dtype=np.int64)})
        moved = pl.col("_place").is_not_null()
        kept = (
            kept.join(places, on="series_id", how="left", maintain_order="left")
            .with_columns(
                path=pl.when(moved).then(pl.lit(name)).otherwise("path"),
                stack_index=pl.when(moved).then("_place").otherwise("stack_index"),
            )
            .drop("_place")
        )
    return kept


def _replace(path: Path, table: pl.DataFrame) -> None:
    draft = path.with_suffix(".draft")
    table.write_parquet(draft)
    draft.replace(path)


def _remove_unnamed(folder: Path, series: pl.DataFrame, lesions: pl.DataFrame) -> None:
    named = {*series["path"], *lesions["mask_path"].drop_nulls()}
    for part in VOXEL_FOLDERS:
        for path in sorted((folder / part).glob("*")):
            if path.relative_to(folder).as_posix() not in named:
                path.unlink()
