from dataclasses import replace
from pathlib import Path

import pytest

from flows.chain import STEPS, Call, Records, steps_of
from flows.live_run import LiveRun, enrolled, live_run
from pipeline.records import StageRecord
from pipeline.settings import RunSettings
from pipeline.workspace import Workspace


class Notebook:
    """A display that writes down what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def begin(self, step: str, title: str, number: int, total: int) -> None:
        self.lines.append(f"begin {number}/{total} {step}: {title}")

    def advance(self, what: str, done: int, total: int) -> None:
        self.lines.append(f"{what} {done}/{total}")

    def end(self, found: bool, seconds: float) -> None:
        self.lines.append(f"end found={found}")

    def abandon(self) -> None:
        self.lines.append("abandon")

    def close(self) -> None:
        self.lines.append("close")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LiveRun:
    def ingest(call: Call, records: Records) -> StageRecord:
        call.progress("series", 1, 2)
        return StageRecord(stage="ingest", key="k", folder="ingest/k", content_sha256="c", facts={}, cached=True)

    monkeypatch.setitem(STEPS, "ingest", replace(STEPS["ingest"], run=ingest))
    return LiveRun(Call(Workspace.open(tmp_path / "work"), RunSettings()), Notebook())


def _told(run: LiveRun) -> list[str]:
    display = run._display
    assert isinstance(display, Notebook)
    return display.lines


def test_a_step_is_shown_from_begin_to_end(run: LiveRun) -> None:
    order = steps_of(("lesions", "mr_to_ct"))
    run.take("ingest", order)
    assert _told(run) == ["begin 1/11 ingest: read and check the scans", "series 1/2", "end found=True"]
    assert not run.complete()


def test_watchers_hear_progress_for_the_time_of_the_block(run: LiveRun) -> None:
    heard: list[tuple[str, int, int]] = []
    with run.watched(lambda what, done, total: heard.append((what, done, total))):
        run.take("ingest", ["ingest"])
    run.take("ingest", ["ingest"])
    assert heard == [("series", 1, 2)]


def test_a_failed_step_keeps_its_exception_and_its_second_attempt_says_so(
    run: LiveRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [OSError(5, "first attempt")]
    working = STEPS["ingest"].run

    def once(call: Call, records: Records) -> StageRecord:
        if failures:
            raise failures.pop()
        return working(call, records)

    monkeypatch.setitem(STEPS, "ingest", replace(STEPS["ingest"], run=once))
    with pytest.raises(OSError, match="first attempt"):
        run.take("ingest", ["ingest"])
    assert isinstance(run.failure, OSError)
    assert _told(run)[-1] == "abandon"
    run.take("ingest", ["ingest"])
    assert run.failure is None
    assert "once more after a passing error" in _told(run)[2]


def test_a_token_means_nothing_after_the_run(run: LiveRun) -> None:
    with enrolled(run) as token:
        assert live_run(token) is run
    with pytest.raises(LookupError, match="in the process that began it"):
        live_run(token)
