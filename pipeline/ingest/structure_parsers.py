"""What runs in the parsing process for segmentations and structure sets: what they refer to, and their voxels."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import QuarantineError
from pipeline.geometry import Geometry
from pipeline.ingest.contours import roi_voxels
from pipeline.ingest.segment_frames import segment_voxels
from pipeline.ingest.structure_classes import Choice, roi_classes, segment_classes
from pipeline.scan_io.dicom.dataset_attributes import DatasetAttributes
from pipeline.scan_io.dicom.exclusions import kind_of
from pipeline.scan_io.dicom.parsed_file import dataset
from pipeline.scan_io.references import References
from pipeline.scan_io.segmentation import Segmentation, segmentation_references, segments
from pipeline.scan_io.structure_set import ListedRoi, Roi, listed_rois, structure_set_references

Indices = NDArray[np.int64]
Voxels = Mapping[int, Indices | QuarantineError]

THRESHOLDED = "MASK_THRESHOLDED"
"""Flag of series with a segmentation of fractions: voxels from half of MaximumFractionalValue on are taken."""


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
    """Structures on image number ``image`` of the task, why others are not drawn, and what was done to them."""

    image: int
    maps: tuple[LabelVoxels, ...]
    refusals: tuple[QuarantineError, ...]
    flags: tuple[str, ...] = ()


def read_references(path: Path) -> References:
    """What a segmentation or structure set is drawn on.

    Raises:
        QuarantineError: what `parsed_file.dataset` raises; NOT_AN_IMAGE for another object.
    """
    root = DatasetAttributes(dataset(path))
    found = segmentation_references(root) if _is_segmentation(root) else structure_set_references(root)
    with path.open("rb") as stream:
        return replace(found, sha256=hashlib.file_digest(stream, "sha256").hexdigest())


def draw_structures(task: DrawTask) -> Drawn:
    """The structures of a file that become lesions, on the image they fit.

    Raises:
        QuarantineError: what makes the whole file unusable, e.g. EMPTY_STRUCTURE_SET, UNMAPPED_STRUCTURE,
            AMBIGUOUS_REFERENCE.
    """
    parsed = dataset(task.path)
    root = DatasetAttributes(parsed)
    refusals: list[QuarantineError] = []
    is_segmentation = _is_segmentation(root)
    if is_segmentation:
        listed = segments(root)
        classes = segment_classes(listed, task.lesion_classes, task.chosen, refusals)
        segmentation = Segmentation(parsed)
        found = [segment_voxels(segmentation, classes, image.grid) for image in task.images]
    else:
        regions = listed_rois(root)
        classes = roi_classes(regions, task.lesion_classes, task.chosen, refusals)
        wanted = {listed.number: _roi(listed) for listed in regions if listed.number in classes}
        _tell_open_contours([roi for roi in wanted.values() if isinstance(roi, Roi)], refusals)
        found = [_roi_voxels(wanted, image, task.by_images) for image in task.images]
    if not classes:
        return Drawn(0, (), tuple(refusals))
    index = _fitting(found)
    refusals += _by_reason(found[index])
    voxels = {number: indices for number, indices in found[index].items() if not isinstance(indices, QuarantineError)}
    shape = task.images[index].shape
    if not is_segmentation:
        _tell_gaps(voxels, shape[2], refusals)
    flags = (THRESHOLDED,) if root.text("SegmentationType") == "FRACTIONAL" else ()
    return Drawn(index, tuple(_label_maps(voxels, classes, shape)), tuple(refusals), flags)


def _is_segmentation(root: DatasetAttributes) -> bool:
    """Tell a segmentation from a structure set; QuarantineError NOT_AN_IMAGE for another object."""
    kind = kind_of(root.text("SOPClassUID") or "")
    if kind in {"segmentation", "structure_set"}:
        return kind == "segmentation"
    raise QuarantineError("NOT_AN_IMAGE", "neither segmentation nor structure set", "Leave it out.")


def _roi(listed: ListedRoi) -> Roi | QuarantineError:
    try:
        return listed.roi()
    except QuarantineError as error:
        return error


def _roi_voxels(regions: Mapping[int, Roi | QuarantineError], image: Image, by_images: bool) -> Voxels:
    slices: dict[str, list[int]] = defaultdict(list)
    for k, uid in enumerate(image.sop_instance_uids):
        slices[uid].append(k)
    found: dict[int, Indices | QuarantineError] = {}
    for number, roi in regions.items():
        if isinstance(roi, QuarantineError):
            found[number] = roi
            continue
        try:
            found[number] = roi_voxels(roi, image.grid, slices, by_images=by_images)
        except QuarantineError as error:
            found[number] = error
    return found


def _tell_open_contours(regions: Sequence[Roi], refusals: list[QuarantineError]) -> None:
    drawn = [roi for roi in regions if roi.contours]
    skipped = sum(roi.open_contours for roi in drawn)
    if skipped:
        found = f"{skipped} points or open lines beside {sum(len(roi.contours) for roi in drawn)} closed contours"
        refusals.append(QuarantineError("OPEN_CONTOUR", found, "Nothing to do if closed contours alone are meant."))


def _tell_gaps(voxels: Mapping[int, Indices], slices: int, refusals: list[QuarantineError]) -> None:
    """Report single slices without contour between slices with one: drawn lesions have parts, but rarely such gaps."""
    gaps = {number: sum(np.diff(np.unique(indices % slices)) == 2) for number, indices in voxels.items()}
    affected = sum(count > 0 for count in gaps.values())
    if affected:
        found = f"{affected} of {len(voxels)} structures: {sum(gaps.values())} slices without contour between others"
        refusals.append(QuarantineError("CONTOUR_GAP", found, "Nothing is drawn there; add the contours if they lack."))


def _fitting(found: Sequence[Voxels]) -> int:
    """Number of the one image that most structures fit; the first where there is no choice, or where none fits any.

    Raises:
        QuarantineError: AMBIGUOUS_REFERENCE.
    """
    counts = [sum(not isinstance(value, QuarantineError) for value in voxels.values()) for voxels in found]
    most = max(counts)
    equal = counts.count(most)
    if most and equal > 1:
        what = f"{equal} volumes that the structures fit"
        raise QuarantineError("AMBIGUOUS_REFERENCE", what, "Name the images in the file, or ingest the volumes apart.")
    return counts.index(most)


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
