"""Slots: what a schedule or trigger asked for, and whether it was served; so that a replay or a missed hour runs once.

A slot is a name, e.g. ``augment nightly 2026-11-28T02:00:00Z`` or the hash of a new series set. A run keeps the name of
its slot in its lease. A slot is served by the completed run of its own name; a slot of a schedule also by any completed
run of the same purpose that began at or after the slot's time: after a weekend without power the first of the runs that
were missed serves them all, for it saw the input as it was later than each of them asked for.
"""

import time

from pipeline.lease import Lease, leases
from pipeline.ledger import Ledger

CLOCK_TOLERANCE_S = 300.0
"""A run that began later than this from now was recorded by a clock that was wrong; it serves no slot."""


def serving_lease(
    ledger: Ledger, slot: str, purpose: str, due_at: float | None = None, now: float | None = None
) -> Lease | None:
    """The run that served a slot already, or None.

    Args:
        ledger: of the workspace.
        slot: name of the slot.
        purpose: purpose of the run's lease.
        due_at: the slot's time, in seconds since the epoch; None where it has none but its name.
        now: the present; for tests.
    """
    present = time.time() if now is None else now
    for lease in reversed(leases(ledger)):
        if lease.outcome != "completed" or lease.purpose != purpose:
            continue
        later = due_at is not None and due_at <= lease.began_at <= present + CLOCK_TOLERANCE_S
        if lease.slot == slot or later:
            return lease
    return None
