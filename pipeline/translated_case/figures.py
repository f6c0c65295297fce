"""Figures of a translated case that need no CT: how sure it is, how it leads back to the MR, and its outline."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.body_mask import ct_body_mask
from pipeline.domain_card import CaseFigures
from pipeline.translated_case.maps import RESIDUAL_STEPS, CaseMaps
from pipeline.translated_case.source import CaseSource


def case_figures(folder: Path, maps: CaseMaps, source: CaseSource) -> CaseFigures:
    """Measure the maps of a case.

    Args:
        folder: where they lie.
        maps: of the case.
        source: its MR.
    """
    body = np.asarray(source.volume.mask) > 0
    outline = None
    if source.unit == "HU" and source.volume.spacing_mm is not None:
        outline = _outline(_open(folder, maps.pseudo_ct), body, source.volume.spacing_mm)
    uncertainty = _inside(folder, maps.uncertainty, body)
    residual = _inside(folder, maps.cycle_residual, body)
    return CaseFigures(
        uncertainty=None if uncertainty is None else uncertainty[0],
        uncertainty_high=None if uncertainty is None else uncertainty[1],
        residual=None if residual is None else residual[0] / RESIDUAL_STEPS,
        residual_high=None if residual is None else residual[1] / RESIDUAL_STEPS,
        outline=outline,
    )


def _open(folder: Path, path: str) -> npt.NDArray[np.int16]:
    found: npt.NDArray[np.int16] = np.load(folder / path, mmap_mode="r", allow_pickle=False)
    return found


def _inside(folder: Path, path: str | None, body: npt.NDArray[np.bool_]) -> tuple[float, float] | None:
    """Mean and 95th percentile of a map in the body."""
    if path is None or not body.any():
        return None
    inside = _open(folder, path)[body].astype(np.float64)
    return float(inside.mean()), float(np.quantile(inside, 0.95))


def _outline(
    pseudo_ct: npt.NDArray[np.int16], body: npt.NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> float:
    """Dice of the body outlines of MR and pseudo-CT."""
    slices, rows, columns = spacing_mm
    outline = ct_body_mask(np.asarray(pseudo_ct).transpose(2, 1, 0), (columns, rows, slices)).transpose(2, 1, 0)
    total = int(outline.sum() + body.sum())
    return 2 * int((outline & body).sum()) / total if total else 0.0
