"""`scanloom serve` as a workstation runs it: a real server, real processes, a real minute of cron.

Minutes long. A service with a schedule or a trigger is started, fed, stopped or killed, and started anew.
"""

import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.lease import leases
from pipeline.ledger import Ledger
from pipeline.slots import serving_lease
from pipeline.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow]


class Service:
    """A `scanloom serve` process and the server that it brings."""

    def __init__(self, home: Path) -> None:
        self.home, self.ports = home, _free_ports(2)
        self.log = home / "service.log"

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `scanloom` to its end."""
        return subprocess.run(
            self._call(arguments), env=self._environment(asks=True), capture_output=True, text=True, check=True
        )

    def script(self, text: str, *arguments: str) -> None:
        """Run a script that talks to the server."""
        call = [sys.executable, "-c", text, *arguments]
        subprocess.run(call, env=self._environment(asks=True), capture_output=True, check=True)

    def start(self, *arguments: str) -> None:
        """Start the service and wait until it serves."""
        ports = ("--port", str(self.ports[0]), "--reports-port", str(self.ports[1]))
        with self.log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                self._call(("serve", *arguments, *ports)),
                env=self._environment(asks=False),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.wait(lambda: "serving" in self.log.read_text(encoding="utf-8"), 600)

    def stop(self) -> int:
        """SIGTERM, as systemd stops a service."""
        self.process.terminate()
        return self.process.wait(60)

    def power_cut(self) -> None:
        """Kill the service, its server and its runs at once; by their ids, for each has a session of its own."""
        for process in [self.process.pid, *_descendants(self.process.pid)]:
            os.kill(process, signal.SIGKILL)
        self.process.wait()

    def ask(self, path: str, **body: Any) -> Any:
        """One request to the server."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports[0]}/api{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.load(answer)

    def runs(self) -> list[dict[str, Any]]:
        """Flow runs that began, oldest first, without those inside others."""
        found = self.ask("/flow_runs/filter", sort="EXPECTED_START_TIME_DESC")
        begun = [run for run in found if run["start_time"] and run["parent_task_run_id"] is None]
        return sorted(begun, key=lambda run: str(run["start_time"]))

    def wait(self, condition: Callable[[], object], seconds: float = 300) -> None:
        """Wait until a condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.log.read_text(encoding="utf-8")
            time.sleep(1)

    def _call(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-c", "from flows.command_line import main; main()", *arguments]

    def _environment(self, *, asks: bool) -> dict[str, str]:
        """Variables of a process; one that asks the server is told where it is."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "SCANLOOM_"))}
        own = {"SCANLOOM_HOME": str(self.home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        address = {"PREFECT_API_URL": f"http://127.0.0.1:{self.ports[0]}/api"} if asks else {}
        return kept | own | address


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _descendants(process: int) -> list[int]:
    children = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()
    return [each for child in children for each in (int(child), *_descendants(int(child)))]


def _final(run: dict[str, Any]) -> bool:
    return run["state_type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@pytest.fixture
def scans(cohort: Path, tmp_path: Path) -> Path:
    """A folder of three series, whose name must never reach Prefect."""
    folder = tmp_path / "Westwing-Maria-Lindgren"
    folder.mkdir()
    for source in sorted(cohort.rglob("*_ct.nii.gz"))[:3]:
        _add(source, folder)
    return folder


def _add(source: Path, folder: Path) -> None:
    shutil.copy(source, folder)
    shutil.copy(source.with_name(source.name.replace(".nii.gz", ".json")), folder)


@pytest.fixture
def service(tmp_path: Path, scans: Path) -> Iterator[Service]:
    service = Service(tmp_path / "home")
    service.home.mkdir()
    service.command("site", "add", "nightly", "-i", str(scans), "-w", str(tmp_path / "work"), "-c", "smoke")
    yield service
    if service.process.poll() is None:
        service.power_cut()


def test_a_cron_schedule_fires_within_its_minute_and_a_restart_loses_none(service: Service, tmp_path: Path) -> None:
    arguments = ("--site", "nightly", "--flow", "ingest", "--cron", "* * * * *")
    service.start(*arguments)
    service.wait(lambda: [run for run in service.runs() if _final(run)])
    first = service.runs()[0]
    due, began = (datetime.fromisoformat(first[key]) for key in ("expected_start_time", "start_time"))
    assert first["state_type"] == "COMPLETED"
    assert first["auto_scheduled"]
    assert due.second == 0
    assert timedelta(seconds=-1) <= began - due < timedelta(seconds=60), "timers may wake a moment early"
    stopped = datetime.now(UTC)
    assert service.stop() in {0, 143}
    time.sleep(125)  # two slots fall due while nothing runs
    service.start(*arguments)
    restarted = datetime.now(UTC)

    def begun_again() -> list[dict[str, Any]]:
        later = [run for run in service.runs() if datetime.fromisoformat(run["start_time"]) > stopped]
        return [run for run in later if run["state_name"] == "Completed"]

    service.wait(begun_again)
    ledger = Ledger(tmp_path / "work" / "ledger.sqlite")
    minutes = range(int(stopped.timestamp()) // 60 + 1, int(restarted.timestamp()) // 60 + 1)
    assert len(minutes) >= 2
    for minute in minutes:  # one run served every slot that fell due meanwhile
        assert serving_lease(ledger, "", "ingest", 60.0 * minute) is not None
    assert {lease.outcome for lease in leases(ledger) if lease.ended_at} <= {"completed", "idle"}


def test_new_data_fires_once_for_each_set_also_over_restarts(service: Service, scans: Path, cohort: Path) -> None:
    arguments = ("--site", "nightly", "--flow", "ingest", "--new-data", "--look-interval", "2")

    def done() -> list[dict[str, Any]]:
        return [run for run in service.runs() if run["state_type"] == "COMPLETED"]

    service.start(*arguments)
    service.wait(lambda: len(done()) == 1)
    os.utime(next(scans.glob("*.nii.gz")))  # touched only
    time.sleep(15)
    assert len(service.runs()) == 1
    service.stop()
    _add(sorted(cohort.rglob("*_ct.nii.gz"))[3], scans)  # arrives while nothing looks
    service.start(*arguments)
    service.wait(lambda: len(done()) == 2)
    time.sleep(15)
    assert len(service.runs()) == 2
    database = (service.home / ".prefect" / "prefect.db").read_bytes()
    database += (service.home / ".prefect" / "prefect.db-wal").read_bytes()
    assert b"Lindgren" not in database
    assert str(service.home.parent / "work").encode() not in database


def test_after_a_power_cut_the_dead_run_is_begun_again_and_goes_on(
    service: Service, cohort: Path, scans: Path, tmp_path: Path
) -> None:
    shutil.rmtree(scans)
    shutil.copytree(cohort, scans)
    service.start("--site", "nightly", "--new-data", "--look-interval", "2")
    ledger_path = tmp_path / "work" / "ledger.sqlite"

    def training() -> bool:
        return ledger_path.exists() and any(row.stage == "train_lesions" for row in Ledger(ledger_path).rows())

    service.wait(training)
    service.power_cut()
    dead = leases(Ledger(ledger_path))[-1]
    service.wait(dead.dead, 30)
    service.start("--site", "nightly", "--new-data", "--look-interval", "2")
    service.wait(lambda: [run for run in service.runs() if run["state_type"] == "COMPLETED"], 500)
    first, second = service.runs()
    assert (first["id"], first["state_type"]) == (dead.flow_run, "CRASHED")
    assert second["idempotency_key"] == f"resume-{dead.flow_run}"
    rows = Ledger(ledger_path).rows("ingest")
    assert [row.state for row in rows] == ["completed", "cached"]  # it went on, not anew
    with urllib.request.urlopen(_report(service), timeout=60) as page:  # noqa: S310 - our own server
        assert b"scanloom" in page.read()


_BLOCK = """
import sys
from prefect.blocks.notifications import CustomWebhookNotificationBlock
text = {"text": "{{subject}} | {{body}}"}
block = CustomWebhookNotificationBlock(name="ward", url=sys.argv[1], method="POST", json_data=text)
block.save("ward", overwrite=True)
"""
_HAPPENINGS = """
import prefect, sys
from prefect.events import emit_event
from flows.events import ALARM, VERDICT
site = {"prefect.resource.id": "scanloom.site.nightly"}
emit_event(VERDICT, resource=site, payload={"track": "lesions", "verdict": "use", "outcome": "bad"})
emit_event(ALARM, resource=site, payload={"step": "train_lesions", "alarms": {"lost": 1}})

@prefect.flow
def broken():
    raise KeyError

with prefect.tags("scanloom"):
    broken(return_state=True)
"""


def test_people_are_told_of_failures_alarms_and_verdicts(service: Service) -> None:
    told: list[str] = []

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *values: object) -> None:
            pass

    service.start("--site", "nightly")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        service.script(_BLOCK, f"http://127.0.0.1:{server.server_address[1]}/")
        for _ in range(2):  # again with the same outcome
            service.command("notify", "custom-webhook/ward")
        assert len(service.ask("/automations/filter")) == 3
        time.sleep(15)  # the server takes automations up after some seconds
        service.script(_HAPPENINGS)
        service.wait(lambda: len(told) >= 3)
    finally:
        server.shutdown()
        server.server_close()
    assert sorted(text[9:].partition(" |")[0] for text in told) == [
        "scanloom: a run failed",
        "scanloom: training alarm",
        "scanloom: verdict",
    ]


def _report(service: Service) -> str:
    (link,) = [each["data"] for each in service.ask("/artifacts/filter") if each["key"] == "report"]
    return str(link[link.index("(") + 1 : link.index(")")])


class Worker(Service):
    """A server of its own and a worker of Prefect's, as a team has them."""

    def start(self, *arguments: str) -> None:
        with self.log.open("w", encoding="utf-8") as log:
            server = self._call(("server", "start", "--port", str(self.ports[0])))
            told = {"stdout": log, "stderr": subprocess.STDOUT, "start_new_session": True}
            self.process = subprocess.Popen(server, env=self._environment(asks=False), **told)
            self.wait(self._answers, 120)
            self.command("deploy", *arguments)
            worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "scanloom", "--type", "process"]
            self.worker = subprocess.Popen(worker, env=self._environment(asks=True), **told)

    def power_cut(self) -> None:
        for process in [self.worker.pid, *_descendants(self.worker.pid)]:
            os.kill(process, signal.SIGKILL)
        self.worker.wait()
        super().power_cut()

    def _answers(self) -> bool:
        try:
            return bool(self.ask("/flow_runs/filter") == [])
        except OSError:
            return False


@pytest.mark.parametrize("kind", [Service, Worker])
def test_a_canceled_training_is_gone_in_seconds_and_goes_on_to_the_same_weights(
    kind: type[Service], cohort: Path, tmp_path: Path
) -> None:
    service = kind(tmp_path / "home")
    service.home.mkdir()
    settings = ("-c", "smoke", "--set", "train.lesions.images=3072")
    whole, canceled = tmp_path / "whole", tmp_path / "canceled"
    for workspace in (whole, canceled):
        Workspace.open(workspace, bytes(range(32)))
    service.script(_MAIN, "train", "lesions", "-i", str(cohort), "-w", str(whole), *settings)
    service.command("ingest", "-i", str(cohort), "-w", str(canceled), *settings)
    service.command("site", "add", "nightly", "-i", str(cohort), "-w", str(canceled), *settings)
    service.start("--site", "nightly", "--flow", "train-lesions", "--interval", "100000")
    try:
        _cancel_and_go_on(service, canceled)
    finally:
        service.power_cut()
    assert _weights(canceled) == _weights(whole)


_MAIN = "from flows.command_line import main; main()"


def _cancel_and_go_on(service: Service, workspace: Path) -> None:
    service.wait(lambda: service.ask("/deployments/filter"), 120)
    (deployment,) = service.ask("/deployments/filter")

    def begin() -> str:
        return str(service.ask(f"/deployments/{deployment['id']}/create_flow_run", state={"type": "SCHEDULED"})["id"])

    def run(number: str) -> dict[str, Any]:
        return next(each for each in service.ask("/flow_runs/filter") if each["id"] == number)

    first = begin()
    partial = workspace / "train_lesions"
    service.wait(lambda: len(list(partial.glob("*.partial/checkpoints/*"))) > 1)
    lease = leases(Ledger(workspace / "ledger.sqlite"))[-1]
    asked = time.time()
    service.ask(f"/flow_runs/{first}/set_state", state={"type": "CANCELLING", "name": "Cancelling"})
    while not lease.dead():
        assert time.time() - asked < 60, service.log.read_text(encoding="utf-8")
        time.sleep(0.05)
    gone = time.time()
    (stopped,) = partial.glob("*.partial/stopped/*")
    reached = stopped.stat().st_mtime
    assert gone - reached < 10
    service.wait(lambda: run(first)["state_type"] == "CANCELLED", 60)
    second = begin()
    service.wait(lambda: _final(run(second)))
    assert run(second)["state_type"] == "COMPLETED"


def _weights(workspace: Path) -> dict[str, bytes]:
    (model,) = workspace.glob("train_lesions/*/model")
    return {path.name: path.read_bytes() for path in model.glob("*.safetensors")}
