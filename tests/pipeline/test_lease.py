import dataclasses
import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest
from pydantic import BaseModel

from pipeline.errors import WorkspaceError
from pipeline.lease import SILENCE_S, bury, held, leases, require_lease
from pipeline.ledger import DIED, Ledger
from pipeline.stage_runner import Stage, run_stage
from pipeline.workspace import Workspace

_HOLD = """
import sys
from pathlib import Path
from pipeline.lease import held
from pipeline.ledger import Ledger
from pipeline.workspace import Workspace
workspace = Workspace.open(Path(sys.argv[1]))
with held(workspace, "run", flow_run="f", slot="s"):
    Ledger(workspace.ledger_path).start("ingest", "k", {"input": "x"}, "ingest/k")
    print("holding", flush=True)
    sys.stdin.read()
"""

_PAIRS = """
import json, multiprocessing, sys
from pathlib import Path
from pipeline.errors import WorkspaceBusyError
from pipeline.lease import held
from pipeline.ledger import Ledger
from pipeline.workspace import Workspace
fork = multiprocessing.get_context("fork")

def compete(root, barrier, done, told):
    workspace = Workspace.open(root)
    barrier.wait()
    try:
        with held(workspace, "run"):
            row = Ledger(workspace.ledger_path).start("ingest", "k", {})
            done.wait()  # until the other was refused
            Ledger(workspace.ledger_path).complete(row, "f" * 64, 0.0, 0.0)
        told.put(["won", multiprocessing.current_process().pid, ""])
    except WorkspaceBusyError as error:
        told.put(["refused", multiprocessing.current_process().pid, str(error)])
        done.set()

outcomes = []
for _ in range(int(sys.argv[2])):
    barrier, done, told = fork.Barrier(2), fork.Event(), fork.Queue()
    pair = [fork.Process(target=compete, args=(Path(sys.argv[1]), barrier, done, told)) for _ in range(2)]
    for process in pair:
        process.start()
    outcomes.append(sorted(told.get(timeout=60) for _ in pair))
    for process in pair:
        process.join()
print(json.dumps(outcomes))
"""


@pytest.fixture
def workspace(tmp_path):
    return Workspace.open(tmp_path / "w")


def holder(workspace):
    child = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(workspace.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout.readline() == b"holding\n"
    return child


def forge(workspace, **values):
    """Change every lease, as another machine would have written it."""
    with closing(sqlite3.connect(workspace.ledger_path)) as connection, connection:
        for name, value in values.items():
            connection.execute(f"UPDATE leases SET {name} = ?", (value,))  # noqa: S608


def test_a_holding_is_recorded_from_beginning_to_end(workspace):
    ledger = Ledger(workspace.ledger_path)
    with held(workspace, "run", flow_run="abc", slot="2026-01-01"):
        (lease,) = leases(ledger, open_only=True)
        assert (lease.purpose, lease.flow_run, lease.slot, lease.dead()) == ("run", "abc", "2026-01-01", False)
        row = ledger.start("ingest", "k", {})
        assert ledger.rows()[0].lease == lease.id
        ledger.complete(row, "f" * 64, 1.0, 1.0)
    assert leases(ledger, open_only=True) == []
    with pytest.raises(ValueError, match="x"), held(workspace, "run"):
        raise ValueError("x")
    assert [lease.outcome for lease in leases(ledger)] == ["completed", "failed"]


def test_of_two_runs_one_wins_and_the_other_says_who(workspace):
    with holder(workspace) as child:
        with pytest.raises(WorkspaceError, match=f"process {child.pid}"), held(workspace, "run"):
            pass
        child.stdin.close()
    with held(workspace, "run"):
        pass
    assert [lease.outcome for lease in leases(Ledger(workspace.ledger_path))] == ["completed", "completed"]


def test_of_twenty_pairs_at_once_one_wins_and_the_other_is_told_who_since_when_and_what_to_do(workspace):
    call = [sys.executable, "-c", _PAIRS, str(workspace.root), "20"]
    outcomes = json.loads(subprocess.run(call, capture_output=True, check=True, timeout=120).stdout)
    assert len(outcomes) == 20
    for (refused, _, message), (won, winner, _) in outcomes:
        assert (refused, won) == ("refused", "won")
        assert re.search(rf"in use by process {winner} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d", message)
        assert "Wait for that run" in message
    ledger = Ledger(workspace.ledger_path)
    assert [lease.outcome for lease in leases(ledger)] == ["completed"] * 20
    assert [row.state for row in ledger.rows()] == ["completed"] * 20
    with closing(sqlite3.connect(workspace.ledger_path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_killed_holder_is_found_dead_and_its_stage_failed(workspace):
    with holder(workspace) as child:
        child.send_signal(signal.SIGKILL)
    ledger = Ledger(workspace.ledger_path)
    assert ledger.rows()[0].state == "running"  # a zombie until someone looks
    (dead,) = leases(ledger, open_only=True)
    assert dead.dead()
    with held(workspace, "run"):
        pass
    assert [lease.outcome for lease in leases(ledger)] == ["died", "completed"]
    assert (ledger.rows()[0].state, ledger.rows()[0].message) == ("failed", DIED)


def test_another_machine_is_believed_while_its_heart_beats(workspace):
    ledger = Ledger(workspace.ledger_path)
    with held(workspace, "run"):
        pass
    forge(workspace, ended_at=None, outcome=None, boot_id="elsewhere", machine="other", heartbeat_at=time.time() - 5)
    with pytest.raises(WorkspaceError, match="another machine or container"), held(workspace, "run"):
        pass
    forge(workspace, heartbeat_at=time.time() - SILENCE_S - 5)
    with held(workspace, "run"):
        pass
    assert [lease.outcome for lease in leases(ledger)] == ["died", "completed"]


def test_who_lost_the_lease_seals_no_output(workspace):
    class Knobs(BaseModel):
        pass

    def body(context):
        (context.folder / "data").write_text("x", encoding="utf-8")
        forge(workspace, ended_at=time.time(), outcome="died")  # another machine took the workspace over
        return {}

    with pytest.raises(WorkspaceError, match="keep its lease"), held(workspace, "run"):
        run_stage(workspace, Stage("demo", "pipeline.files", body), Knobs(), records={})
    assert not [path for path in (workspace.root / "demo").iterdir() if not path.name.endswith(".partial")]
    require_lease(Ledger(workspace.root / "other.sqlite"))  # who never held one may go on


def test_the_heart_beats(workspace, monkeypatch):
    monkeypatch.setattr("pipeline.lease.HEARTBEAT_S", 0.02)
    ledger = Ledger(workspace.ledger_path)
    with held(workspace, "run"):
        first = leases(ledger)[0].heartbeat_at
        for _ in range(200):
            if leases(ledger)[0].heartbeat_at > first:
                break
            time.sleep(0.02)
        assert leases(ledger)[0].heartbeat_at > first


def test_a_running_row_of_a_living_process_without_a_lease_is_left_alone(workspace):
    ledger = Ledger(workspace.ledger_path)
    ledger.start("ingest", "k", {})  # a notebook holds no lease
    with held(workspace, "run"):
        assert bury(ledger) == []
    assert ledger.rows()[0].state == "running"


def test_a_ledger_of_an_earlier_release_is_taken_over(tmp_path):
    workspace = Workspace.open(tmp_path / "old")
    with closing(sqlite3.connect(workspace.ledger_path)) as connection, connection:
        connection.executescript(
            "CREATE TABLE stage_runs (id INTEGER PRIMARY KEY AUTOINCREMENT, stage TEXT NOT NULL, key TEXT NOT NULL,"
            " state TEXT NOT NULL CHECK (state IN ('running', 'completed', 'failed', 'cached')), inputs TEXT NOT NULL,"
            " process INTEGER NOT NULL, started_at REAL NOT NULL, seconds REAL, cpu_seconds REAL, content_sha256 TEXT,"
            " message TEXT);"
            "INSERT INTO stage_runs VALUES (1, 'ingest', 'k', 'completed', '{}', 7, 1.5, 2.0, 1.0, 'f', NULL);"
            "INSERT INTO stage_runs VALUES (2, 'report', 'r', 'running', '{}', 7, 2.5, NULL, NULL, NULL, NULL);"
        )
    with held(workspace, "run"):
        pass
    old, running = Ledger(workspace.ledger_path).rows()
    assert (old.state, old.started_at, old.folder, old.lease) == ("completed", 1.5, None, None)
    assert (running.state, running.message) == ("failed", DIED)
    assert dataclasses.astuple(old.owner) == (7, 0, "", "", "")
