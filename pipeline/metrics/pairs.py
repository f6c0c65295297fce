"""What paired metrics share: the checks on a reference and a prediction, and named intensity ranges.

A metric that clips or normalizes depends on its range, and public scorers use several. So the range is a value with a
name (`ValueRange`), every metric that needs one requires it, and reports print the name.

Ranges of SynthRAD2023 (github.com/SynthRAD2023/metrics) and SynthRAD2025 (github.com/SynthRAD2025/metrics and
github.com/SynthRAD2025/evaluation, whose container scores with another upper bound than the published metrics).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError

Volume = npt.NDArray[Any]
FloatArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class ValueRange:
    """Range to which both images are clipped, and whose width is the R of PSNR and SSIM.

    Args:
        name: dialect, for reports.
        low: lower bound, in HU or grey levels.
        high: upper bound, larger than `low`.

    Raises:
        InputError: `high` is not larger than `low`.
    """

    name: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if self.high > self.low:
            return
        raise InputError(
            "A value range needs a positive width.",
            found=f"{self.name}: [{self.low}, {self.high}]",
            allowed="low < high",
            change=f"Correct the range, or name one of {', '.join(DIALECTS)}.",
        )

    @property
    def width(self) -> float:
        """R = high − low."""
        return self.high - self.low


DIALECTS: dict[str, ValueRange] = {
    "synthrad2023": ValueRange("synthrad2023", -1024.0, 3000.0),
    "synthrad2025-metrics": ValueRange("synthrad2025-metrics", -1024.0, 3000.0),
    "synthrad2025-container": ValueRange("synthrad2025-container", -1024.0, 3071.0),
    "grey8": ValueRange("grey8", 0.0, 255.0),
}
"""Value ranges by name of the dialect; `grey8` is for 8-bit pictures that carry no HU."""


def masked_pair(ct: Volume, pseudo_ct: Volume, mask: Volume | None) -> tuple[FloatArray, FloatArray]:
    """Values of both images inside the mask, as two float64 vectors; None takes the whole image.

    Raises:
        InputError: shapes differ, the mask is empty, or a value inside it is not finite.
    """
    inside = checked_mask(ct, pseudo_ct, mask)
    checked_values(ct, pseudo_ct, inside)
    return np.asarray(ct)[inside].astype(np.float64), np.asarray(pseudo_ct)[inside].astype(np.float64)


def checked_values(ct: Volume, pseudo_ct: Volume, inside: npt.NDArray[np.bool_]) -> None:
    """Refuse images with values inside the mask that are not finite.

    Raises:
        InputError: with the number of such values.
    """
    broken = [int(np.count_nonzero(~np.isfinite(image) & inside)) for image in (ct, pseudo_ct)]
    if any(broken):
        raise InputError(
            "Paired metrics compare finite values.",
            found=f"values that are not finite: {broken[0]} in the CT, {broken[1]} in the pseudo-CT",
            allowed="finite HU inside the mask",
            change="Find out where the values come from; a pseudo-CT with NaN must not be scored.",
        )


def checked_mask(ct: Volume, pseudo_ct: Volume, mask: Volume | None) -> npt.NDArray[np.bool_]:
    """The mask (mask > 0) as bool; all true for None.

    Raises:
        InputError: shapes differ, or the mask is empty.
    """
    inside = np.ones(np.shape(ct), dtype=np.bool_) if mask is None else np.asarray(mask) > 0
    if np.shape(ct) == np.shape(pseudo_ct) == inside.shape and inside.any():
        return inside
    raise InputError(
        "Paired metrics compare two images of one shape inside a mask that is not empty.",
        found=f"CT {np.shape(ct)}, pseudo-CT {np.shape(pseudo_ct)}, "
        f"mask {inside.shape} with {int(inside.sum())} voxels inside",
        allowed="equal shapes, at least one voxel inside",
        change="Score on the grid of the MR before any resampling; check the body mask.",
    )
