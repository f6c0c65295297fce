"""Score a pseudo-CT from anywhere against a CT: files in, the figures of the evaluation stage out.

For a pseudo-CT that another program made, and for label maps that the user's own segmenter made of CT and pseudo-CT.
Nothing is resampled: all images must lie on one grid, and an image that does not is refused with what differs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.body_mask import ct_body_mask, dilate_in_plane
from pipeline.errors import InputError
from pipeline.evaluate.mr_to_ct_cases import score, scoring_for
from pipeline.geometry import Geometry, to_canonical
from pipeline.metrics.dice import StructureOverlap, mean_overlap, overlap_by_label
from pipeline.metrics.geometry_agreement import GeometryAgreement, better_mirrored, compare_geometry
from pipeline.prepared_set import to_slices
from pipeline.results import Cell
from pipeline.safe_parse import Limits, parse_all
from pipeline.scan_io import read_image
from pipeline.settings import EvaluateMRToCTSettings

_LIMITS = Limits(timeout_s=300, memory_mb=8192)


@dataclass(frozen=True)
class PairFiles:
    """What is compared; NIfTI, MetaImage or NRRD.

    Attributes:
        ct: reference in HU.
        pseudo_ct: in HU.
        mask: > 0 inside; None takes the body outline of the CT, dilated in plane as the settings say.
        ct_labels: a segmenter's label map of the CT.
        pseudo_ct_labels: the same segmenter's label map of the pseudo-CT.
        label_names: label to name of a structure.
    """

    ct: Path
    pseudo_ct: Path
    mask: Path | None = None
    ct_labels: Path | None = None
    pseudo_ct_labels: Path | None = None
    label_names: Mapping[int, str] | None = None


@dataclass(frozen=True)
class PairScores:
    """Figures of one pair.

    Attributes:
        cells: scores by key, as in the evaluation's Parquet table of cases.
        geometry: the pseudo-CT's grid beside the CT's.
        mirrored: axis (0 slices, 1 rows, 2 columns) along which the pseudo-CT fits better reversed, else None.
        structures: overlap by name; empty without label maps.
        mean_dice: mean over structures that the CT holds, None without any.
        mean_hd95_mm: mean over structures that both hold, None without any.
    """

    cells: dict[str, Cell]
    geometry: GeometryAgreement
    mirrored: int | None
    structures: dict[str, StructureOverlap]
    mean_dice: float | None
    mean_hd95_mm: float | None


def score_pair(files: PairFiles, settings: EvaluateMRToCTSettings) -> PairScores:
    """Score one pair of files.

    Args:
        files: what is compared.
        settings: dialect, mask dilation, stopping powers.

    Raises:
        InputError: a file cannot be read, lies on another grid than the CT, or only one of the label maps is given.
    """
    if (files.ct_labels is None) != (files.pseudo_ct_labels is None):
        raise InputError(
            "Overlap needs the label maps of both images.",
            found="one label map",
            allowed="two, or none",
            change="Run the segmenter on CT and pseudo-CT alike.",
        )
    named = {name: path for name in _ROLES if (path := getattr(files, name)) is not None}
    images = _read(named)
    _, reference = images["ct"]
    agreements = {name: compare_geometry(reference, geometry) for name, (_, geometry) in images.items()}
    for name, agreement in agreements.items():
        if not agreement.agrees:
            raise _elsewhere(_ROLES[name], agreement)
    slices = {name: to_slices(to_canonical(voxels, grid.affine)[0]) for name, (voxels, grid) in images.items()}
    canonical = Geometry(*_canonical_grid(images["ct"]))
    scoring = scoring_for({"unit": "HU", "spacing_mm": canonical.spacing_mm}, settings)
    if "mask" in slices:
        mask = slices["mask"] > 0
    else:
        body = ct_body_mask(slices["ct"].transpose(2, 1, 0), canonical.spacing_mm).transpose(2, 1, 0)
        mask = dilate_in_plane(body, scoring.dilation_px)
    structures: dict[str, StructureOverlap] = {}
    if "ct_labels" in slices:
        labels = [slices["ct_labels"], slices["pseudo_ct_labels"]]
        names = files.label_names or {int(label): f"label {int(label)}" for label in np.unique(labels) if label}
        structures = overlap_by_label(labels[0], labels[1], scoring.spacing_mm, names)
    dice, hd95, _ = mean_overlap(structures)
    return PairScores(
        score(slices["ct"], slices["pseudo_ct"], mask, scoring),
        agreements["pseudo_ct"],
        better_mirrored(slices["ct"], slices["pseudo_ct"], mask),
        structures,
        dice,
        hd95,
    )


_ROLES = {
    "ct": "CT",
    "pseudo_ct": "pseudo-CT",
    "mask": "mask",
    "ct_labels": "label map of the CT",
    "pseudo_ct_labels": "label map of the pseudo-CT",
}


def _read(files: Mapping[str, Path]) -> dict[str, tuple[npt.NDArray[Any], Geometry]]:
    images = {}
    for name, outcome in zip(files, parse_all(_parse, list(files.values()), _LIMITS), strict=True):
        if outcome.result is None:
            refusal = outcome.refusal
            raise InputError(
                f"The {_ROLES[name]} must be readable.",
                found=f"{refusal.reason}: {refusal.found}" if refusal else "nothing",
                allowed="a 3-D NIfTI, MetaImage or NRRD file",
                change=refusal.advice if refusal else "Check the file.",
            )
        images[name] = outcome.result
    return images


def _parse(path: Path) -> tuple[npt.NDArray[Any], Geometry]:
    scan = read_image(path)
    return scan.voxels, scan.geometry


def _canonical_grid(image: tuple[npt.NDArray[Any], Geometry]) -> tuple[tuple[int, ...], npt.NDArray[np.float64]]:
    voxels, affine, _ = to_canonical(image[0], image[1].affine)
    return voxels.shape, affine


def _elsewhere(role: str, agreement: GeometryAgreement) -> InputError:
    return InputError(
        "Images that are compared voxel by voxel lie on one grid.",
        found=f"the {role}: {'; '.join(agreement.problems)}",
        allowed="the grid of the CT: shape, axes, voxel size, extent and place",
        change="Write it on the CT's grid. Do not copy the CT's header onto it: that hides a mirrored image.",
    )
