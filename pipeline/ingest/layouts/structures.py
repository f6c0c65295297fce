"""Lesions from DICOM segmentations and structure sets, on the volumes that were accepted.

A file belongs to the volume that holds most of the images it names. A segmentation whose images are not there may still
fit one volume of its series or frame of reference, on the grid of which all its frames lie; a structure set that names
no image may fit one by the planes of its contours.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.errors import QuarantineError
from pipeline.ingest.found import Found, FoundMask, Reading
from pipeline.ingest.layouts.scan_lesions import PlacedVolume, VolumePlaces, check_referred, grouped
from pipeline.ingest.lesion_table import LesionRow
from pipeline.ingest.readings import Question
from pipeline.ingest.source_tree import Refusal, SourceFile
from pipeline.ingest.structure_classes import Choice
from pipeline.ingest.structure_parsers import DrawTask, Image, draw_structures, read_references
from pipeline.safe_parse import parse_all
from pipeline.scan_io.references import References

RESAMPLED = "TILT_CORRECTED"
"""Flag of volumes whose voxels are not where those of the images were."""

_PARSERS = "pipeline.ingest.structure_parsers"
_LOST = QuarantineError("UNREADABLE", "no result", "Copy it again.")
_COPY = QuarantineError("DUPLICATE_STRUCTURES", "the same file a second time", "Nothing to do; one is kept.")
_RESAMPLED = QuarantineError(
    "IMAGE_RESAMPLED",
    "structures of a series whose gantry tilt was corrected",
    "Resample image and structures together before ingest.",
)


@dataclass(frozen=True)
class _Drawing:
    """A file, the volumes it may be drawn on, whether it names their images, and what a table says of it."""

    file: SourceFile
    words: tuple[str, ...]
    by_images: bool
    chosen: tuple[Choice, ...] = ()


def structure_lesions(reading: Reading, places: VolumePlaces, files: Sequence[SourceFile]) -> Iterator[Found]:
    """Masks on the grids of their volumes, and a refusal for every file or structure that cannot be trusted.

    Args:
        reading: the input and how to read it.
        places: the volumes that were accepted.
        files: segmentations and structure sets.
    """
    drawings = []
    seen: set[References] = set()
    question: Question[Path] = Question("references", _PARSERS, lambda path: (path,), lambda _: None)
    parse = partial(parse_all, read_references, limits=reading.limits)
    outcomes = reading.outcomes(question, [file.path for file in files], parse)
    for file, outcome in zip(files, outcomes, strict=True):
        try:
            if outcome.result is None:
                raise outcome.refusal or _LOST
            if outcome.result in seen:
                raise _COPY
            seen.add(outcome.result)
            drawings.append(_Drawing(file, *_candidates(places, outcome.result)))
        except QuarantineError as error:
            yield Refusal((file.name,), error)
    yield from _drawn(reading, places, drawings)


def chosen_lesions(reading: Reading, places: VolumePlaces, rows: Sequence[LesionRow]) -> Iterator[Found]:
    """As `structure_lesions`, for the structures, images and classes that rows of a table name."""
    files = reading.tree.named()
    drawings = []
    for (mask, image), members in grouped(rows):
        try:
            check_referred(mask, image, members[0].place, files, places)
            chosen = tuple(Choice(row.structure or "", row.lesion_class, row.place) for row in members)
            drawings.append(_Drawing(files[mask], drawable(places, places.words[image]), False, chosen))
        except QuarantineError as error:
            yield Refusal((mask,), error)
    yield from _drawn(reading, places, drawings)


def _drawn(reading: Reading, places: VolumePlaces, drawings: Sequence[_Drawing]) -> Iterator[Found]:
    mapping = reading.settings.lesion_classes
    tasks = [
        DrawTask(
            drawing.file.path,
            tuple(_image(places.volumes[word]) for word in drawing.words),
            drawing.by_images,
            None if mapping is None else dict(mapping),
            drawing.chosen,
        )
        for drawing in drawings
    ]
    question: Question[DrawTask] = Question("structures", _PARSERS, lambda task: (task.path,), _asked)
    outcomes = reading.outcomes(question, tasks, partial(parse_all, draw_structures, limits=reading.limits))
    for count, (drawing, outcome) in enumerate(zip(drawings, outcomes, strict=True), start=1):
        name = drawing.file.name
        if outcome.result is None:
            yield Refusal((name,), outcome.refusal or _LOST)
        else:
            yield from (Refusal((name,), refusal) for refusal in outcome.result.refusals)
            word = drawing.words[outcome.result.image]
            for label in outcome.result.maps:
                yield FoundMask(
                    label.voxels, places.volumes[word].geometry, word, label.classes, name, outcome.result.flags
                )
        reading.progress("structures read", count, len(tasks))


def _asked(task: DrawTask) -> list[Any]:
    """What is drawn depends on beside the content of the file; of the mapping also on the order."""
    images = [astuple(image) for image in task.images]
    mapping = None if task.lesion_classes is None else list(task.lesion_classes.items())
    return [images, task.by_images, mapping, [astuple(choice) for choice in task.chosen]]


def _candidates(places: VolumePlaces, references: References) -> tuple[tuple[str, ...], bool]:
    """Volumes that a file may be drawn on, and whether they hold images that it names.

    Raises:
        QuarantineError: MISSING_REFERENCE, IMAGE_RESAMPLED.
    """
    shared = Counter(word for uid in references.sop_instance_uids for word in places.by_image.get(uid, ()))
    if shared:
        most = max(shared.values())
        words = [word for word, count in shared.items() if count == most]
    elif references.kind == "structure_set" and references.sop_instance_uids:
        words = []
    else:
        words = _of_series_or_frame(places, references)
    if not words:
        images, series = len(references.sop_instance_uids), len(references.series_uids)
        found = f"{images} images in {series} series referred to, none of them among the volumes"
        raise QuarantineError("MISSING_REFERENCE", found, "Add the series; if it was refused, see its own row.")
    return drawable(places, words), bool(shared)


def drawable(places: VolumePlaces, words: Iterable[str]) -> tuple[str, ...]:
    """Words, sorted, of those volumes whose voxels are where those of their images were.

    Raises:
        QuarantineError: IMAGE_RESAMPLED where none is.
    """
    usable = sorted(word for word in words if RESAMPLED not in places.volumes[word].flags)
    if not usable:
        raise _RESAMPLED
    return tuple(usable)


def _of_series_or_frame(places: VolumePlaces, references: References) -> list[str]:
    series, frames = set(references.series_uids), set(references.frame_of_reference_uids)
    volumes = places.volumes.items()
    of_series = [word for word, volume in volumes if volume.series_uid in series]
    return of_series or [word for word, volume in volumes if volume.frame_of_reference_uid in frames]


def _image(volume: PlacedVolume) -> Image:
    grid = volume.geometry
    return Image(grid.shape, tuple(grid.affine.ravel().tolist()), volume.sop_instance_uids)
