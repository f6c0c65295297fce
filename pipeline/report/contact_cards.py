"""Cards of the contact sheet: what is shown of one series, from a row of the catalog and its voxels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from pipeline.catalog import Catalog
from pipeline.geometry import Geometry
from pipeline.report.cohort_flags import Member, meaning
from pipeline.report.contact_pictures import (
    PLANES,
    PlanePicture,
    native_plane,
    orientation_code,
    patient_order,
    plane_picture,
)
from pipeline.report.histograms import CT_MARKS, Histogram, histogram
from pipeline.report.quality_flags import Flag, volume_flags
from pipeline.report.quality_measures import Measures, measure

CT_WINDOW = (-400.0, 800.0)
"""HU shown black and white; fixed, so that a wrong offset is seen."""

_OBLIQUE_FROM_DEGREES = 0.5


class Card(BaseModel):
    """One series on the sheet; every text is a pseudonym, a defined term or a number.

    Attributes:
        series_id, subject_id: pseudonyms.
        modality, body_part, sequence, volume_label: as in the catalog, empty where unknown.
        plane: plane that the stored slices are closest to.
        orientation: letters of the stored axes, plane of the slices, angle where oblique.
        matrix, spacing, extent: voxels, mm, mm.
        intensities: range in words.
        facts: further facts as (name, text).
        classes: lesion classes with their number of lesions.
        pictures: three planes, and the largest lesion where there is one.
        histogram: of intensities.
        flags: reasons to look, gravest first.
    """

    model_config = ConfigDict(frozen=True)
    series_id: str
    subject_id: str
    modality: str
    body_part: str
    sequence: str
    volume_label: str
    plane: str
    orientation: str
    matrix: str
    spacing: str
    extent: str
    intensities: str
    facts: tuple[tuple[str, str], ...]
    classes: tuple[tuple[str, int], ...]
    pictures: tuple[PlanePicture, ...]
    histogram: Histogram
    flags: tuple[Flag, ...]

    @property
    def score(self) -> int:
        """How much speaks for looking: one grave flag outweighs two lesser ones."""
        return sum(3 ** (meaning(flag.code).weight - 1) for flag in self.flags)

    def flagged(self, further: Sequence[Flag]) -> "Card":
        """This card with further flags, gravest first."""
        flags = sorted((*self.flags, *further), key=lambda flag: -meaning(flag.code).weight)
        return self.model_copy(update={"flags": tuple(flags)})


def volume_card(catalog: Catalog, row: Mapping[str, Any], lesions: Sequence[Mapping[str, Any]]) -> tuple[Card, Member]:
    """Card of a volume, and what the comparison with its kind needs.

    Args:
        catalog: the catalog.
        row: a series row of kind ``volume``.
        lesions: its lesion rows.
    """
    voxels, affine = catalog.volume(row)
    geometry = Geometry(voxels.shape, affine)
    measures = measure(voxels, geometry, row["modality"])
    card = Card(
        series_id=row["series_id"],
        subject_id=row["subject_id"],
        modality=row["modality"] or "",
        body_part=row["body_part"] or "",
        sequence=row["sequence"] or "",
        volume_label=row["volume_label"] or "",
        plane=native_plane(geometry)[0],
        orientation=_orientation(geometry),
        matrix=" × ".join(str(size) for size in voxels.shape),
        spacing=" × ".join(f"{side:.3g}" for side in geometry.spacing_mm),
        extent=" × ".join(f"{side:.0f}" for side in measures.extent_mm),
        intensities=_intensities(measures),
        facts=_facts(row),
        classes=_classes(lesions),
        pictures=_pictures(catalog, voxels, geometry, measures, lesions),
        histogram=_histogram(measures),
        flags=(),
    )
    recorded = [Flag(code=code) for code in row["flags"] or ()]
    kind = (row["modality"], row["sequence"], row["body_part"], row["volume_label"])
    member = Member(row["series_id"], kind, measures.spacing_mm, measures.extent_mm, measures.quantiles)
    return card.flagged([*recorded, *volume_flags(measures)]), member


def _orientation(geometry: Geometry) -> str:
    plane, angle = native_plane(geometry)
    tilt = f", {angle:.0f}° oblique" if angle >= _OBLIQUE_FROM_DEGREES else ""
    return f"{orientation_code(geometry)}, {plane} slices{tilt}"


def _intensities(measures: Measures) -> str:
    if measures.modality == "CT":
        return f"{measures.minimum:.0f} to {measures.maximum:.0f} HU".replace("-", "−")
    text = f"{measures.low:.4g} to {measures.high:.4g} (1st to 99th percentile), largest {measures.maximum:.4g}"
    return text.replace("-", "−")


def _facts(row: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    tilt = row["tilt_degrees"]
    found = (
        ("patient position", row["patient_position"]),
        ("source", row["source"]),
        ("study date, shifted", row["study_date"]),
        ("gantry tilt", None if tilt is None else f"{tilt:.1f}°".replace("-", "−")),
        ("split, as published", row["published_split"]),
    )
    return tuple((name, str(value)) for name, value in found if value)


def _classes(lesions: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, int], ...]:
    names = [str(lesion["lesion_class"]) for lesion in lesions]
    return tuple((name, names.count(name)) for name in sorted(set(names)))


def _histogram(measures: Measures) -> Histogram:
    if measures.modality == "CT":
        return histogram(measures.histogram, measures.histogram_range, CT_MARKS, "Intensities in HU")
    marks = ((measures.low, "1 %"), (measures.middle, "50 %"), (measures.high, "99 %"))
    return histogram(measures.histogram, measures.histogram_range, marks, "Intensities, percentiles")


def _pictures(
    catalog: Catalog,
    voxels: npt.NDArray[Any],
    geometry: Geometry,
    measures: Measures,
    lesions: Sequence[Mapping[str, Any]],
) -> tuple[PlanePicture, ...]:
    """Three planes through the middle of the body; an axial one through the largest lesion, where there is one."""
    ordered, grid = patient_order(voxels, geometry)
    window = CT_WINDOW if measures.modality == "CT" else (measures.low, measures.high)
    labels, classes = _labels(catalog, geometry, lesions)
    hung = None if labels is None else patient_order(labels, geometry)[0]
    pictures = [plane_picture(plane, ordered, grid, measures.center, window, hung, classes) for plane in PLANES]
    if hung is not None:
        height = _largest_section(hung)
        center = (*measures.center[:2], height)
        shown = plane_picture("axial", ordered, grid, center, window, hung, classes)
        pictures.append(shown.model_copy(update={"note": f"largest lesion, {shown.note}"}))
    return tuple(pictures)


def _labels(
    catalog: Catalog, geometry: Geometry, lesions: Sequence[Mapping[str, Any]]
) -> tuple[npt.NDArray[np.int16] | None, dict[int, str]]:
    """One label map of all masks of a series, and the class of each label; None without a mask on its grid."""
    labels, classes = np.zeros(geometry.shape, np.int16), {}
    masks: dict[str, npt.NDArray[Any]] = {}
    for number, lesion in enumerate((row for row in lesions if row["mask_path"] is not None), 1):
        path = lesion["mask_path"]
        if path not in masks:
            mask, affine = catalog.mask(lesion)
            if not (mask.shape == geometry.shape and Geometry(mask.shape, affine).matches(geometry, 0.01)):
                continue
            masks[path] = mask
        labels[masks[path] == lesion["mask_value"]] = number
        classes[number] = str(lesion["lesion_class"])
    return (labels, classes) if labels.any() else (None, {})


def _largest_section(labels: npt.NDArray[np.int16]) -> int:
    """Height at which the largest lesion has its largest section."""
    values, counts = np.unique(labels[labels > 0], return_counts=True)
    largest = labels == values[np.argmax(counts)]
    return int(np.argmax(largest.sum(axis=(0, 1))))
