"""Pictures of pseudo-CT that was made elsewhere, beside its CT, and its MR where one was given."""

from typing import Any

import numpy as np

from pipeline.pair_set import PairSet
from pipeline.report.case_pictures import CaseGallery, OpenCase, gallery_of


def pair_gallery(pairs: PairSet, slices_per_case: int) -> CaseGallery | None:
    """Pictures of the pairs on one grid; None where there is no such pair.

    Args:
        pairs: matched CT and pseudo-CT.
        slices_per_case: heights shown of each case, at the most.
    """
    table = [row | {"split": "given"} for row in pairs.pairs if row["comparable"]]

    def opened(row: dict[str, Any]) -> OpenCase:
        mr = np.asarray(pairs.volume(row, "mr")) if row["has_mr"] else None
        mask, pseudo_ct, ct = (np.asarray(pairs.volume(row, name)) for name in ("mask", "pseudo_ct", "ct"))
        return OpenCase(row, mr, mask, pseudo_ct, ct, (row["spacing_mm"][1], row["spacing_mm"][2]))

    return gallery_of(table, opened, "HU", slices_per_case, oriented=True) if table else None
