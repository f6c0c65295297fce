"""What the parser made of each file and series, kept in ``identity/``, so that only what changed is parsed again.

A reading is known by the parser and its sources, the versions of the libraries below it, what it was asked, and the
content of every file that it looks at. Values, refusals and masks are kept as JSON; voxels are not: they lie in the
catalogs of the workspace, are found by their hash, and hashed again before they are believed. Voxels of a volume that
is refused for its shape or modality are needed by nobody. A refusal that depends on the machine's load is not kept.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from pipeline.errors import QuarantineError
from pipeline.files import sha256_json
from pipeline.geometry import Geometry
from pipeline.ingest.found import content_hash
from pipeline.ingest.known_volumes import KnownVolumes
from pipeline.ingest.plain_values import NotPlainError, decoded, encoded
from pipeline.ingest.private_sqlite import PrivateDatabase
from pipeline.ingest.source_tree import SourceTree
from pipeline.safe_parse import Outcome
from pipeline.scan_io import Scan
from pipeline.scan_io.dicom.read_volume import DamagedFileError
from pipeline.source_hash import source_hash

Task = TypeVar("Task")
Result = TypeVar("Result")
Parse = Callable[[Sequence[Task]], Iterator[Outcome[Task, Result]]]

READINGS_FILE = "readings.sqlite"
"""Name of the database in ``identity/``."""

PASSING = frozenset({"TIMEOUT", "OUT_OF_MEMORY", "CRASHED"})
"""Reasons that may not hold the next time."""

_LIBRARIES = ("pydicom", "nibabel", "simpleitk", "numpy", "pillow", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg")
_KEPT_AT_ONCE, _KEPT_BYTES = 256, 16 << 20
_VERSION = 1
_SCHEMA = """
CREATE TABLE readings (key TEXT PRIMARY KEY, names TEXT NOT NULL, refused INTEGER NOT NULL, reading TEXT NOT NULL)
WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Question(Generic[Task]):
    """What a parser is asked.

    Attributes:
        what: counts as, e.g. ``series``.
        module: dotted name of the module that holds the parser; its sources are part of what a reading is.
        files_of: every file that the parser looks at for a task.
        asked: what else the outcome depends on, as plain JSON values.
    """

    what: str
    module: str
    files_of: Callable[[Task], Iterable[Path]]
    asked: Callable[[Task], Any]


@dataclass
class Counts:
    """How much was parsed, and how much was known."""

    parsed: int = 0
    known: int = 0


@dataclass
class Readings:
    """The readings of one input.

    Args:
        identity: the workspace's ``identity/``.
        volumes: where voxels are found again.
        tree: the input.
        hashes: SHA-256 of its files by name.
        unusable: why a volume is refused, whatever its voxels; None where it is not.

    Attributes:
        counts: of tasks, by what was parsed.
    """

    identity: Path
    volumes: KnownVolumes
    tree: SourceTree
    hashes: Mapping[str, str]
    unusable: Callable[[Scan], QuarantineError | None] = lambda _: None
    counts: dict[str, Counts] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._database = PrivateDatabase(self.identity / READINGS_FILE, _SCHEMA, _VERSION)
        self._names = {file.path: file.name for file in self.tree.files}
        self._paths = {name: path for path, name in self._names.items()}

    def outcomes(
        self, question: Question[Task], tasks: Sequence[Task], parse: Parse[Task, Result]
    ) -> Iterator[Outcome[Task, Result]]:
        """Outcome of every task in order, parsed where it is not known.

        Args:
            question: what the parser is asked.
            tasks: what to parse.
            parse: yields the outcomes of the tasks that it is given, in order.
        """
        counts = self.counts.setdefault(question.what, Counts())
        keys = [self._key(question, task) for task in tasks]
        known = self._known(keys)
        fresh = parse([task for task, key in zip(tasks, keys, strict=True) if key not in known])
        kept: list[tuple[str, str, int, str]] = []
        held = 0
        try:
            for task, key in zip(tasks, keys, strict=True):
                outcome = self._remembered(task, known[key]) if key in known else None
                if outcome is not None:
                    counts.known += 1
                else:
                    outcome = next(parse([task])) if key in known else next(fresh)
                    counts.parsed += 1
                    rows = list(self._row(key, outcome, question.files_of(task)))
                    kept += rows
                    held += sum(len(reading) for *_, reading in rows)
                yield outcome
                if len(kept) >= _KEPT_AT_ONCE or held >= _KEPT_BYTES:
                    self._keep(kept)
                    kept, held = [], 0
        finally:
            self._keep(kept)

    def _key(self, question: Question[Task], task: Task) -> str | None:
        """What a reading is known by; None where it looks at a file outside the input."""
        try:
            content = [[name, self.hashes[name]] for name in map(self._name, question.files_of(task))]
        except (NotPlainError, KeyError):
            return None
        parser = [question.what, source_hash(question.module), _libraries()]
        return sha256_json([parser, question.asked(task), content])

    def _name(self, path: Path) -> str:
        if path not in self._names:
            raise NotPlainError("a file outside the input")
        return self._names[path]

    def _known(self, keys: Sequence[str | None]) -> dict[str | None, str]:
        def work() -> dict[str | None, str]:
            with self._database.connection() as connection:
                rows = (
                    connection.execute("SELECT key, reading FROM readings WHERE key = ?", (key,)).fetchone()
                    for key in keys
                    if key is not None
                )
                return dict(row for row in rows if row is not None)

        return self._database.attempt(work)

    def _remembered(self, task: Any, reading: str) -> Outcome[Any, Any] | None:
        """The outcome that a row stands for; None where it can no longer be made."""
        try:
            values = json.loads(reading)
            if "refusal" in values:
                return Outcome(task, None, _refusal(values))
            result = decoded(values["result"], self._paths)
            return Outcome(task, self._scan(*result) if values["voxels"] else result, None)
        except (NotPlainError, KeyError, TypeError, ValueError, LookupError):
            return None

    def _scan(self, shape: Any, affine: Any, modality: Any, facts: Any, content: str) -> Scan:
        geometry = Geometry(tuple(shape), affine)
        empty = Scan(np.broadcast_to(np.int16(0), geometry.shape), geometry, modality, facts)
        if self.unusable(empty) is not None:
            return empty
        voxels = self.volumes.read(content, geometry)
        if voxels is None:
            raise LookupError(content)
        return Scan(voxels, geometry, modality, facts)

    def _row(
        self, key: str | None, outcome: Outcome[Any, Any], files: Iterable[Path]
    ) -> Iterator[tuple[str, str, int, str]]:
        refusal, result = outcome.refusal, outcome.result
        if key is None or (refusal is not None and refusal.reason in PASSING):
            return
        names = json.dumps([self._name(path) for path in files])
        try:
            if refusal is not None:
                yield key, names, 1, json.dumps(_refusal_values(refusal))
            elif isinstance(result, Scan):
                grid = result.geometry
                content = content_hash(result.voxels, grid.affine)
                plain = (list(grid.shape), grid.affine, result.modality, result.facts, content)
                yield key, names, 0, json.dumps({"voxels": True, "result": encoded(plain, self._name)})
            else:
                yield key, names, 0, json.dumps({"voxels": False, "result": encoded(result, self._name)})
        except NotPlainError:
            return

    def _keep(self, rows: Sequence[tuple[str, str, int, str]]) -> None:
        def work() -> None:
            with self._database.connection() as connection:
                connection.executemany("INSERT OR REPLACE INTO readings VALUES (?, ?, ?, ?)", rows)

        if rows:
            self._database.attempt(work)


def forget_refusals(identity: Path, names: Collection[str] | None = None) -> int:
    """Remove refusals, of all files or of some; returns how many."""
    path = identity / READINGS_FILE
    if not path.is_file():
        return 0
    database = PrivateDatabase(path, _SCHEMA, _VERSION)

    def work() -> int:
        with database.connection() as connection:
            rows = connection.execute("SELECT key, names FROM readings WHERE refused")
            keys = [(key,) for key, of in rows if names is None or not set(json.loads(of)).isdisjoint(names)]
            connection.executemany("DELETE FROM readings WHERE key = ?", keys)
        return len(keys)

    removed = database.attempt(work)
    database.compact()
    return removed


def _refusal_values(refusal: QuarantineError) -> dict[str, Any]:
    """A refusal as JSON; one that names a file of its task keeps the number."""
    file = refusal.file if isinstance(refusal, DamagedFileError) else None
    return {"refusal": [refusal.reason, refusal.found, refusal.advice], "file": file}


def _refusal(values: Mapping[str, Any]) -> QuarantineError:
    if values["file"] is None:
        return QuarantineError(*values["refusal"])
    error = DamagedFileError(*values["refusal"])
    error.file = int(values["file"])
    return error


@cache
def _libraries() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found
