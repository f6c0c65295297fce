"""One phantom subject in memory: tissue map, lesions, and the MR and CT images made from them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.geometry import Geometry
from pipeline.phantom.anatomy import Anatomy, Field
from pipeline.phantom.contrast import add_ct_noise, add_mr_imperfections, blur, hu_of_tissue, signal_of_tissue
from pipeline.phantom.head import head_anatomy
from pipeline.phantom.lesions import Lesion, LesionClass, lesion_mask, place_lesions
from pipeline.phantom.pelvis import pelvis_anatomy

LESION_WEIGHTS: dict[str, float] = {"cyst": 0.45, "ring": 0.33, "spiculated": 0.22}
"""How often each class occurs: unequal on purpose, as in real collections."""

LESIONS_PER_SUBJECT = (2, 4)
"""Fewest and most lesions of a subject."""


@dataclass(frozen=True)
class PhantomGrid:
    """Grid of a body part's images, and the nominal radii of its lesions, in mm."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    lesion_radius_mm: tuple[float, float]


GRIDS: dict[str, PhantomGrid] = {
    "HEAD": PhantomGrid((136, 160, 40), (1.6, 1.6, 4.0), (7.0, 12.0)),
    "PELVIS": PhantomGrid((144, 104, 24), (2.7, 2.7, 6.0), (10.0, 15.0)),
}
"""Default grids; fields of view of 218 × 256 × 160 mm and 389 × 281 × 144 mm."""


@dataclass(frozen=True, eq=False)
class PhantomTruth:
    """Everything known about a phantom subject; all arrays share ``anatomy.geometry``.

    Args:
        anatomy: tissue map and marker.
        sequence: "T1" or "T2".
        lesions: in the order of mask values.
        lesion_mask: (i, j, k) int16.
        mr: (i, j, k) int16, 0 to about 1500.
        ct_hu: (i, j, k) int16 HU.
        ct_noise_free_hu: (i, j, k) float32 HU before noise.
    """

    anatomy: Anatomy
    sequence: str
    lesions: tuple[Lesion, ...]
    lesion_mask: NDArray[np.int16]
    mr: NDArray[np.int16]
    ct_hu: NDArray[np.int16]
    ct_noise_free_hu: Field

    @property
    def geometry(self) -> Geometry:
        """The grid of all arrays."""
        return self.anatomy.geometry


def phantom_subject(
    seed: int,
    index: int,
    body_part: str = "HEAD",
    sequence: str = "T1",
    *,
    grid: PhantomGrid | None = None,
    lesion_classes: Sequence[str] | None = None,
) -> PhantomTruth:
    """Make one subject; equal arguments give equal arrays.

    Args:
        seed: seed of the cohort.
        index: number of the subject within it.
        body_part: "HEAD" or "PELVIS".
        sequence: "T1" or "T2".
        grid: another grid than the default of the body part.
        lesion_classes: the lesions to place; drawn by `LESION_WEIGHTS`, 2 to 4 of them, when ``None``.

    Raises:
        InputError: for an unknown body part, sequence or lesion class.
    """
    if body_part not in GRIDS:
        raise InputError(
            "A phantom needs a known body part", found=body_part, allowed=", ".join(GRIDS), change="choose one"
        )
    chosen = grid or GRIDS[body_part]
    rng = np.random.default_rng([seed, index])
    classes = _draw_classes(rng) if lesion_classes is None else tuple(lesion_classes)
    unknown = sorted(set(classes) - set(LESION_WEIGHTS))
    if unknown:
        raise InputError(
            "A phantom lesion needs a known class",
            found=", ".join(unknown),
            allowed=", ".join(LESION_WEIGHTS),
            change="choose among these",
        )
    draw = head_anatomy if body_part == "HEAD" else pelvis_anatomy
    anatomy = draw(rng, chosen.shape, chosen.spacing_mm)
    lesions = place_lesions(anatomy, classes, chosen.lesion_radius_mm, rng)
    signal, hu = signal_of_tissue(anatomy.tissue, sequence), hu_of_tissue(anatomy.tissue, chosen.spacing_mm, rng)
    for lesion in lesions:
        signal, hu = lesion.paint_mr(signal, sequence), lesion.paint_ct(hu)
    ct = blur(hu)
    mr = add_mr_imperfections(blur(signal), rng)
    mask = lesion_mask(lesions, chosen.shape)
    return PhantomTruth(anatomy, sequence, tuple(lesions), mask, mr, add_ct_noise(ct, rng), ct)


def _draw_classes(rng: np.random.Generator) -> tuple[str, ...]:
    count = int(rng.integers(LESIONS_PER_SUBJECT[0], LESIONS_PER_SUBJECT[1] + 1))
    names = [item.value for item in LesionClass]
    weights = np.array([LESION_WEIGHTS[name] for name in names])
    return tuple(names[number] for number in rng.choice(len(names), size=count, p=weights / weights.sum()))
