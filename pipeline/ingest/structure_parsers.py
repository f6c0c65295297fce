"""What runs in the parsing process for segmentations and structure sets: what they refer to, and their voxels."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import QuarantineError
from pipeline.geometry import Geometry
from pipeline.ingest.allow_list import is_class_name
from pipeline.ingest.contours import roi_voxels
from pipeline.ingest.lesion_classes import first_class
from pipeline.ingest.segment_frames import segment_voxels
from pipeline.scan_io.dicom.attributes import DatasetAttributes
from pipeline.scan_io.dicom.exclusions import kind_of
from pipeline.scan_io.dicom.open_file import dataset
from pipeline.scan_io.references import References
from pipeline.scan_io.segmentation import Segment, Segmentation, segmentation_references, segments
from pipeline.scan_io.structure_set import Roi, rois, structure_set_references

Indices = NDArray[np.int64]
Voxels = Mapping[int, Indices | QuarantineError]

MAP_ADVICE = "Name it in ingest.lesion_classes, with the class it becomes."


@dataclass(frozen=True)
class Image:
    """A volume that structures may be drawn on.

    Attributes:
        shape: voxels along (i, j, k).
        affine: 16 numbers, voxel index → RAS+ mm.
        sop_instance_uids: in order of k, maybe none.
    """

    shape: tuple[int, ...]
    affine: tuple[float, ...]
    sop_instance_uids: tuple[str, ...]

    @property
    def grid(self) -> Geometry:
        """Its grid."""
        return Geometry(self.shape, np.reshape(self.affine, (4, 4)))


@dataclass(frozen=True)
class Choice:
    """A structure that a table gives a class.

    Attributes:
        structure: its number, or else its label or name.
        lesion_class: what it is.
        place: where the table says so, e.g. ``line 2``.
    """

    structure: str
    lesion_class: str
    place: str


@dataclass(frozen=True)
class DrawTask:
    """A segmentation or structure set, and the images it may belong to.

    Attributes:
        path: where it lies.
        images: candidates; of several the structures must fit exactly one.
        by_images: they were found by the images that the file names.
        lesion_classes: see `IngestSettings`.
        chosen: what a table says of the structures; where it does, that alone holds.
    """

    path: Path
    images: tuple[Image, ...]
    by_images: bool
    lesion_classes: dict[str, str] | None
    chosen: tuple[Choice, ...] = ()


@dataclass(frozen=True)
class LabelVoxels:
    """Structures that do not overlap: int16 (i, j, k), and the class of every value above 0."""

    voxels: NDArray[np.int16]
    classes: dict[int, str]


@dataclass(frozen=True)
class Drawn:
    """Structures on image number ``image`` of the task, and why others are not drawn."""

    image: int
    maps: tuple[LabelVoxels, ...]
    refusals: tuple[QuarantineError, ...]


def read_references(path: Path) -> References:
    """What a segmentation or structure set is drawn on.

    Raises:
        QuarantineError: what `open_file.dataset` raises; NOT_AN_IMAGE for another object.
    """
    root = DatasetAttributes(dataset(path))
    kind = kind_of(root.text("SOPClassUID") or "")
    if kind == "segmentation":
        return segmentation_references(root)
    if kind == "structure_set":
        return structure_set_references(root)
    raise QuarantineError("NOT_AN_IMAGE", "neither segmentation nor structure set", "Leave it out.")


def draw_structures(task: DrawTask) -> Drawn:
    """The structures of a file that become lesions, on the image they fit.

    Raises:
        QuarantineError: what makes the whole file unusable, e.g. EMPTY_STRUCTURE_SET, UNMAPPED_STRUCTURE,
            AMBIGUOUS_REFERENCE.
    """
    parsed = dataset(task.path)
    root = DatasetAttributes(parsed)
    refusals: list[QuarantineError] = []
    if kind_of(root.text("SOPClassUID") or "") == "segmentation":
        listed = segments(root)
        classes = _segment_classes(listed, task, refusals)
        segmentation = Segmentation(parsed)
        found = [segment_voxels(segmentation, classes, image.grid) for image in task.images]
    else:
        regions = rois(root)
        classes = _roi_classes(regions, task, refusals)
        wanted = [roi for roi in regions if roi.number in classes]
        _tell_open_contours(wanted, refusals)
        found = [_roi_voxels(wanted, image, task.by_images) for image in task.images]
    if not classes:
        return Drawn(0, (), tuple(refusals))
    index = _fitting(found)
    refusals += _by_reason(found[index])
    voxels = {number: indices for number, indices in found[index].items() if not isinstance(indices, QuarantineError)}
    return Drawn(index, tuple(_label_maps(voxels, classes, task.images[index].shape)), tuple(refusals))


def _segment_classes(listed: Sequence[Segment], task: DrawTask, refusals: list[QuarantineError]) -> dict[int, str]:
    """Class of each segment that has one: by the table, else the mapping, else the term of its code."""
    mapping = task.lesion_classes
    if task.chosen:
        return _chosen_classes({segment.number: segment.label for segment in listed}, task.chosen, refusals)
    if mapping is None:
        terms = {segment.number: segment.term for segment in listed}
        classes = {number: term for number, term in terms.items() if term is not None and is_class_name(term)}
        unknown = len(listed) - len(classes)
        if unknown:
            found = f"{unknown} of {len(listed)} segments without a code of SNOMED CT or DICOM that names them"
            refusals.append(QuarantineError("UNMAPPED_STRUCTURE", found, MAP_ADVICE))
        return classes
    mapped = {segment.number: first_class(segment.names, mapping) for segment in listed}
    classes = {number: name for number, name in mapped.items() if name is not None}
    if not classes:
        refusals.append(_none_mapped(len(listed), "segments"))
    return classes


def _roi_classes(regions: Sequence[Roi], task: DrawTask, refusals: list[QuarantineError]) -> dict[int, str]:
    """Class of each region that has one by the table or the mapping; names are free text and never become a class.

    Raises:
        QuarantineError: UNMAPPED_STRUCTURE.
    """
    mapping = task.lesion_classes
    if task.chosen:
        return _chosen_classes({roi.number: roi.name for roi in regions}, task.chosen, refusals)
    if mapping is None:
        found = f"{len(regions)} structures, and no ingest.lesion_classes to tell what they are"
        raise QuarantineError("UNMAPPED_STRUCTURE", found, MAP_ADVICE)
    mapped = {roi.number: first_class([roi.name], mapping) for roi in regions}
    classes = {number: name for number, name in mapped.items() if name is not None}
    if not classes:
        raise _none_mapped(len(regions), "structures")
    return classes


def _chosen_classes(
    names: Mapping[int, str], chosen: Sequence[Choice], refusals: list[QuarantineError]
) -> dict[int, str]:
    """Class of each structure that a table names by number, else by label or name, case not counted."""
    classes: dict[int, str] = {}
    for choice in chosen:
        word = choice.structure.strip().casefold()
        numbers = [number for number in names if str(number) == word]
        numbers = numbers or [number for number, name in names.items() if name.strip().casefold() == word]
        if len(numbers) == 1 and classes.setdefault(numbers[0], choice.lesion_class) == choice.lesion_class:
            continue
        what = f"{len(numbers)} structures of {len(names)} with the number or name that it tells"
        if len(numbers) == 1:
            what = "a structure that an earlier line gives another class"
        advice = "Correct the line; a number is a Segment Number or ROI Number."
        refusals.append(QuarantineError("STRUCTURE_ABSENT", f"{choice.place}: {what}", advice))
    return classes


def _none_mapped(count: int, what: str) -> QuarantineError:
    return QuarantineError("UNMAPPED_STRUCTURE", f"{count} {what}, none of them in ingest.lesion_classes", MAP_ADVICE)


def _roi_voxels(regions: Sequence[Roi], image: Image, by_images: bool) -> Voxels:
    slices: dict[str, list[int]] = defaultdict(list)
    for k, uid in enumerate(image.sop_instance_uids):
        slices[uid].append(k)
    found: dict[int, Indices | QuarantineError] = {}
    for roi in regions:
        try:
            found[roi.number] = roi_voxels(roi, image.grid, slices, by_images=by_images)
        except QuarantineError as error:
            found[roi.number] = error
    return found


def _tell_open_contours(regions: Sequence[Roi], refusals: list[QuarantineError]) -> None:
    drawn = [roi for roi in regions if roi.contours]
    skipped = sum(roi.open_contours for roi in drawn)
    if skipped:
        found = f"{skipped} points or open lines beside {sum(len(roi.contours) for roi in drawn)} closed contours"
        refusals.append(QuarantineError("OPEN_CONTOUR", found, "Nothing to do if closed contours alone are meant."))


def _fitting(found: Sequence[Voxels]) -> int:
    """Number of the one image that all structures fit; the first where there is no choice.

    Raises:
        QuarantineError: AMBIGUOUS_REFERENCE.
    """
    if len(found) == 1:
        return 0
    fitting = [
        index
        for index, voxels in enumerate(found)
        if not any(isinstance(value, QuarantineError) for value in voxels.values())
    ]
    if len(fitting) > 1:
        what = f"{len(fitting)} volumes that the structures fit"
        raise QuarantineError("AMBIGUOUS_REFERENCE", what, "Name the images in the file, or ingest the volumes apart.")
    return fitting[0] if fitting else 0


def _by_reason(voxels: Voxels) -> list[QuarantineError]:
    """One refusal for each reason, with the number of structures and what was found of the first."""
    grouped: dict[str, list[QuarantineError]] = defaultdict(list)
    for value in voxels.values():
        if isinstance(value, QuarantineError):
            grouped[value.reason].append(value)
    return [
        QuarantineError(reason, f"{len(errors)} of {len(voxels)} structures: {errors[0].found}", errors[0].advice)
        for reason, errors in grouped.items()
    ]


def _label_maps(voxels: Mapping[int, Indices], classes: Mapping[int, str], shape: tuple[int, ...]) -> list[LabelVoxels]:
    """As few maps as a first fit needs for structures that overlap; values count from 1 over all of them."""
    maps: list[LabelVoxels] = []
    for value, (number, indices) in enumerate(voxels.items(), start=1):
        free = (label for label in maps if not label.voxels.ravel()[indices].any())
        label = next(free, None)
        if label is None:
            label = LabelVoxels(np.zeros(shape, np.int16), {})
            maps.append(label)
        label.voxels.ravel()[indices] = value
        label.classes[value] = classes[number]
    return maps
