import sqlite3
from contextlib import closing

import pytest

from pipeline.lease import held
from pipeline.ledger import Ledger
from pipeline.slots import CLOCK_TOLERANCE_S, serving_lease
from pipeline.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    return Workspace.open(tmp_path / "w")


def ran(workspace, slot, began_at, purpose="augment", *, fails=False, idle=False):
    try:
        with held(workspace, purpose, slot=slot) as holding:
            holding.idle = idle
            if fails:
                raise ValueError
    except ValueError:
        pass
    with closing(sqlite3.connect(workspace.ledger_path)) as connection, connection:
        connection.execute("UPDATE leases SET began_at = ? WHERE id = ?", (began_at, holding.number))
    return holding.number


def test_a_replayed_slot_was_served_and_another_was_not(workspace):
    number = ran(workspace, "augment a", 1000.0)
    ledger = Ledger(workspace.ledger_path)
    assert serving_lease(ledger, "augment a", "augment", now=2000.0).id == number
    assert serving_lease(ledger, "augment b", "augment", now=2000.0) is None


def test_one_run_serves_every_slot_that_was_missed_before_it_began(workspace):
    number = ran(workspace, "friday", 5000.0)
    ledger = Ledger(workspace.ledger_path)
    for missed in (1000.0, 4999.0, 5000.0):
        assert serving_lease(ledger, f"at {missed}", "augment", missed, now=6000.0).id == number
    assert serving_lease(ledger, "later", "augment", 5001.0, now=6000.0) is None


def test_a_run_that_found_its_slot_served_serves_no_other(workspace):
    ran(workspace, "s", 5000.0, idle=True)
    assert serving_lease(Ledger(workspace.ledger_path), "t", "augment", 4000.0, now=6000.0) is None


def test_neither_a_failed_run_nor_one_of_another_flow_serves_a_slot(workspace):
    ran(workspace, "s", 5000.0, fails=True)
    ran(workspace, "s", 5000.0, purpose="ingest")
    assert serving_lease(Ledger(workspace.ledger_path), "s", "augment", 1000.0, now=6000.0) is None


def test_a_clock_that_was_ahead_once_costs_no_later_slot(workspace):
    ran(workspace, "wrong clock", 90_000.0)
    ledger = Ledger(workspace.ledger_path)
    assert serving_lease(ledger, "tonight", "augment", 7000.0, now=7000.0) is None
    assert serving_lease(ledger, "tonight", "augment", 7000.0, now=90_000.0 - CLOCK_TOLERANCE_S + 1) is not None
