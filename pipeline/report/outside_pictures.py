"""Pictures of pseudo-CT that was made elsewhere, beside its CT, and its MR where one was given."""

from typing import Any

import numpy as np

from pipeline.pair_set import PairSet
from pipeline.report.case_pictures import CaseGallery, gallery_of
from pipeline.report.case_slices import OpenCase
from pipeline.report.slice_viewer import Place
from pipeline.settings import ReportSettings


def pair_gallery(pairs: PairSet, settings: ReportSettings) -> CaseGallery | None:
    """Pictures of the pairs on one grid; None where there is no such pair.

    Args:
        pairs: matched CT and pseudo-CT.
        settings: how much is shown.
    """
    table = [row | {"split": "given"} for row in pairs.pairs if row["comparable"]]

    def opened(row: dict[str, Any]) -> OpenCase:
        mr = np.asarray(pairs.volume(row, "mr")) if row["has_mr"] else None
        mask, pseudo_ct, ct = (np.asarray(pairs.volume(row, name)) for name in ("mask", "pseudo_ct", "ct"))
        slice_mm, row_mm, column_mm = row["spacing_mm"]
        return OpenCase(row, mr, mask, pseudo_ct, ct, Place(None, (slice_mm, row_mm, column_mm)))

    return gallery_of(table, opened, "HU", settings, oriented=True) if table else None
