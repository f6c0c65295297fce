"""Take a subject out of ``identity/``: crosswalks, index of files, cached readings."""

import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.files import read_json, write_json
from pipeline.ingest.retries import forget_input, last_input

SHORTEST_WORD = 4
"""Words shorter than this are compared whole; longer ones are also looked for inside texts."""


@dataclass(frozen=True)
class SubjectTrace:
    """What leads to a subject.

    Attributes:
        series: pseudonyms of its series.
        words: its word and original UIDs.
        names: its source files, relative to their input.
        path_hashes: keyed hashes of these.
    """

    series: frozenset[str]
    words: frozenset[str]
    names: frozenset[str]
    path_hashes: frozenset[str]

    def joined(self, other: "SubjectTrace") -> "SubjectTrace":
        """Both traces as one."""
        return SubjectTrace(
            self.series | other.series,
            self.words | other.words,
            self.names | other.names,
            self.path_hashes | other.path_hashes,
        )


NO_TRACE = SubjectTrace(frozenset(), frozenset(), frozenset(), frozenset())


def crosswalk_paths(identity: Path) -> list[Path]:
    """Every crosswalk of a workspace."""
    return sorted(identity.glob("crosswalk-*.json"))


def trace_of(crosswalk: Mapping[str, Any], subject: str, series: Collection[str]) -> SubjectTrace:
    """What one crosswalk knows of a subject.

    Files that were refused have no subject; those that lie in a folder with no other subject's files, or whose path
    holds the subject's word, count as the subject's.
    """
    own = {name for name, entry in crosswalk["series"].items() if name in series or entry.get("subject") == subject}
    entries = [crosswalk["series"][name] for name in own]
    word = crosswalk["subjects"].get(subject)
    words = {text for entry in entries for text in (entry.get("series_uid"), entry.get("study_uid")) if text}
    hashes = {digest for entry in entries for digest in entry["paths"]}
    others = {digest for name, entry in crosswalk["series"].items() if name not in own for digest in entry["paths"]}
    paths: dict[str, str] = crosswalk["paths"]
    folders = {_folder(paths[digest]) for digest in hashes if digest in paths} - {""}
    folders -= {_folder(paths[digest]) for digest in others if digest in paths}
    for digest, name in paths.items():
        if digest not in others and (_folder(name) in folders or _holds(name, word)):
            hashes.add(digest)
    names = {paths[digest] for digest in hashes if digest in paths}
    return SubjectTrace(
        frozenset(own), frozenset(words | ({word} if word else set())), frozenset(names), frozenset(hashes)
    )


def strip_crosswalk(path: Path, subject: str, trace: SubjectTrace) -> None:
    """Take a subject's entries out of one crosswalk."""
    crosswalk = read_json(path)
    crosswalk["subjects"].pop(subject, None)
    for name in trace.series:
        crosswalk["series"].pop(name, None)
    for digest in trace.path_hashes:
        crosswalk["paths"].pop(digest, None)
    write_json(path, crosswalk)
    path.chmod(0o600)


def strip_databases(identity: Path, trace: SubjectTrace) -> None:
    """Delete every row of the SQLite files in ``identity/`` that names the subject, so that its bytes vanish too."""
    trace = trace.joined(replace(trace, words=_escaped(trace.words), names=_escaped(trace.names)))
    for path in sorted(identity.glob("*.sqlite")):
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA secure_delete = ON")
            with connection:
                for table in _tables(connection):
                    _delete_rows(connection, table, trace)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.execute("VACUUM")


def strip_input(identity: Path, trace: SubjectTrace) -> None:
    """Forget the path of the last input where it names the subject, or where nobody else's scans are known any more.

    In the latter case the databases go too: every row holds that path. Call it after `strip_crosswalk`.
    """
    if not any(read_json(path)["subjects"] for path in crosswalk_paths(identity)):
        forget_input(identity)
        for path in identity.glob("*.sqlite"):
            path.unlink()
    elif any(_holds(str(last_input(identity) or ""), word) for word in trace.words):
        forget_input(identity)


def _escaped(texts: Collection[str]) -> frozenset[str]:
    """The texts as they stand inside JSON of ASCII signs."""
    return frozenset(json.dumps(text)[1:-1] for text in texts)


def _tables(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    return [str(row[0]) for row in rows]


def _delete_rows(connection: sqlite3.Connection, table: str, trace: SubjectTrace) -> None:
    quoted = '"' + table.replace('"', '""') + '"'
    columns = [str(row[1]) for row in connection.execute(f"PRAGMA table_info({quoted})")]
    rows = connection.execute(f"SELECT * FROM {quoted}").fetchall()  # noqa: S608 - the name comes from the file's schema
    where = " AND ".join('"' + name.replace('"', '""') + '" IS ?' for name in columns)
    doomed = [row for row in rows if any(_names(text, trace) for text in _texts(row))]
    connection.executemany(f"DELETE FROM {quoted} WHERE {where}", doomed)  # noqa: S608


def _texts(row: tuple[Any, ...]) -> Iterator[str]:
    for value in row:
        if isinstance(value, str):
            yield value
        elif isinstance(value, bytes):
            yield value.decode("utf-8", "replace")


def _names(text: str, trace: SubjectTrace) -> bool:
    if any(text == name or text.endswith("/" + name) or f'"{name}"' in text for name in trace.names):
        return True
    return any(_holds(text, word) for word in (*trace.words, *trace.series, *trace.path_hashes))


def _holds(text: str, word: str | None) -> bool:
    if not word:
        return False
    return word == text or f'"{word}"' in text or (len(word) >= SHORTEST_WORD and word in text)


def _folder(name: str) -> str:
    return name.rpartition("/")[0]
