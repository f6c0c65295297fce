"""The run ledger: what ran, on what, with what result; SQLite in the workspace, the truth whatever orchestrates.

Order is by row number, never by the clock, which may jump; times are kept for people to read.
"""

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS stage_runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    stage TEXT NOT NULL,
    key TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('running', 'completed', 'failed', 'cached')),
    inputs TEXT NOT NULL,
    process INTEGER NOT NULL,
    started_at REAL NOT NULL,
    seconds REAL,
    cpu_seconds REAL,
    content_sha256 TEXT,
    message TEXT
);
CREATE INDEX IF NOT EXISTS stage_runs_key ON stage_runs (stage, key, state);
"""


@dataclass(frozen=True)
class LedgerRow:
    """One row of the ledger."""

    id: int
    stage: str
    key: str
    state: str
    started_at: float
    seconds: float | None
    cpu_seconds: float | None
    content_sha256: str | None
    message: str | None


class Ledger:
    """Appends to and reads the ledger of one workspace.

    Args:
        path: SQLite file, made when absent.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._connect() as connection:
            connection.executescript(_SCHEMA)

    def start(self, stage: str, key: str, inputs: Mapping[str, str]) -> int:
        """Record that a stage begins; returns the row's id."""
        with self._connect() as connection:
            cursor = connection.execute(
                "INSERT INTO stage_runs (stage, key, state, inputs, process, started_at)"
                " VALUES (?, ?, 'running', ?, ?, ?)",
                (stage, key, json.dumps(dict(inputs), sort_keys=True), os.getpid(), time.time()),
            )
            return int(cursor.lastrowid or 0)

    def complete(self, row: int, content_sha256: str, seconds: float, cpu_seconds: float) -> None:
        """Record that a stage ended well."""
        with self._connect() as connection:
            connection.execute(
                "UPDATE stage_runs SET state = 'completed', content_sha256 = ?, seconds = ?, cpu_seconds = ?"
                " WHERE id = ?",
                (content_sha256, seconds, cpu_seconds, row),
            )

    def fail(self, row: int, message: str, seconds: float) -> None:
        """Record that a stage failed; ``message`` must be free of patient data."""
        with self._connect() as connection:
            connection.execute(
                "UPDATE stage_runs SET state = 'failed', message = ?, seconds = ? WHERE id = ?", (message, seconds, row)
            )

    def hit(self, stage: str, key: str, content_sha256: str) -> None:
        """Record that a verified output was reused."""
        with self._connect() as connection:
            connection.execute(
                "INSERT INTO stage_runs (stage, key, state, inputs, process, started_at, seconds, content_sha256)"
                " VALUES (?, ?, 'cached', '{}', ?, ?, 0, ?)",
                (stage, key, os.getpid(), time.time(), content_sha256),
            )

    def rows(self, stage: str | None = None) -> list[LedgerRow]:
        """Rows in order of their beginning, of one stage or of all."""
        with self._connect() as connection:
            found = connection.execute(
                "SELECT id, stage, key, state, started_at, seconds, cpu_seconds, content_sha256, message"
                " FROM stage_runs WHERE ?1 IS NULL OR stage = ?1 ORDER BY id",
                (stage,),
            ).fetchall()
        return [LedgerRow(*row) for row in found]

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self._path, timeout=30)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            with connection:
                yield connection
        finally:
            connection.close()
