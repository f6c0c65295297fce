"""Where every pseudo-CT lies, as written and before any resampling, against the grid of its MR."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from pipeline.geometry import Geometry
from pipeline.metrics.geometry_agreement import GeometryAgreement, better_mirrored, compare_geometry
from pipeline.results import Cell, Column, ResultTable, Verdict

_AXES = ("slices", "rows", "columns")
RULE = (
    "bad: a pseudo-CT differs from its MR in shape, voxel size (1e-3 mm), orientation, extent or place (0.05 mm), and "
    "is not scored; or its error falls by a tenth or more when it is mirrored, and its score stays in the means"
)


def geometry_row(
    case: Mapping[str, Any],
    folder: Path,
    ct: npt.NDArray[Any],
    pseudo_ct: npt.NDArray[Any],
    mask: npt.NDArray[np.bool_],
) -> dict[str, Cell]:
    """Compare one case's NIfTI header with the MR's grid, and its voxels with mirrored ones.

    Args:
        case: row of ``cases.parquet``.
        folder: output of `translate_mr_to_ct`.
        ct: (K, H, W) on the prepared grid.
        pseudo_ct: same shape.
        mask: same shape, where they are compared.
    """
    row: dict[str, Cell] = {name: case[name] for name in ("subject_id", "series_id", "split")}
    agreement = _agreement(case, folder)
    problems = list(agreement.problems) if agreement else []
    comparable = not problems
    axis = better_mirrored(ct, pseudo_ct, mask)
    if axis is not None:
        problems.append(f"fits the CT better with its {_AXES[axis]} reversed")
    row |= {
        "orientation": agreement.orientation if agreement else None,
        "spacing_difference": agreement.spacing_difference_mm if agreement else None,
        "extent_difference": agreement.extent_difference_mm if agreement else None,
        "distance": agreement.distance_mm if agreement else None,
        "comparable": comparable,
        "agrees": not problems,
        "finding": "; ".join(problems) or ("agrees" if agreement else "no geometry to compare; not mirrored"),
    }
    return row


def _agreement(case: Mapping[str, Any], folder: Path) -> GeometryAgreement | None:
    """None for pictures without geometry."""
    if case.get("mr_affine") is None or case.get("nifti_path") is None:
        return None
    image = nib.load(folder / case["nifti_path"])
    reference = Geometry(tuple(case["mr_shape"]), np.asarray(case["mr_affine"], dtype=np.float64).reshape(4, 4))
    return compare_geometry(reference, Geometry(tuple(image.shape), image.affine))


def geometry_table(rows: list[dict[str, Cell]]) -> ResultTable:
    """One row a case."""
    return ResultTable(
        key="mr_to_ct_geometry",
        title="Geometry",
        caption="Pseudo-CT as written against the grid of its MR, before any resampling.",
        columns=(
            Column(key="subject_id", title="subject"),
            Column(key="orientation", title="axes", definition="toward which the voxel axes run"),
            Column(key="spacing_difference", title="voxel size", unit="mm", definition="largest difference", digits=4),
            Column(key="extent_difference", title="extent", unit="mm", definition="largest difference", digits=3),
            Column(key="distance", title="place", unit="mm", definition="largest distance of equal voxels", digits=3),
            Column(key="finding", title="finding"),
        ),
        rows=tuple(rows),
    )


def geometry_verdict(rows: list[dict[str, Cell]]) -> Verdict:
    """Bad as soon as one case fails."""
    failed = [row for row in rows if not row["agrees"]]
    sentence = (
        f"{len(failed)} of {len(rows)} pseudo-CT do not lie where their MR lies, or are mirrored."
        if failed
        else f"All {len(rows)} pseudo-CT lie where their MR lies."
    )
    return Verdict(key="geometry", outcome="bad" if failed else "good", sentence=sentence, rule=RULE)
