"""Label maps of segmentation sets: one file of whole numbers a case, and a class for the numbers that are lesions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import QuarantineError
from pipeline.geometry import Geometry
from pipeline.ingest.found import Found, FoundMask, Reading
from pipeline.ingest.layouts.nifti_cases import mask_outcomes
from pipeline.ingest.lesion_masks import AlignedMask, MaskTask
from pipeline.ingest.source_tree import Refusal, SourceFile


@dataclass(frozen=True)
class LabelMap:
    """A label map and the volumes that it is drawn on.

    Attributes:
        file: the map.
        geometry: grid of those volumes.
        words: `FoundVolume.word` of each.
    """

    file: SourceFile
    geometry: Geometry
    words: tuple[str, ...]


def read_label_maps(
    reading: Reading, maps: Sequence[LabelMap], classes: Mapping[int, str], *, unlabeled: frozenset[int] = frozenset()
) -> Iterator[Found]:
    """The lesions of every map on the grid of its volumes; a class need not occur in each map.

    Args:
        reading: what is read.
        maps: what to read.
        classes: mask value → lesion class.
        unlabeled: further values that may occur and mean nothing.
    """
    tasks = [
        MaskTask(label.file.path, ((label.geometry.shape, tuple(label.geometry.affine.ravel().tolist())),))
        for label in maps
    ]
    for count, (label, outcome) in enumerate(zip(maps, mask_outcomes(reading, tasks), strict=True), 1):
        if outcome.result is None:
            refusal = outcome.refusal or QuarantineError("UNREADABLE", "no result", "Copy it again.")
            yield Refusal((label.file.name,), refusal)
        else:
            yield from _lesions(label, outcome.result, classes, unlabeled)
        reading.progress("masks read", count, len(tasks))


def _lesions(
    label: LabelMap, mask: AlignedMask, classes: Mapping[int, str], unlabeled: frozenset[int]
) -> Iterator[Found]:
    present = set(np.unique(mask.voxels).tolist()) - {0}
    unknown = present - set(classes) - unlabeled
    if unknown:
        found = f"{len(unknown)} of {len(present)} values without a class, e.g. {min(unknown)}"
        advice = "Name every value under labels in dataset.json, or correct the map."
        yield Refusal((label.file.name,), QuarantineError("MASK_VALUE_UNKNOWN", found, advice))
        return
    drawn = {value: classes[value] for value in sorted(present - unlabeled)}
    if drawn:
        for word in label.words:
            yield FoundMask(mask.voxels, label.geometry, word, drawn, label.file.name)


def missing(what: str) -> QuarantineError:
    """A file that is referred to and not there."""
    return QuarantineError(
        "MISSING_REFERENCE", f"{what} that is not in the input", "Add the file, or correct its name."
    )


IMAGE_REFUSED = QuarantineError("IMAGE_REFUSED", "labels of an image that was refused", "See the image's own row.")
NOT_LISTED = QuarantineError(
    "NOT_LISTED", "an image that the set does not know", "Add it to the set, or take it out of the folder."
)
