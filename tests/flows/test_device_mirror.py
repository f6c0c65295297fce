"""Turns on a device as a Prefect server shows them; without one they are what they were."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flows.device_mirror import DeviceMirror, limit_name
from pipeline.device_turn import DeviceTurn, device_turn, is_free, turns_shown
from pipeline.records import silent

ROOT = Path(__file__).resolve().parents[2]
TURN = DeviceTurn("bench", "bench")
HOLD = """
import time
from flows.device_mirror import DeviceMirror
from pipeline.device_turn import DeviceTurn, device_turn, turns_shown
with turns_shown(DeviceMirror()), device_turn(DeviceTurn("bench", "bench"), lambda *told: None):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def _no_server(**asked: object) -> Iterator[object]:
    raise ConnectionError("no server")
    yield


def test_without_a_server_a_turn_is_taken_and_given_back_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("flows.device_mirror.get_client", _no_server)
    began = time.monotonic()
    with turns_shown(DeviceMirror()), device_turn(TURN, silent):
        assert not is_free("bench")
    assert is_free("bench")
    assert time.monotonic() - began < 2


def test_a_server_that_fails_does_not_disturb_a_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    asked = []

    @contextmanager
    def broken(**_: object) -> Iterator[object]:
        class Client:
            def __getattr__(self, name: str) -> Callable[..., Any]:
                asked.append(name)
                raise OSError("broken")

        yield Client()

    monkeypatch.setattr("flows.device_mirror.get_client", broken)
    with turns_shown(DeviceMirror()), device_turn(TURN, silent):
        time.sleep(0.1)
    assert asked, "the server was asked"
    assert is_free("bench")


class Server:
    """A real server of its own, with pages."""

    def __init__(self, home: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "SCANLOOM_"))}
        (home / "run").mkdir()
        own = {"SCANLOOM_HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run"), "PYTHONPATH": str(ROOT)}
        self.environment = kept | own | {"OMP_NUM_THREADS": "1", "PREFECT_API_URL": f"http://127.0.0.1:{self.port}/api"}
        self.process = self.start("server", "start", "--port", str(self.port), asks=False)
        self.wait(lambda: self.ask("/health", method="GET"), 120)

    def start(self, *arguments: str, asks: bool = True) -> subprocess.Popen[str]:
        environment = dict(self.environment)
        if not asks:
            del environment["PREFECT_API_URL"]
        script = "from flows.command_line import main; main()"
        return subprocess.Popen(
            [sys.executable, "-c", script, *arguments], env=environment, stdout=subprocess.DEVNULL, text=True
        )

    def hold(self) -> subprocess.Popen[str]:
        """Hold the device in a process of its own."""
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD], env=self.environment, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    def ask(self, path: str, method: str = "POST", **body: Any) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api{path}",
            data=json.dumps(body).encode() if method == "POST" else None,
            headers={"Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.load(answer)

    def occupied(self) -> int:
        limits = self.ask("/v2/concurrency_limits/filter", limit=10)
        return sum(limit["active_slots"] for limit in limits if limit["name"] == limit_name("bench"))

    def waiting(self) -> list[str]:
        runs = self.ask("/flow_runs/filter")
        return [run["state"]["message"] for run in runs if run["state_name"] == "WaitingForDevice"]

    def wait(self, condition: Callable[[], object], seconds: float) -> float:
        began = time.monotonic()
        while True:
            try:
                if condition():
                    return time.monotonic() - began
            except OSError:
                pass
            assert time.monotonic() - began < seconds
            time.sleep(0.5)


def kill(holder: subprocess.Popen[str]) -> None:
    with holder:
        holder.send_signal(signal.SIGKILL)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.process.terminate()
    made.process.wait(60)


@pytest.mark.slow
def test_a_server_shows_who_holds_and_who_waits_and_forgets_the_killed(server: Server, cohort: Path) -> None:
    holder = server.hold()
    server.wait(lambda: server.occupied() == 1, 60)
    workspace = server.environment["SCANLOOM_HOME"] + "/work"
    settings = ("--set", "device_turns=bench", "--set", "tracks=[lesions]")
    run = server.start("run", "smoke", "--input", str(cohort), "--workspace", workspace, *settings)
    server.wait(server.waiting, 300)
    assert server.waiting() == [f"for bench, held by process {holder.pid}"]
    assert run.poll() is None
    kill(holder)
    server.wait(lambda: not server.waiting(), 60)
    assert run.wait(600) == 0
    server.wait(lambda: server.occupied() == 0, 90)  # the lease of the killed expires, the run gave its own back
    states = [each["state_type"] for each in server.ask("/flow_runs/filter")]
    assert set(states) == {"COMPLETED"}


@pytest.mark.slow
def test_a_slot_that_a_server_forgot_is_freed_by_repair(server: Server) -> None:
    holder = server.hold()
    server.wait(lambda: server.occupied() == 1, 60)
    script = "from flows.device_mirror import free_slots; from prefect.client.orchestration import get_client\n"
    script += "with get_client(sync_client=True) as client: print(free_slots(client))"

    def freed() -> str:
        done = subprocess.run(
            [sys.executable, "-c", script], env=server.environment, capture_output=True, text=True, check=True, cwd=ROOT
        )
        return done.stdout.strip()

    assert freed() == "[]", "a living holder keeps its slot"
    kill(holder)
    assert freed() == "['device bench: shown as held, and free']"
    assert server.occupied() == 0
