"""Content hashes of the input, kept in SQLite so that an unchanged tree is not read again.

A stored hash holds while size, modification time, change time and inode are the same. Hashes of files changed less than
two seconds before they were read are not stored: a further change within the clock's grain could go unseen.
"""

import hashlib
import os
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from pipeline.deidentify import Pseudonymizer
from pipeline.files import sha256_json
from pipeline.ingest.source_tree import SourceFile, open_regular
from pipeline.records import ProgressCallback, silent

UNREADABLE = "unreadable"
"""Stands for the hash of a file that cannot be opened."""

_GRAIN_NS = 2_000_000_000
_CHUNK_BYTES = 1 << 20
_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL, sha256 TEXT NOT NULL
) WITHOUT ROWID;
"""


class FileIndex:
    """Hashes by absolute path. Holds source paths, therefore it belongs into ``identity/``.

    Args:
        path: SQLite file, made with mode 600 when absent.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.executescript(_SCHEMA)

    def hashes(self, files: Sequence[SourceFile], progress: ProgressCallback = silent) -> dict[str, str]:
        """SHA-256 of each file by name; only new and changed files are read."""
        with closing(sqlite3.connect(self._path)) as connection:
            known = self._known(connection)
            fresh: list[tuple[str | int, ...]] = []
            result = {}
            for count, file in enumerate(files, start=1):
                state = (file.size, file.mtime_ns, file.ctime_ns, file.inode)
                key = os.fsencode(file.path).decode("utf-8", "backslashreplace")
                stored = known.get(key)
                if stored is not None and stored[:4] == state:
                    result[file.name] = str(stored[4])
                else:
                    result[file.name] = _sha256(file.path)
                    if max(file.mtime_ns, file.ctime_ns) < time.time_ns() - _GRAIN_NS:
                        fresh.append((key, *state, result[file.name]))
                progress("files checked", count, len(files))
            with connection:
                connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", fresh)
        return result

    @staticmethod
    def _known(connection: sqlite3.Connection) -> dict[str, tuple[int | str, ...]]:
        rows = connection.execute("SELECT path, size, mtime_ns, ctime_ns, inode, sha256 FROM files")
        return {row[0]: tuple(row[1:]) for row in rows}


def fingerprint(hashes: Mapping[str, str], pseudonymizer: Pseudonymizer) -> str:
    """One hash for an input: every file's keyed name and content, whatever their order."""
    return sha256_json(sorted((pseudonymizer.path_hash(name), value) for name, value in hashes.items()))


def _sha256(path: Path) -> str:
    try:
        descriptor = open_regular(path)
    except OSError:
        return UNREADABLE
    digest = hashlib.sha256()
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
