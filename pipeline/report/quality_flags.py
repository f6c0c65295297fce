"""Rules that make the contact sheet doubt a series. Each is a pure function of the measures of one volume.

A flag is a reason to look, not a verdict: thresholds are set so that a plain head or pelvis raises none. Weights order
the sheet: 3 look now, 2 look, 1 know.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from pipeline.report.quality_measures import NEIGHBORS, Measures

ANISOTROPY_LIMIT = 4.0
CLIPPED_LIMIT = 0.005
BORDER_LIMIT = 0.1
NO_BACKGROUND_LIMIT = 0.95
EMPTY_LIMIT = 0.5
LOW_CONTRAST_MR, LOW_CONTRAST_HU = 0.2, 100.0
AIR_LIMIT, SOFT_TISSUE_LIMIT, BELOW_AIR_LIMIT = 0.005, 0.02, 0.005
NEGATIVE_LIMIT = 0.05
INVERTED_LIMIT = 0.8
JUMP_LIMIT, JUMP_SHARE_LIMIT = 2.5, 0.03
SMALL_BODY_LIMIT = 0.03


class Flag(BaseModel):
    """A reason to look at a series.

    Attributes:
        code: name of the rule, a key of `MEANINGS` for the rules of this package.
        found: the numbers that broke it; empty where ingest set the flag.
    """

    model_config = ConfigDict(frozen=True)
    code: str
    found: str = ""


@dataclass(frozen=True)
class Meaning:
    """What a flag says.

    Attributes:
        weight: 3 look now, 2 look, 1 know.
        rule: when it is raised.
        look: what may be behind it, and what to look at.
    """

    weight: int
    rule: str
    look: str


def volume_flags(measures: Measures) -> tuple[Flag, ...]:
    """Every flag that one volume raises by itself."""
    found = {code: rule(measures) for code, rule in _RULES.items()}
    return tuple(Flag(code=code, found=text) for code, text in found.items() if text)


def anisotropic(measures: Measures) -> str | None:
    """Largest voxel side against the smallest."""
    ratio = max(measures.spacing_mm) / min(measures.spacing_mm)
    return f"{ratio:.1f} : 1" if ratio > ANISOTROPY_LIMIT else None


def clipped(measures: Measures) -> str | None:
    """Many body voxels at the very maximum: saturated, or cut to a range."""
    if measures.at_maximum <= CLIPPED_LIMIT or measures.minimum == measures.maximum:
        return None
    return f"{measures.at_maximum:.1%} of the body at {measures.maximum:g}"


def constant_slices(measures: Measures) -> str | None:
    """Slices of one value."""
    return f"{measures.flat_slices} of {measures.slices} slices" if measures.flat_slices else None


def empty_slices(measures: Measures) -> str | None:
    """Slices without anything above air or noise, between filled ones or in great number."""
    if measures.inner_empty_slices:
        return f"{measures.inner_empty_slices} between filled slices"
    share = measures.empty_slices / measures.slices
    return f"{measures.empty_slices} of {measures.slices} slices" if share > EMPTY_LIMIT else None


def slice_jump(measures: Measures) -> str | None:
    """A step between neighboring slices far above those around it."""
    if measures.jump <= JUMP_LIMIT or measures.jump_share <= JUMP_SHARE_LIMIT:
        return None
    return f"{measures.jump:.1f} × the steps around it, after slice {measures.jump_slice} of {measures.slices}"


def touches_border(measures: Measures) -> str | None:
    """Body at the right, left, anterior or posterior end of the field of view; an outline that is none has no ends."""
    if measures.body_share > NO_BACKGROUND_LIMIT:
        return None
    sides = [f"{side} {share:.0%}" for side, share in measures.border.items() if share > BORDER_LIMIT]
    return f"{', '.join(sides)} of that face" if sides else None


def no_background(measures: Measures) -> str | None:
    """No air around the body, so that no outline was found."""
    return f"{measures.body_share:.0%} of the volume" if measures.body_share > NO_BACKGROUND_LIMIT else None


def small_body(measures: Measures) -> str | None:
    """Next to nothing in the field of view."""
    return f"{measures.body_share:.1%} of the volume" if measures.body_share < SMALL_BODY_LIMIT else None


def low_contrast(measures: Measures) -> str | None:
    """Body intensities that hardly differ."""
    spread = measures.body_high - measures.body_low
    if measures.modality == "CT":
        return f"{spread:.0f} HU between the 2nd and the 98th percentile" if spread < LOW_CONTRAST_HU else None
    share = spread / abs(measures.body_high) if measures.body_high else 0.0
    return f"{share:.0%} of the 98th percentile" if share < LOW_CONTRAST_MR else None


def inverted(measures: Measures) -> str | None:
    """Corners of the field of view nearly as bright as the brightest tissue."""
    span = measures.high - measures.low
    place = (measures.corners - measures.low) / span if span > 0 else 0.0
    return f"corners at {place:.0%} of the intensity range" if place > INVERTED_LIMIT else None


def ct_without_air(measures: Measures) -> str | None:
    """CT without voxels near −1000 HU."""
    if measures.modality != "CT" or measures.air >= AIR_LIMIT:
        return None
    return f"{measures.air:.1%} of voxels between −1100 and −850 HU"


def ct_without_soft_tissue(measures: Measures) -> str | None:
    """CT without voxels near water."""
    if measures.modality != "CT" or measures.soft_tissue >= SOFT_TISSUE_LIMIT:
        return None
    return f"{measures.soft_tissue:.1%} of voxels between −200 and 200 HU"


def ct_below_air(measures: Measures) -> str | None:
    """CT with values that no matter has."""
    if measures.modality != "CT" or measures.below_air <= BELOW_AIR_LIMIT:
        return None
    return f"{measures.below_air:.1%} of voxels below −1100 HU, lowest {measures.minimum:.0f}".replace("-", "−")


def mr_with_negatives(measures: Measures) -> str | None:
    """MR magnitude cannot be negative."""
    if measures.modality != "MR" or measures.negative <= NEGATIVE_LIMIT:
        return None
    return f"{measures.negative:.0%} of voxels below 0"


def unknown_modality(measures: Measures) -> str | None:
    """Neither header nor file name told."""
    return "neither MR nor CT" if measures.modality is None else None


_RULES: Mapping[str, Callable[[Measures], str | None]] = {
    "INVERTED": inverted,
    "CT_WITHOUT_AIR": ct_without_air,
    "CT_WITHOUT_SOFT_TISSUE": ct_without_soft_tissue,
    "CT_BELOW_AIR": ct_below_air,
    "MR_WITH_NEGATIVES": mr_with_negatives,
    "CONSTANT_SLICES": constant_slices,
    "EMPTY_SLICES": empty_slices,
    "SLICE_JUMP": slice_jump,
    "SMALL_BODY": small_body,
    "TOUCHES_BORDER": touches_border,
    "NO_BACKGROUND": no_background,
    "LOW_CONTRAST": low_contrast,
    "CLIPPED": clipped,
    "ANISOTROPIC": anisotropic,
    "UNKNOWN_MODALITY": unknown_modality,
}

MEANINGS: Mapping[str, Meaning] = {
    "INVERTED": Meaning(
        3,
        f"the four corner columns lie above {INVERTED_LIMIT:.0%} of the way from the 1st to the 99th percentile",
        "Black and white are exchanged, or the field of view lies inside the body.",
    ),
    "CT_WITHOUT_AIR": Meaning(
        3,
        f"less than {AIR_LIMIT:.1%} of voxels between −1100 and −850 HU",
        "Offset not applied, values windowed, or not a CT. A field of view inside the body can do it too.",
    ),
    "CT_WITHOUT_SOFT_TISSUE": Meaning(
        3,
        f"less than {SOFT_TISSUE_LIMIT:.0%} of voxels between −200 and 200 HU",
        "Values are not HU, or it is not a CT.",
    ),
    "CT_BELOW_AIR": Meaning(
        2, f"more than {BELOW_AIR_LIMIT:.1%} of voxels below −1100 HU", "Padding taken for tissue, or a wrong offset."
    ),
    "MR_WITH_NEGATIVES": Meaning(
        3,
        f"more than {NEGATIVE_LIMIT:.0%} of voxels below 0",
        "A CT, a difference or a phase image under the name of an MR.",
    ),
    "CONSTANT_SLICES": Meaning(2, "a slice holds one value only", "Padding, or slices that were lost."),
    "EMPTY_SLICES": Meaning(
        2,
        f"nothing above air or noise in a slice between filled ones, or in more than {EMPTY_LIMIT:.0%} of the slices",
        "Slices that were lost or zeroed, or a coverage that misses the body.",
    ),
    "SLICE_JUMP": Meaning(
        2,
        f"the step between two slices is over {JUMP_LIMIT:g} × the median of the {2 * NEIGHBORS} steps around it and "
        f"over {JUMP_SHARE_LIMIT:.0%} of the intensity range",
        "Missing or swapped slices, motion, a stack made of two. Look at the coronal and sagittal pictures.",
    ),
    "SMALL_BODY": Meaning(
        2,
        f"the body fills less than {SMALL_BODY_LIMIT:.0%} of the volume",
        "An empty scan, or a phantom or a stray part.",
    ),
    "TOUCHES_BORDER": Meaning(
        2,
        f"over {BORDER_LIMIT:.0%} of the right, left, anterior or posterior face of the volume is body",
        "Body cut off by the field of view: some 10 mm or more of a head. Superior, inferior and the two ends of the "
        "stack of slices do not count, nor does a volume that raises NO_BACKGROUND.",
    ),
    "NO_BACKGROUND": Meaning(
        2,
        f"the body outline fills over {NO_BACKGROUND_LIMIT:.0%} of the volume",
        "A field of view inside the body, or noise and no anatomy. Figures of the body are then those of the whole "
        "volume.",
    ),
    "LOW_CONTRAST": Meaning(
        2,
        f"2nd to 98th percentile of the body: under {LOW_CONTRAST_HU:g} HU (CT), under {LOW_CONTRAST_MR:.0%} of the "
        "98th percentile (MR)",
        "An empty or saturated scan, a mask, or a constant.",
    ),
    "CLIPPED": Meaning(
        2, f"over {CLIPPED_LIMIT:.1%} of body voxels hold the maximum", "Saturated, or cut to a window."
    ),
    "ANISOTROPIC": Meaning(
        1,
        f"largest voxel side over {ANISOTROPY_LIMIT:g} × the smallest",
        "Thick slices: coarse in two of three planes.",
    ),
    "UNKNOWN_MODALITY": Meaning(
        2, "the source does not say MR or CT", "Name the modality in the file's path or header."
    ),
}
"""Meaning of the flags above."""
