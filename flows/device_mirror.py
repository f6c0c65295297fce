"""What Prefect's pages show of turns on a device: a global concurrency limit, and the state of the runs that wait.

The file lock of `pipeline.device_turn` decides who computes; nothing here does. Whoever has the lock occupies the one
slot of a limit of the device's name; a run that waits is `WaitingForDevice`, with the holder in its message. The slot
is held by a lease of the server, renewed while the process lives: after a SIGKILL it expires. A server that was started
anew forgets leases but not slots: the holder of the lock, and `scanloom repair --flow-runs`, empty such a slot.

The server is asked from a thread of its own, and whatever it answers, or does not answer, changes nothing for the run.
"""

import os
import threading
import time
from contextlib import suppress
from uuid import UUID

from httpx import HTTPStatusError, codes
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate
from prefect.client.schemas.objects import ConcurrencyLeaseHolder, State, StateType
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectAlreadyExists
from prefect.states import Running

from pipeline.device_turn import DeviceTurn, is_free, plain
from pipeline.process_identity import own_identity

WAITING = "WaitingForDevice"
"""Name of the state of a flow run that waits for its turn."""

LEASE_S = 60.0
"""The shortest lease that Prefect grants."""

BEAT_S = 15.0
STALE_S = 1.5 * LEASE_S
"""So long after the lock was taken, leases of dead processes have expired: a slot still taken is a forgotten one."""

_PATIENCE_S = 5.0
"""How long the end of a turn waits for the server to hear of it."""


def limit_name(turn_name: str) -> str:
    """Name of a device's limit: locks are those of one user on one machine, and so are limits."""
    return f"{_prefix()}{plain(turn_name)}"


def _prefix() -> str:
    return f"scanloom-{own_identity().machine[:8] or 'here'}-{os.getuid()}-"


class DeviceMirror:
    """A `pipeline.device_turn.TurnWatcher` that shows turns to Prefect.

    Args:
        flow_run: the run at work; by default the one that this is called in.
    """

    def __init__(self, flow_run: UUID | None = None) -> None:
        context = FlowRunContext.get()
        known = None if context is None or context.flow_run is None else context.flow_run.id
        self._run = flow_run or known
        self._turn: DeviceTurn | None = None
        self._holder: str | None = None
        self._changed, self._began = threading.Event(), 0.0
        self._thread: threading.Thread | None = None
        self._lease: UUID | None = None

    def waits(self, turn: DeviceTurn, holder: str) -> None:
        """Show that the run waits."""
        if holder != self._holder:
            self._holder = holder
            self._show(turn)

    def begins(self, turn: DeviceTurn) -> None:
        """Show that the run holds the device."""
        self._holder, self._began = None, time.monotonic()
        self._show(turn)

    def ends(self, turn: DeviceTurn) -> None:
        """Show that the device is free again."""
        thread, self._thread, self._turn = self._thread, None, None
        self._changed.set()
        if thread is not None:
            thread.join(_PATIENCE_S)

    def _show(self, turn: DeviceTurn) -> None:
        self._turn = turn
        self._changed.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="device mirror", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        with suppress(Exception), get_client(sync_client=True) as client:
            while (turn := self._turn) is not None:
                self._changed.clear()
                with suppress(Exception):  # the next beat may get through
                    self._tell(client, turn)
                self._changed.wait(BEAT_S)
            if self._lease is not None:
                lease, self._lease = self._lease, None
                client.release_concurrency_slots_with_lease(lease)

    def _tell(self, client: SyncPrefectClient, turn: DeviceTurn) -> None:
        holder = self._holder
        if holder is not None:
            self._name_state(client, WAITING, f"for {turn.label}, held by {holder}")
            return
        self._name_state(client, None, "")
        name = limit_name(turn.name)
        if self._lease is not None:
            try:
                client.renew_concurrency_lease(self._lease, LEASE_S)
                return
            except HTTPStatusError:
                self._lease = None
        _require_limit(client, name)
        if time.monotonic() - self._began > STALE_S:
            client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(active_slots=0))
        self._lease = self._occupied(client, name)

    def _occupied(self, client: SyncPrefectClient, name: str) -> UUID | None:
        holder = None if self._run is None else ConcurrencyLeaseHolder(type="flow_run", id=self._run)
        try:
            answer = client.increment_concurrency_slots_with_lease([name], 1, "concurrency", LEASE_S, holder)
        except HTTPStatusError as error:
            if error.response.status_code == codes.LOCKED:  # a dead holder's lease, that expires
                return None
            raise
        return UUID(answer.json()["lease_id"])

    def _name_state(self, client: SyncPrefectClient, name: str | None, message: str) -> None:
        """Name the run's state while it waits, and no longer; a run that is being canceled is left alone."""
        if self._run is None:
            return
        state = client.read_flow_run(self._run).state
        waiting = state is not None and state.name == WAITING
        if state is None or state.type != StateType.RUNNING or (name is None and not waiting):
            return
        shown: State[None] = Running() if name is None else Running(name=name, message=message)
        client.set_flow_run_state(self._run, shown, force=True)


def _require_limit(client: SyncPrefectClient, name: str) -> None:
    with suppress(ObjectAlreadyExists):
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1, active=True))


def free_slots(client: SyncPrefectClient, *, dry_run: bool = False) -> list[str]:
    """Empty slots of devices that nobody holds: their holders were killed, and the server has forgotten the leases.

    Args:
        client: of the server.
        dry_run: only tell.

    Returns:
        One line a slot.
    """
    lines, prefix = [], _prefix()
    for limit in client.read_global_concurrency_limits(limit=200):
        device = limit.name.removeprefix(prefix)
        if limit.name.startswith(prefix) and limit.active_slots and is_free(device):
            lines.append(f"device {device}: shown as held, and free")
            if not dry_run:
                client.update_global_concurrency_limit(limit.name, GlobalConcurrencyLimitUpdate(active_slots=0))
    return lines
