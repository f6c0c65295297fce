"""The lease of a workspace: who writes to it, with a heartbeat; one holder at a time, the dead told from the slow.

Three things stand behind each other. The file lock of `Workspace.locked` keeps out every other process of this machine
and vanishes with its process. The row in the ledger's table ``leases`` names the holder for people and for disks on
which locks do not reach other machines. The heartbeat says that a holder on another machine, or in another container,
still lives: one that was silent for `SILENCE_S` lost its lease, and finds out before its next output is sealed.

    with held(workspace, "run"):
        ...

Whoever takes the lock closes the leases and stage runs that dead processes left open.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from pipeline.errors import WorkspaceBusyError, WorkspaceError
from pipeline.ledger import DIED, Ledger
from pipeline.process_identity import ProcessIdentity, own_identity
from pipeline.workspace import Workspace

HEARTBEAT_S = 10.0
"""Seconds between two heartbeats."""

SILENCE_S = 90.0
"""A holder that cannot be seen from here is dead after this long without a heartbeat."""

_COLUMNS = (
    "id, purpose, flow_run, slot, began_at, heartbeat_at, ended_at, outcome,"
    " process, process_started, boot_id, namespace, machine"
)


@dataclass(frozen=True)
class Lease:
    """One holding of a workspace.

    Attributes:
        id: number, in order of the beginnings.
        purpose: the command or flow, e.g. ``run``.
        flow_run: id of Prefect's flow run, where there is one.
        slot: what made it start, e.g. a time of a schedule; see `pipeline.slots`.
        began_at, heartbeat_at: seconds since the epoch.
        ended_at: None while it is open.
        outcome: completed, failed, died, or idle where nothing was to be done; None while it is open.
        owner: the process.
    """

    id: int
    purpose: str
    flow_run: str | None
    slot: str | None
    began_at: float
    heartbeat_at: float
    ended_at: float | None
    outcome: str | None
    owner: ProcessIdentity

    def dead(self, now: float | None = None) -> bool:
        """Whether an open lease's process is gone, or, where it cannot be seen from here, silent for too long."""
        alive = self.owner.alive()
        if alive is not None:
            return not alive
        return abs((time.time() if now is None else now) - self.heartbeat_at) > SILENCE_S


def leases(ledger: Ledger, *, open_only: bool = False) -> list[Lease]:
    """Leases in order of their beginning."""
    with ledger.connection() as connection:
        rows = connection.execute(
            f"SELECT {_COLUMNS} FROM leases WHERE NOT ? OR ended_at IS NULL ORDER BY id",  # noqa: S608
            (open_only,),
        ).fetchall()
    return [_lease(*row) for row in rows]


def _lease(*values: Any) -> Lease:
    """A lease from the columns of `_COLUMNS`."""
    return Lease(*(*values[:8], ProcessIdentity(*values[8:])))


@dataclass
class Holding:
    """A lease while it is held.

    Attributes:
        number: of the lease.
        idle: set it where nothing was to be done, so that the run serves no slot.
    """

    number: int
    idle: bool = False


@contextmanager
def held(
    workspace: Workspace, purpose: str, *, flow_run: str | None = None, slot: str | None = None
) -> Iterator[Holding]:
    """Hold the workspace for writing.

    Args:
        workspace: what to hold.
        purpose: the command or flow, for people.
        flow_run: id of Prefect's flow run.
        slot: what made the run start.

    Raises:
        WorkspaceBusyError: another run holds it.
    """
    with workspace.locked():
        ledger = Ledger(workspace.ledger_path)
        bury(ledger)
        _refuse_others(ledger)
        holding = Holding(_take(ledger, purpose, flow_run, slot))
        outcome = "failed"
        try:
            with _beating(ledger, holding.number):
                yield holding
            outcome = "idle" if holding.idle else "completed"
        finally:
            with suppress(sqlite3.Error):  # a full disk must not hide what ended the run; the next run sees it died
                _end(ledger, holding.number, outcome)


def bury(ledger: Ledger) -> list[Lease]:
    """Close leases and stage runs whose processes are dead; returns the leases. Call it while the lock is held."""
    dead = [lease for lease in leases(ledger, open_only=True) if lease.dead()]
    for lease in dead:
        _end(ledger, lease.id, "died")
    closed = {lease.id for lease in dead}
    for row in ledger.running():
        legacy = not row.owner.boot_id and row.lease is None  # of an earlier release, which held the lock while it ran
        if row.lease in closed or legacy or row.owner.alive() is False:
            ledger.fail(row.id, DIED, None)
    return dead


def require_lease(ledger: Ledger) -> None:
    """Refuse to go on where the last lease of this process was closed by another machine.

    Raises:
        WorkspaceError: the lease is lost.
    """
    me = own_identity()
    with ledger.connection() as connection:
        row = connection.execute(
            "SELECT outcome FROM leases WHERE process = ? AND process_started = ? AND boot_id = ? AND namespace = ?"
            " ORDER BY id DESC LIMIT 1",
            (me.process, me.started, me.boot_id, me.namespace),
        ).fetchone()
    if row is not None and row[0] == "died":
        raise WorkspaceError(
            "A run must keep its lease of the workspace.",
            found=f"no heartbeat for more than {SILENCE_S:g} s, and another run took the workspace over",
            allowed="a heartbeat every few seconds: a machine that is not suspended, a disk that answers",
            change="Wait for the other run, then run again: finished steps are found.",
        )


def _refuse_others(ledger: Ledger) -> None:
    """The lock is ours, yet another lease lives: the disk's locks do not reach its machine."""
    others = leases(ledger, open_only=True)
    if others:
        other = others[-1]
        raise WorkspaceBusyError(
            "One run at a time may write to a workspace.",
            found=f"in use by process {other.owner.process} of another machine or container ({other.purpose}),"
            f" last heard of {max(0.0, time.time() - other.heartbeat_at):.0f} s ago",
            allowed="a workspace that no other run holds",
            change=f"Wait for that run; one that is silent for {SILENCE_S:g} s is taken for dead.",
        )


def _take(ledger: Ledger, purpose: str, flow_run: str | None, slot: str | None) -> int:
    me, now = own_identity(), time.time()
    with ledger.connection() as connection:
        cursor = connection.execute(
            "INSERT INTO leases (purpose, flow_run, slot, began_at, heartbeat_at,"
            " process, process_started, boot_id, namespace, machine) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (purpose, flow_run, slot, now, now, me.process, me.started, me.boot_id, me.namespace, me.machine),
        )
        return int(cursor.lastrowid or 0)


def _end(ledger: Ledger, number: int, outcome: str) -> None:
    with ledger.connection() as connection:
        connection.execute(
            "UPDATE leases SET ended_at = ?, outcome = ? WHERE id = ? AND ended_at IS NULL",
            (time.time(), outcome, number),
        )


@contextmanager
def _beating(ledger: Ledger, number: int) -> Iterator[None]:
    """Write a heartbeat every `HEARTBEAT_S` for the time of the block."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT_S):
            with suppress(sqlite3.Error), ledger.connection() as connection:  # the next one may get through
                connection.execute(
                    "UPDATE leases SET heartbeat_at = ?, beats = beats + 1 WHERE id = ?", (time.time(), number)
                )

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
