"""What a layout finds, before it is de-identified and written: volumes, images, masks, refusals.

These objects carry identities (words that name a subject or a series); only `CatalogBuilder` sees them, and it turns
every word into a keyed pseudonym.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Geometry
from pipeline.ingest.isolated import spread_outcomes
from pipeline.ingest.source_tree import Refusal, SourceTree
from pipeline.records import ProgressCallback
from pipeline.safe_parse import Limits
from pipeline.scan_io import Scan
from pipeline.settings import IngestSettings
from pipeline.spreading import Spread, here

if TYPE_CHECKING:
    from pipeline.ingest.readings import Parse, Question, Readings
    from pipeline.safe_parse import Outcome

Task = TypeVar("Task")
Result = TypeVar("Result")

NEAR_DUPLICATES = "near_duplicates"
"""Source of subject ids where the input has none: clusters of near-copies."""


@dataclass(frozen=True)
class FoundVolume:
    """A volume with geometry.

    Attributes:
        scan: voxels, geometry and header facts.
        source: ``dicom`` or ``nifti``.
        word: names the series in its source, unique within one reading.
        subject_word, subject_source: names the subject, and where the name comes from.
        names: source files.
    """

    scan: Scan
    source: str
    word: str
    subject_word: str
    subject_source: str
    names: tuple[str, ...]

    @cached_property
    def content_sha256(self) -> str:
        """Hash of voxels and geometry."""
        return content_hash(self.scan.voxels, self.scan.geometry.affine)


@dataclass(frozen=True)
class FoundImage:
    """An image without geometry.

    Attributes:
        pixels: (rows, columns) or (rows, columns, channels).
        source: layout it comes from.
        word: names the image in its source.
        names: source files.
        subject_word: names the subject; None where the source has no subjects.
        subject_source: where the name comes from.
        modality: MR, CT or None.
        lesion_class: class of the whole image, or None.
        slice_index: slice number inside its case, or −1.
        pair_word: equal for registered MR and CT images, or None.
        published_split: train, validation, test or None.
    """

    pixels: NDArray[Any]
    source: str
    word: str
    names: tuple[str, ...]
    subject_word: str | None = None
    subject_source: str = NEAR_DUPLICATES
    modality: str | None = None
    lesion_class: str | None = None
    slice_index: int = -1
    pair_word: str | None = None
    published_split: str | None = None


@dataclass(frozen=True)
class FoundMask:
    """Lesions of one volume.

    Attributes:
        voxels: (i, j, k) on the grid of the volume.
        geometry: that grid.
        series_word: `FoundVolume.word` of the volume.
        classes: mask value -> lesion class; every value occurs in the mask.
        name: source file.
        flags: what was done to the mask, for the flags of its series; see `ScanFacts.flags`.
    """

    voxels: NDArray[Any]
    geometry: Geometry
    series_word: str
    classes: Mapping[int, str]
    name: str
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ignored:
    """Files that are no scans and need no quarantine, e.g. notes and tables."""

    count: int


Found: TypeAlias = FoundVolume | FoundImage | FoundMask | Refusal | Ignored


@dataclass(frozen=True)
class Reading:
    """What a layout's reader is given.

    Attributes:
        tree: the input.
        settings: how to read.
        progress: counted in files.
        readings: what is known of the input from earlier, or None to parse everything.
        spread: where to parse.
    """

    tree: SourceTree
    settings: IngestSettings
    progress: ProgressCallback
    readings: "Readings | None" = None
    spread: Spread = here
    limits: Limits = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "limits", Limits(self.settings.timeout_s, self.settings.memory_limit_mb))

    def outcomes(
        self, question: "Question[Task]", tasks: Sequence[Task], parse: "Parse[Task, Result]", at_a_time: int = 4
    ) -> "Iterator[Outcome[Task, Result]]":
        """Outcomes of tasks in order: known ones as they were, the others parsed; see `Readings.outcomes`.

        Args:
            question: what the parser is asked.
            tasks: what to parse.
            parse: yields the outcomes of the tasks that it is given; picklable.
            at_a_time: tasks to parse in one go where they are parsed elsewhere: many headers, or a few volumes.
        """
        parts = partial(spread_outcomes, self.spread, parse, at_a_time)
        return parts(tasks) if self.readings is None else self.readings.outcomes(question, tasks, parts)


@dataclass(frozen=True)
class Layout:
    """One way to organize an input folder.

    Attributes:
        recognize: a sentence on why a tree is of this layout, or None where it is not; it quotes no names.
        read: yields what is found, in a fixed order.
    """

    recognize: Callable[[SourceTree], str | None]
    read: Callable[[Reading], Iterator[Found]]


def content_hash(voxels: NDArray[Any], affine: NDArray[np.float64] | None = None) -> str:
    """SHA-256 of an array's type, shape and values, and of its affine where it has one.

    Volumes are hashed first axis fastest, as they are read and stored, whatever their order in memory.
    """
    digest = hashlib.sha256(f"{voxels.dtype.str}{voxels.shape}".encode())
    digest.update(np.ascontiguousarray(voxels if affine is None else voxels.T).data)
    if affine is not None:
        digest.update(np.ascontiguousarray(affine + 0.0, dtype="<f8").data)
    return digest.hexdigest()
