"""SQLite files of ``identity/``: of mode 600, of a known version, made again when damaged, with rows that truly vanish.

They hold nothing that cannot be found again from the input, so that a damaged or outdated file is replaced.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

Value = TypeVar("Value")


class PrivateDatabase:
    """One file.

    Args:
        path: made with mode 600 when absent.
        schema: SQL that makes the tables.
        version: of the schema; a file of another version is replaced.

    Attributes:
        rebuilt: whether a damaged file had to be replaced.
    """

    def __init__(self, path: Path, schema: str, version: int) -> None:
        self._path, self._schema, self._version = path, schema, version
        self.rebuilt = False
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        if self.attempt(self._found_version) != version:
            self._make()

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """A connection whose changes are committed where the block ends without an error."""
        with closing(sqlite3.connect(self._path)) as connection, connection:
            connection.execute("PRAGMA secure_delete = ON")
            yield connection

    def attempt(self, work: Callable[[], Value]) -> Value:
        """Do ``work``; where the file proves damaged, replace it and do it once more."""
        try:
            return work()
        except sqlite3.OperationalError:  # a full disk or a lock, not the content
            raise
        except sqlite3.DatabaseError:
            self.rebuilt = True
            self._make()
            return work()

    def compact(self) -> None:
        """Write the file anew, without the pages of deleted rows."""
        with closing(sqlite3.connect(self._path)) as connection:
            connection.execute("VACUUM")

    def _found_version(self) -> int:
        with self.connection() as connection:
            return int(connection.execute("PRAGMA user_version").fetchone()[0])

    def _make(self) -> None:
        os.truncate(self._path, 0)
        self._path.with_name(self._path.name + "-journal").unlink(missing_ok=True)
        with closing(sqlite3.connect(self._path)) as connection, connection:
            connection.executescript(f"{self._schema}; PRAGMA user_version = {self._version};")
