"""What is decided about image files that leave a choice: which volume, which affine, how many bad voxels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import QuarantineError

SPACING_RANGE_MM = (0.01, 50.0)
"""Voxel sizes that scans of patients can have; others mean a wrong unit."""


@dataclass(frozen=True)
class ImagePolicy:
    """How to read image files; the same as the settings of that name in `IngestSettings`.

    Attributes:
        volume: which volume of a 4-D NIfTI file to take, from 0; None refuses 4-D files.
        form_conflict: sform and qform that differ: "refuse", or which of them holds ("sform", "qform").
        max_non_finite: largest share of NaN or infinite voxels that is replaced by the smallest finite value.
    """

    volume: int | None = None
    form_conflict: Literal["refuse", "sform", "qform"] = "refuse"
    max_non_finite: float = 0.0


STRICT = ImagePolicy()
"""Refuses whatever leaves a choice."""


def check_spacing(spacing_mm: Sequence[float], unit: str) -> None:
    """Refuse voxel sizes outside of `SPACING_RANGE_MM`.

    Args:
        spacing_mm: after conversion to mm.
        unit: unit that the header tells, for the message.

    Raises:
        QuarantineError: IMPLAUSIBLE_SPACING.
    """
    low, high = SPACING_RANGE_MM
    if not all(low <= size <= high for size in spacing_mm):
        sizes = " x ".join(f"{size:.4g}" for size in spacing_mm)
        found = f"voxels of {sizes} mm (unit of the header: {unit}), allowed {low:g} to {high:g} mm"
        raise QuarantineError("IMPLAUSIBLE_SPACING", found, "Correct the unit or the voxel size in the header.")
