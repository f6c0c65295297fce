import sqlite3
import threading

import pytest

from pipeline.ledger import Ledger


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger.sqlite")


def completed(ledger, stage, key):
    """The last completed run of a stage under a key."""
    rows = [row for row in ledger.rows(stage) if row.key == key and row.state == "completed"]
    return rows[-1] if rows else None


def test_a_run_goes_from_running_to_completed(ledger):
    number = ledger.start("ingest", "k1", {"input": "abc"})
    (running,) = ledger.rows()
    assert (running.id, running.stage, running.key, running.state) == (number, "ingest", "k1", "running")
    assert running.seconds is None
    assert completed(ledger, "ingest", "k1") is None
    ledger.complete(number, "f" * 64, 2.5, 1.25)
    found = completed(ledger, "ingest", "k1")
    assert found is not None
    assert (found.content_sha256, found.seconds, found.cpu_seconds) == ("f" * 64, 2.5, 1.25)


def test_a_failure_keeps_its_message_and_does_not_count_as_completed(ledger):
    ledger.fail(ledger.start("prepare_lesions", "k", {}), "too few images", 0.5)
    (row,) = ledger.rows("prepare_lesions")
    assert (row.state, row.message, row.seconds) == ("failed", "too few images", 0.5)
    assert completed(ledger, "prepare_lesions", "k") is None


def test_a_hit_is_a_row_of_its_own(ledger):
    ledger.complete(ledger.start("ingest", "k", {}), "a" * 64, 1.0, 1.0)
    ledger.hit("ingest", "k", "a" * 64)
    assert [row.state for row in ledger.rows()] == ["completed", "cached"]
    assert completed(ledger, "ingest", "k").id == 1


def test_the_last_completed_run_counts_and_keys_are_kept_apart(ledger):
    for digest in ("a" * 64, "b" * 64):
        ledger.complete(ledger.start("ingest", "k", {}), digest, 1.0, 1.0)
    ledger.complete(ledger.start("ingest", "other", {}), "c" * 64, 1.0, 1.0)
    assert completed(ledger, "ingest", "k").content_sha256 == "b" * 64
    assert completed(ledger, "prepare_lesions", "k") is None


def test_order_is_that_of_the_rows_even_where_the_clock_jumps_back(ledger, monkeypatch):
    times = iter([2000.0, 1000.0, 1500.0])
    monkeypatch.setattr("pipeline.ledger.time.time", lambda: next(times))
    for key in "abc":
        ledger.start("ingest", key, {})
    assert [(row.key, row.started_at) for row in ledger.rows()] == [("a", 2000.0), ("b", 1000.0), ("c", 1500.0)]


def test_rows_outlive_the_process_that_wrote_them(tmp_path):
    path = tmp_path / "ledger.sqlite"
    Ledger(path).start("ingest", "k", {})
    assert [row.key for row in Ledger(path).rows()] == ["k"]


def test_unknown_states_never_enter(tmp_path, ledger):
    with pytest.raises(sqlite3.IntegrityError), sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        connection.execute(
            "INSERT INTO stage_runs (stage, key, state, inputs, process, started_at)"
            " VALUES ('x', 'k', 'odd', '{}', 1, 0)"
        )
    connection.close()


def test_writers_wait_for_each_other(ledger):
    threads = [
        threading.Thread(target=lambda name=name: [ledger.start(name, str(k), {}) for k in range(10)]) for name in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = ledger.rows()
    assert len(rows) == 20
    assert [row.id for row in rows] == list(range(1, 21))
    assert [row.key for row in ledger.rows("a")] == [str(k) for k in range(10)]
