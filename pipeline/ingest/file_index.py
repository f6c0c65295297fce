"""Content hashes of the input, kept in SQLite so that an unchanged tree is not read again.

A stored hash holds while size, modification time, change time and inode are the same. Hashes of files changed less than
two seconds before they were read are stored to tell changed files, but are not trusted: a further change within the
clock's grain could go unseen. Inputs are kept apart by their absolute folder.
"""

import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pipeline.deidentify import Pseudonymizer
from pipeline.files import sha256_json
from pipeline.ingest.private_sqlite import PrivateDatabase
from pipeline.ingest.source_tree import SourceFile, SourceTree, open_regular
from pipeline.records import ProgressCallback, silent

INDEX_FILE = "files.sqlite"
"""Name of the index in ``identity/``."""

UNREADABLE = "unreadable"
"""Stands for the hash of a file that cannot be opened."""

HASHING_THREADS = min(2, os.cpu_count() or 1)
"""hashlib and reading release the interpreter; two threads hash 2.2 GB/s where one hashes 1.2 GB/s."""

_GRAIN_NS = 2_000_000_000
_CHUNK_BYTES = 1 << 20
_BATCH_FILES = 64
_VERSION = 2
_SCHEMA = """
CREATE TABLE files (
    root TEXT NOT NULL, name TEXT NOT NULL, sha256 TEXT NOT NULL, settled INTEGER NOT NULL, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL, inode INTEGER NOT NULL, PRIMARY KEY (root, name)
) WITHOUT ROWID;
"""
_ROWS = "SELECT name, sha256, settled, size, mtime_ns, ctime_ns, inode FROM files WHERE root = ?"
_State = tuple[str | int, ...]


@dataclass(frozen=True)
class Changes:
    """What became of an input since it was indexed last, counted in files.

    Attributes:
        new, changed, removed, unchanged: by content, so that a file that was only touched is unchanged.
    """

    new: int
    changed: int
    removed: int
    unchanged: int


@dataclass(frozen=True)
class IndexedTree:
    """The hashes of an input.

    Attributes:
        hashes: SHA-256 by name, or `UNREADABLE`.
        changes: since the last time.
    """

    hashes: dict[str, str]
    changes: Changes


class FileIndex:
    """Hashes by input folder and name. Holds source paths, therefore it belongs into ``identity/``.

    Args:
        path: SQLite file, made with mode 600 when absent, made again when damaged.
    """

    def __init__(self, path: Path) -> None:
        self._database = PrivateDatabase(path, _SCHEMA, _VERSION)

    @property
    def rebuilt(self) -> bool:
        """Whether a damaged index had to be made again."""
        return self._database.rebuilt

    def update(self, tree: SourceTree, progress: ProgressCallback = silent, *, keep: bool = True) -> IndexedTree:
        """Hash what is new or changed, forget what is gone.

        Args:
            tree: the whole input; rows of files that it lacks are removed.
            progress: counted in files.
            keep: store what was found; without it the next update finds the same changes.
        """
        return self._database.attempt(lambda: self._update(tree, progress, keep=keep))

    def _update(self, tree: SourceTree, progress: ProgressCallback, *, keep: bool) -> IndexedTree:
        root = _text(tree.root)
        with self._database.connection() as connection:
            stored = {row[0]: row[1:] for row in connection.execute(_ROWS, (root,))}
            hashes, unread = _known(tree.files, stored)
            progress("files checked", len(hashes), len(tree.files))
            fresh = dict(_read(unread, len(tree.files), progress))
            hashes |= {name: sha256 for name, (sha256, _) in fresh.items()}
            gone = stored.keys() - hashes.keys()
            rows = [(root, file.name, *fresh[file.name], *file[2:]) for file in unread]
            if keep:
                connection.executemany("DELETE FROM files WHERE root = ? AND name = ?", [(root, name) for name in gone])
                connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        new = len(fresh.keys() - stored.keys())
        changed = sum(name in stored and stored[name][0] != sha256 for name, (sha256, _) in fresh.items())
        return IndexedTree(hashes, Changes(new, changed, len(gone), len(hashes) - new - changed))


def contents(tree: SourceTree, indexed: IndexedTree) -> dict[str, str]:
    """What an input holds: the hash of every file, and why an entry that is no regular file was refused."""
    return indexed.hashes | {item.names[0]: item.error.reason for item in tree.refused}


def fingerprint(hashes: Mapping[str, str], pseudonymizer: Pseudonymizer) -> str:
    """One hash for an input: every file's keyed name and content, whatever their order."""
    return sha256_json(sorted((pseudonymizer.path_hash(name), value) for name, value in hashes.items()))


def _known(files: Sequence[SourceFile], stored: Mapping[str, _State]) -> tuple[dict[str, str], list[SourceFile]]:
    """Hashes of the files that are as they were, and the files that must be read."""
    hashes: dict[str, str] = {}
    unread: list[SourceFile] = []
    for file in files:
        known = stored.get(file.name)
        if known is not None and known[1] and known[2:] == file[2:]:
            hashes[file.name] = str(known[0])
        else:
            unread.append(file)
    return hashes, unread


def _read(
    files: Sequence[SourceFile], total: int, progress: ProgressCallback
) -> Iterator[tuple[str, tuple[str, bool]]]:
    """Name, hash and whether it may be trusted, of each file."""
    batches = [files[start : start + _BATCH_FILES] for start in range(0, len(files), _BATCH_FILES)]
    done = total - len(files)
    with ThreadPoolExecutor(HASHING_THREADS) as threads:
        for batch, hashes in zip(batches, threads.map(_hashes, batches), strict=True):
            for file, sha256 in zip(batch, hashes, strict=True):
                yield file.name, (sha256, _settled(file))
            done += len(batch)
            progress("files checked", done, total)


def _settled(file: SourceFile) -> bool:
    return max(file.mtime_ns, file.ctime_ns) < time.time_ns() - _GRAIN_NS


def _hashes(files: Sequence[SourceFile]) -> list[str]:
    return [_sha256(file.location) for file in files]


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    try:
        with os.fdopen(open_regular(path), "rb", buffering=0) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError:
        return UNREADABLE
    return digest.hexdigest()


def _text(path: str) -> str:
    """A path that SQLite can store: bytes that are no UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
