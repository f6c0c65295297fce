"""What the catalog knows of each prepared image: its study, and what subgroups are formed by.

De-identified catalogs hold no sex, age or site; they hold what the scan is and how large the lesion is.
"""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from pipeline.prepared_set import ImageSet

STUDY = "study_uid"
LESION_SIZE = "lesion_size"
_SERIES_COLUMNS = (STUDY, "modality", "body_part", "sequence", "source")


def read_origins(prepared: ImageSet, catalogs: Mapping[str, Path]) -> pl.DataFrame:
    """One row an image, in the order of the set: study, modality, body part, sequence, source, size of the lesion.

    Args:
        prepared: the images.
        catalogs: catalog folders by what their identifiers begin with in the set, ``""`` for nothing.

    Returns:
        Strings, null where the catalog does not know. ``lesion_size`` is the third of the set's lesions, by volume in
        cm³, that the image's lesion lies in.
    """
    series, lesions = [], []
    for prefix, folder in catalogs.items():
        own = pl.read_parquet(folder / "series.parquet", columns=["series_id", *_SERIES_COLUMNS])
        series.append(own.with_columns(series_id=prefix + pl.col("series_id")))
        found = pl.read_parquet(folder / "lesions.parquet", columns=["lesion_id", "volume_mm3"])
        lesions.append(found.with_columns(lesion_id=prefix + pl.col("lesion_id")))
    known = prepared.table.select("series_id", "lesion_id").join(
        pl.concat(series).unique("series_id"), on="series_id", how="left", maintain_order="left"
    )
    sized = known.join(pl.concat(lesions).unique("lesion_id"), on="lesion_id", how="left", maintain_order="left")
    return sized.with_columns(_thirds(sized).alias(LESION_SIZE)).select(*_SERIES_COLUMNS, LESION_SIZE)


def _thirds(table: pl.DataFrame) -> pl.Series:
    """The third of the lesions, in words; null where volumes are unknown or all the same."""
    volumes = table.unique("lesion_id")["volume_mm3"].drop_nulls() / 1000
    bounds = [volumes.quantile(share, "linear") for share in (1 / 3, 2 / 3)]
    low, high = bounds
    if low is None or high is None or low >= high:
        return pl.Series([None] * table.height, dtype=pl.String)
    words = (f"below {low:.3g} cm³", f"{low:.3g} to {high:.3g} cm³", f"{high:.3g} cm³ and more")
    size = pl.col("volume_mm3") / 1000
    third = pl.when(size < low).then(pl.lit(words[0])).when(size < high).then(pl.lit(words[1]))
    return table.select(third.when(size >= high).then(pl.lit(words[2]))).to_series()
