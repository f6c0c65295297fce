"""Metrics: one a file, pure and silent. `METRICS` names those that score a pseudo-CT against a CT, one value per case.

Cohort metrics (`kid`, `precision_recall`, `memorization`), classifier metrics (`classification`), baselines and
bootstrap intervals have inputs of their own and are imported from their files.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pipeline.metrics.mae import mae as _score_mae
from pipeline.metrics.mae import mean_error as _score_mean_error
from pipeline.metrics.ms_ssim import ms_ssim as _score_ms_ssim
from pipeline.metrics.pairs import DIALECTS, ValueRange, Volume
from pipeline.metrics.psnr import psnr as _score_psnr
from pipeline.metrics.ssim import ssim as _score_ssim

# Underscored, because a function named like its file would hide the file from `import pipeline.metrics.ssim`.

__all__ = ["DIALECTS", "METRICS", "PairedMetric", "ValueRange"]


@dataclass(frozen=True)
class PairedMetric:
    """A metric of pseudo-CT against CT.

    Args:
        title: name for reports.
        unit: unit of the value, empty for none.
        better: which values are better; ``zero`` for signed errors.
        ranged: whether the value depends on the value range, so that a report prints the dialect.
        compute: (ct, pseudo_ct, mask or None, value_range) to one value; raises `InputError` on a case it cannot score.
    """

    title: str
    unit: str
    better: Literal["lower", "higher", "zero"]
    ranged: bool
    compute: Callable[[Volume, Volume, Volume | None, ValueRange], float]


def _mae(ct: Volume, pseudo_ct: Volume, mask: Volume | None, value_range: ValueRange) -> float:
    return _score_mae(ct, pseudo_ct, mask)


def _mean_error(ct: Volume, pseudo_ct: Volume, mask: Volume | None, value_range: ValueRange) -> float:
    return _score_mean_error(ct, pseudo_ct, mask)


def _ms_ssim_coarsest(ct: Volume, pseudo_ct: Volume, mask: Volume | None, value_range: ValueRange) -> float:
    return _score_ms_ssim(ct, pseudo_ct, mask, value_range, "coarsest_only")


METRICS: dict[str, PairedMetric] = {
    "mae": PairedMetric("MAE", "HU", "lower", ranged=False, compute=_mae),
    "mean_error": PairedMetric("Mean error", "HU", "zero", ranged=False, compute=_mean_error),
    "psnr": PairedMetric("PSNR", "dB", "higher", ranged=True, compute=_score_psnr),
    "ssim": PairedMetric("SSIM", "", "higher", ranged=True, compute=_score_ssim),
    "ms_ssim": PairedMetric("MS-SSIM (luminance at every scale)", "", "higher", ranged=True, compute=_score_ms_ssim),
    "ms_ssim_coarsest": PairedMetric(
        "MS-SSIM (luminance at the coarsest scale)", "", "higher", ranged=True, compute=_ms_ssim_coarsest
    ),
}
"""Paired metrics by name."""
