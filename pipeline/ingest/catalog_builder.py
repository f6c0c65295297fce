"""Turns what layouts find into a catalog: pseudonyms instead of identities, fresh files instead of copies.

De-identified by construction: what leaves are voxels, geometry, defined terms (`allow_list`) and keyed pseudonyms. The
words they were made from go into the crosswalk, which the caller stores in ``identity/`` and nowhere else.
"""

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.catalog import Catalog, read_catalog, write_catalog
from pipeline.deidentify import Pseudonymizer
from pipeline.errors import QuarantineError
from pipeline.ingest import allow_list
from pipeline.ingest.catalog_removal import remove_subjects
from pipeline.ingest.catalog_rows import EMPTY_ROW, Row, volume_row
from pipeline.ingest.clearance import cleared_scan
from pipeline.ingest.forgotten import FORGOTTEN
from pipeline.ingest.found import (
    NEAR_DUPLICATES,
    Found,
    FoundImage,
    FoundMask,
    FoundVolume,
    Ignored,
    content_hash,
)
from pipeline.ingest.look_alikes import signature, write_look_alikes
from pipeline.ingest.source_tree import Refusal
from pipeline.ingest.stacks import StackWriter
from pipeline.ingest.thumbnails import thumbnail
from pipeline.near_duplicates import find_near_duplicates
from pipeline.scan_io import ScanFacts, write_nifti
from pipeline.settings import IngestSettings

Crosswalk = dict[str, dict[str, Any]]


class CatalogBuilder:
    """Collects rows and writes voxels as they come; `finish` writes the tables.

    Args:
        folder: catalog folder, empty.
        pseudonymizer: of the workspace.
        settings: what is done with dates, burned-in text and faces.
        forgotten: pseudonyms of subjects that are refused.
    """

    def __init__(
        self,
        folder: Path,
        pseudonymizer: Pseudonymizer,
        settings: IngestSettings | None = None,
        forgotten: Collection[str] = (),
    ) -> None:
        self._folder = folder
        self._settings = settings or IngestSettings()
        self._forgotten = forgotten
        self._pseudonyms = pseudonymizer
        self._stacks = StackWriter(folder / "stacks")
        self._series: list[Row] = []
        self._lesions: list[Row] = []
        self._quarantine: list[Row] = []
        self._thumbnails: dict[int, NDArray[np.float32]] = {}
        self._signatures: dict[int, NDArray[np.float32]] = {}
        self.look_alikes = 0
        self._mask_files: Counter[str] = Counter()
        self._refused_words: set[str] = set()
        self.ignored = 0
        self.crosswalk: Crosswalk = {"subjects": {}, "series": {}, "paths": {}}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stacks.close()

    def add(self, found: Found) -> None:
        """Take one thing that a layout found."""
        if isinstance(found, FoundVolume | FoundImage):
            self._add_scan(found)
        elif isinstance(found, FoundMask):
            if found.series_word not in self._refused_words:
                self._add_mask(found)
        elif isinstance(found, Ignored):
            self.ignored += found.count
        else:
            self._refuse(found)

    @property
    def accepted(self) -> int:
        """Series and images so far."""
        return len(self._series)

    @property
    def refusals(self) -> dict[str, int]:
        """Quarantine rows by reason."""
        return dict(sorted(Counter(str(row["reason"]) for row in self._quarantine).items()))

    def finish(self) -> Catalog:
        """Name the subjects of images that came without, write the tables."""
        self._stacks.close()
        self._name_clusters()
        subjects = {row["series_id"]: row["subject_id"] for row in self._series}
        for lesion in self._lesions:
            lesion["subject_id"] = subjects[lesion["series_id"]]
        for series_id, subject in subjects.items():
            self.crosswalk["series"][series_id]["subject"] = subject
        forgotten = set(subjects.values()) & set(self._forgotten)
        self._refuse_clusters(forgotten)
        catalog = write_catalog(self._folder, self._series, self._lesions, self._quarantine)
        volumes = [self._series[number] for number in self._signatures]
        self.look_alikes = write_look_alikes(self._folder, volumes, list(self._signatures.values()))
        if not forgotten:
            return catalog
        remove_subjects(self._folder, forgotten)
        return read_catalog(self._folder)

    def _refuse_clusters(self, forgotten: Collection[str]) -> None:
        """Quarantine rows for images that turned out to be of a forgotten subject."""
        for row in [row for row in self._series if row["subject_id"] in forgotten]:
            entry = self.crosswalk["series"].pop(row["series_id"])
            self._refuse(Refusal(tuple(self.crosswalk["paths"][digest] for digest in entry["paths"]), FORGOTTEN))

    def _add_scan(self, found: FoundVolume | FoundImage) -> None:
        """Take a volume or image, unless its pixels may tell who it is; its masks then go with it."""
        try:
            if found.subject_word is not None and self._pseudonyms.subject(found.subject_word) in self._forgotten:
                raise FORGOTTEN
            cleared = cleared_scan(found, self._settings)
        except QuarantineError as error:
            self._refused_words.add(found.word)
            self._refuse(Refusal(found.names, error))
            return
        if isinstance(cleared, FoundVolume):
            self._add_volume(cleared)
        else:
            self._add_image(cleared)

    def _add_volume(self, found: FoundVolume) -> None:
        series_id = self._series_id(found.word, found.names, found.scan.facts)
        path = f"volumes/{series_id}.nii"
        voxels = found.scan.voxels
        write_nifti(self._folder / path, voxels, found.scan.geometry.affine, voxels.dtype)
        self._signatures[len(self._series)] = signature(voxels, found.scan.geometry.affine)
        row = volume_row(found, self._pseudonyms, shifted=self._settings.dates == "shift")
        subject_id = self._subject_id(found.subject_word)
        self._series.append(row | {"series_id": series_id, "subject_id": subject_id, "path": path})

    def _add_image(self, found: FoundImage) -> None:
        series_id = self._series_id(found.word, found.names, None)
        content = content_hash(found.pixels)
        if found.subject_word is None:
            self._thumbnails[len(self._series)] = thumbnail(found.pixels)
        name, row = self._stacks.append(found.pixels)
        self._series.append(
            EMPTY_ROW
            | {
                "series_id": series_id,
                "subject_id": "" if found.subject_word is None else self._subject_id(found.subject_word),
                "subject_source": found.subject_source,
                "kind": "image",
                "source": found.source,
                "modality": found.modality,
                "unit": "grey",
                "shape": list(found.pixels.shape),
                "path": f"stacks/{name}",
                "stack_index": row,
                "slice_index": found.slice_index,
                "pair_key": found.pair_word and "pair-" + self._pseudonyms.path_hash(found.pair_word),
                "published_split": found.published_split,
                "content_sha256": content,
            }
        )
        if found.lesion_class is not None:
            self._add_lesion(series_id, "image", found.lesion_class, {})

    def _add_mask(self, found: FoundMask) -> None:
        series_id = self._pseudonyms.series(found.series_word)
        count = self._mask_files[series_id]
        self._mask_files[series_id] += 1
        path = f"masks/{series_id}{f'-{count}' if count else ''}.nii"
        write_nifti(self._folder / path, found.voxels, found.geometry.affine, np.int16)
        voxel_mm3 = abs(float(np.linalg.det(found.geometry.affine[:3, :3])))
        for value, lesion_class in sorted(found.classes.items()):
            volume = float(np.count_nonzero(found.voxels == value)) * voxel_mm3
            place = {"mask_path": path, "mask_value": value, "volume_mm3": volume}
            self._add_lesion(series_id, f"{found.name}\0{value}", lesion_class, place)
        if found.flags:
            (row,) = (row for row in self._series if row["series_id"] == series_id)
            row["flags"] = sorted({*row["flags"], *found.flags})

    def _add_lesion(self, series_id: str, word: str, lesion_class: str, place: Row) -> None:
        lesion_id = "les-" + self._pseudonyms.path_hash(f"lesion\0{series_id}\0{word}")
        row: Row = {"mask_path": None, "mask_value": -1, "volume_mm3": None}
        row |= {"lesion_id": lesion_id, "series_id": series_id, "lesion_class": lesion_class}
        self._lesions.append(row | place)

    def _refuse(self, found: Refusal) -> None:
        error = allow_list.without_free_text(found.error)
        path_hash = self._path_hash(found.names[0])
        self._quarantine.append(
            {
                "path_hash": path_hash,
                "files": len(found.names),
                "reason": error.reason,
                "found": error.found,
                "advice": error.advice,
            }
        )

    def _name_clusters(self) -> None:
        """Subject of an image without one: its cluster of near-copies, named after the smallest content hash in it."""
        rows = list(self._thumbnails)
        if not rows:
            return
        clusters = find_near_duplicates([self._thumbnails[row] for row in rows]).clusters
        names: dict[int, str] = {}
        for row, cluster in zip(rows, clusters.tolist(), strict=True):
            content = str(self._series[row]["content_sha256"])
            names[cluster] = min(names.get(cluster, content), content)
        for row, cluster in zip(rows, clusters.tolist(), strict=True):
            self._series[row]["subject_id"] = self._pseudonyms.subject(f"{NEAR_DUPLICATES}\0{names[cluster]}")

    def _series_id(self, word: str, names: tuple[str, ...], facts: ScanFacts | None) -> str:
        series_id = self._pseudonyms.series(word)
        original = {} if facts is None else {"series_uid": facts.series_uid, "study_uid": facts.study_uid}
        self.crosswalk["series"][series_id] = {**original, "paths": [self._path_hash(name) for name in names]}
        return series_id

    def _subject_id(self, word: str) -> str:
        subject_id = self._pseudonyms.subject(word)
        self.crosswalk["subjects"][subject_id] = word
        return subject_id

    def _path_hash(self, name: str) -> str:
        path_hash = self._pseudonyms.path_hash(name)
        self.crosswalk["paths"][path_hash] = name
        return path_hash
