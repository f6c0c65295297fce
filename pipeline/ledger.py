"""The run ledger: what ran, on what, with what result; SQLite in the workspace, the truth whatever orchestrates.

Order is by row number, never by the clock, which may jump; times are kept for people to read. Who holds the workspace
stands in the same file, see `pipeline.lease`; a stage's row names its process, so that a dead one can be told.
"""

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.process_identity import ProcessIdentity, own_identity

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
CREATE TABLE IF NOT EXISTS leases (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    purpose TEXT NOT NULL,
    process INTEGER NOT NULL,
    process_started INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    namespace TEXT NOT NULL,
    machine TEXT NOT NULL,
    flow_run TEXT,
    slot TEXT,
    began_at REAL NOT NULL,
    heartbeat_at REAL NOT NULL,
    beats INTEGER NOT NULL DEFAULT 0,
    ended_at REAL,
    outcome TEXT CHECK (outcome IN ('completed', 'failed', 'died', 'idle'))
);
"""
_ADDED = {
    "process_started": "INTEGER NOT NULL DEFAULT 0",
    "boot_id": "TEXT NOT NULL DEFAULT ''",
    "namespace": "TEXT NOT NULL DEFAULT ''",
    "machine": "TEXT NOT NULL DEFAULT ''",
    "lease": "INTEGER",
    "folder": "TEXT",
}
"""Columns that ledgers of earlier releases lack; they are added when such a ledger is opened."""

_ROW = (
    "id, stage, key, state, started_at, seconds, cpu_seconds, content_sha256, message, inputs, folder, lease,"
    " process, process_started, boot_id, namespace, machine"
)

DIED = "its process ended without a word: killed, or the power failed"
"""Message of a run that was found dead."""


@dataclass(frozen=True)
class LedgerRow:
    """One row of the ledger.

    Attributes:
        id: number, in order of the beginnings.
        stage, key: what ran.
        state: running, completed, failed or cached.
        started_at: seconds since the epoch.
        seconds, cpu_seconds: how long it took; None while it runs.
        content_sha256: hash of the output.
        message: why it failed.
        inputs: content hashes of what it read, by name.
        folder: of the output, relative to the workspace; None in rows of earlier releases.
        lease: number of the lease under which it ran; None without one.
        owner: the process.
    """

    id: int
    stage: str
    key: str
    state: str
    started_at: float
    seconds: float | None
    cpu_seconds: float | None
    content_sha256: str | None
    message: str | None
    inputs: Mapping[str, str]
    folder: str | None
    lease: int | None
    owner: ProcessIdentity


class Ledger:
    """Appends to and reads the ledger of one workspace.

    Args:
        path: SQLite file, made when absent.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self.connection() as connection:
            connection.executescript(_SCHEMA)
            present = {row[1] for row in connection.execute("PRAGMA table_info(stage_runs)")}
            for name, declaration in _ADDED.items():
                if name not in present:
                    connection.execute(f"ALTER TABLE stage_runs ADD COLUMN {name} {declaration}")

    def start(self, stage: str, key: str, inputs: Mapping[str, str], folder: str | None = None) -> int:
        """Record that a stage begins, under the lease that this process holds; returns the row's id."""
        return self._insert(stage, key, "running", inputs, folder)

    def complete(self, row: int, content_sha256: str, seconds: float, cpu_seconds: float) -> None:
        """Record that a stage ended well."""
        with self.connection() as connection:
            connection.execute(
                "UPDATE stage_runs SET state = 'completed', content_sha256 = ?, seconds = ?, cpu_seconds = ?"
                " WHERE id = ?",
                (content_sha256, seconds, cpu_seconds, row),
            )

    def fail(self, row: int, message: str, seconds: float | None) -> None:
        """Record that a stage failed; ``message`` must be free of patient data."""
        with self.connection() as connection:
            connection.execute(
                "UPDATE stage_runs SET state = 'failed', message = ?, seconds = ? WHERE id = ?", (message, seconds, row)
            )

    def hit(self, stage: str, key: str, content_sha256: str, folder: str | None = None) -> None:
        """Record that a verified output was reused."""
        self._insert(stage, key, "cached", {}, folder, seconds=0.0, content_sha256=content_sha256)

    def rows(self, stage: str | None = None) -> list[LedgerRow]:
        """Rows in order of their beginning, of one stage or of all."""
        return self._rows("?1 IS NULL OR stage = ?1", stage)

    def running(self) -> list[LedgerRow]:
        """Rows of stages that are at work, or whose process died."""
        return self._rows("state = ?1", "running")

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """One transaction; rolled back when the block raises."""
        connection = sqlite3.connect(self._path, timeout=30)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            with connection:
                yield connection
        finally:
            connection.close()

    def _rows(self, condition: str, value: str | None) -> list[LedgerRow]:
        with self.connection() as connection:
            found = connection.execute(
                f"SELECT {_ROW} FROM stage_runs WHERE {condition} ORDER BY id",  # noqa: S608
                (value,),
            ).fetchall()
        return [_row(*row) for row in found]

    def _insert(
        self,
        stage: str,
        key: str,
        state: str,
        inputs: Mapping[str, str],
        folder: str | None,
        *,
        seconds: float | None = None,
        content_sha256: str | None = None,
    ) -> int:
        me = own_identity()
        with self.connection() as connection:
            cursor = connection.execute(
                "INSERT INTO stage_runs (stage, key, state, inputs, folder, started_at, seconds, content_sha256,"
                " process, process_started, boot_id, namespace, machine, lease)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?9, ?10, ?11, ?12, ?13,"
                " (SELECT max(id) FROM leases WHERE ended_at IS NULL AND process = ?9 AND process_started = ?10"
                " AND boot_id = ?11 AND namespace = ?12))",
                (
                    *(stage, key, state, json.dumps(dict(inputs), sort_keys=True), folder, time.time()),
                    *(seconds, content_sha256, me.process, me.started, me.boot_id, me.namespace, me.machine),
                ),
            )
            return int(cursor.lastrowid or 0)


def _row(*values: Any) -> LedgerRow:
    """A row from the columns of `_ROW`."""
    plain, inputs, where, owner = values[:9], json.loads(values[9]), values[10:12], ProcessIdentity(*values[12:])
    return LedgerRow(*(*plain, inputs, *where, owner))
