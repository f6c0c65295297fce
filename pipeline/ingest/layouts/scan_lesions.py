"""Lesions of scans: rows of a table that name values of masks, joined to the volumes that were accepted."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pipeline.errors import QuarantineError
from pipeline.geometry import Geometry
from pipeline.ingest.found import Found, FoundMask, FoundVolume, Reading
from pipeline.ingest.layouts.nifti_cases import mask_outcomes
from pipeline.ingest.lesion_masks import AlignedMask, MaskTask
from pipeline.ingest.lesion_table import LesionRow
from pipeline.ingest.source_tree import Refusal, SourceFile


@dataclass(frozen=True, eq=False)
class PlacedVolume:
    """What lesions need to know of a volume that was accepted.

    Attributes:
        geometry: its grid.
        series_uid, frame_of_reference_uid: where it came with them.
        sop_instance_uids: of its images, in order of k; that of a file of many frames stands at each k.
        flags: see `ScanFacts`.
    """

    geometry: Geometry
    series_uid: str | None
    frame_of_reference_uid: str | None
    sop_instance_uids: tuple[str, ...]
    flags: tuple[str, ...]


@dataclass
class VolumePlaces:
    """Which volume came from which files and images, and which files were refused; volumes go by their words."""

    words: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    volumes: dict[str, PlacedVolume] = field(default_factory=dict)
    by_image: dict[str, set[str]] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)

    def accept(self, volume: FoundVolume) -> FoundVolume | None:
        """The volume under a word of its own, or None where the same volume was there before."""
        word, count = volume.word, 1
        while self.contents.get(word, volume.content_sha256) != volume.content_sha256:
            count += 1
            word = f"{volume.word}\0{count}"
        known = word in self.contents
        self.contents[word] = volume.content_sha256
        facts = volume.scan.facts
        self.volumes[word] = PlacedVolume(
            volume.scan.geometry,
            facts.series_uid,
            facts.frame_of_reference_uid,
            facts.sop_instance_uids,
            facts.flags,
        )
        for uid in facts.sop_instance_uids:
            self.by_image.setdefault(uid, set()).add(word)
        self._place(volume.names, word)
        return None if known else replace(volume, word=word)

    def refuse(self, names: Sequence[str]) -> None:
        """Remember files whose volume was refused, and their folders."""
        for name in names:
            self.refused.update(_name_and_folders(name))

    def _place(self, names: Sequence[str], word: str) -> None:
        for name in names:
            for place in _name_and_folders(name):
                self.words[place].add(word)


def lesions(reading: Reading, places: VolumePlaces, rows: Sequence[LesionRow]) -> Iterator[Found]:
    """Masks on the grids of their volumes, and a refusal for each row that cannot be trusted."""
    files = reading.tree.named()
    usable = {}
    for (mask, image), members in grouped(rows):
        try:
            check_referred(mask, image, members[0].place, files, places)
            usable[mask, image] = members
        except QuarantineError as error:
            yield Refusal((mask,), error)
    words = [sorted(places.words[image]) for _, image in usable]
    tasks = [
        MaskTask(files[mask].path, tuple(_grid(places.volumes[word].geometry) for word in candidates))
        for (mask, _), candidates in zip(usable, words, strict=True)
    ]
    outcomes = mask_outcomes(reading, tasks)
    for count, (outcome, (key, members), candidates) in enumerate(
        zip(outcomes, usable.items(), words, strict=True), start=1
    ):
        if outcome.result is None:
            yield Refusal(key[:1], outcome.refusal or QuarantineError("UNREADABLE", "no result", "Copy it again."))
        else:
            word = candidates[outcome.result.grid]
            yield from _lesions_of_mask(outcome.result, members, word, places.volumes[word].geometry)
        reading.progress("masks read", count, len(tasks))


def _lesions_of_mask(mask: AlignedMask, rows: Sequence[LesionRow], word: str, grid: Geometry) -> Iterator[Found]:
    present = set(np.unique(mask.voxels).tolist())
    name = rows[0].mask_path
    for row in rows:
        if row.mask_value not in present:
            found = f"{row.place}: no voxel of value {row.mask_value} among {len(present - {0})} values"
            advice = "Correct mask_value in the table of lesions, or the mask."
            yield Refusal((name,), QuarantineError("MASK_VALUE_ABSENT", found, advice))
    classes = {row.mask_value: row.lesion_class for row in rows if row.mask_value and row.mask_value in present}
    if classes:
        yield FoundMask(mask.voxels, grid, word, classes, name)


def grouped(rows: Sequence[LesionRow]) -> list[tuple[tuple[str, str], list[LesionRow]]]:
    """Rows of each pair of mask and image, sorted by the pair."""
    groups: dict[tuple[str, str], list[LesionRow]] = defaultdict(list)
    for row in rows:
        groups[row.mask_path, row.image_path].append(row)
    return sorted(groups.items())


def check_referred(mask: str, image: str, place: str, files: Mapping[str, SourceFile], places: VolumePlaces) -> None:
    """Check that a row's mask is in the input and its image among the volumes.

    Raises:
        QuarantineError: MISSING_REFERENCE, IMAGE_REFUSED; they name the row.
    """
    advice = "Correct the path in the table of lesions, or add the file."
    if mask not in files:
        raise QuarantineError("MISSING_REFERENCE", f"{place}: a mask that is not in the input", advice)
    if image in places.words:
        return
    if image in places.refused:
        found = f"{place}: a lesion of an image that was refused"
        raise QuarantineError("IMAGE_REFUSED", found, "See the image's own row.")
    raise QuarantineError("MISSING_REFERENCE", f"{place}: an image that is not among the scans", advice)


def _grid(geometry: Geometry) -> tuple[tuple[int, ...], tuple[float, ...]]:
    return geometry.shape, tuple(geometry.affine.ravel().tolist())


def _name_and_folders(name: str) -> Iterator[str]:
    parts = name.split("/")
    for end in range(len(parts), 0, -1):
        yield "/".join(parts[:end])
