"""Runs through Prefect whose server is killed or that are told to stop, and what leaves the machine meanwhile.

Minutes long: real commands, real servers. What goes on must end with the same bytes as a run that nobody disturbed.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.interrupted_runs import tree
from pipeline.lease import leases
from pipeline.ledger import Ledger
from pipeline.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
STRACE = shutil.which("strace")
TRACED = ("strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=socket,connect", "-o")
SETTINGS = ("--set", "tracks=[lesions]", "--set", "train.lesions.images=2048")
pytestmark = [pytest.mark.slow]


class Runs:
    """Commands on one workspace; its path and key are the same for all, so that all bytes can be compared."""

    def __init__(self, folder: Path, scans: Path) -> None:
        self.folder, self.scans, self.workspace = folder, scans, folder / "work"

    def begin(self, *before: str, settings: tuple[str, ...] = SETTINGS) -> subprocess.Popen[str]:
        """Start `scanloom run`, under another command where one is given."""
        script = "from flows.command_line import main; main()"
        where = ("--input", str(self.scans), "--workspace", str(self.workspace), *settings)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "SCANLOOM_"))}
        return subprocess.Popen(
            [*before, sys.executable, "-c", script, "run", "smoke", *where],
            env=kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def fresh(self) -> None:
        """An empty workspace of the same key."""
        shutil.rmtree(self.workspace, ignore_errors=True)
        Workspace.open(self.workspace, bytes(range(32)))

    def finish(self) -> None:
        """Run to the end."""
        process = self.begin()
        said, complained = process.communicate(timeout=900)
        assert process.returncode == 0, said + complained

    def wait_for_training(self, process: subprocess.Popen[str]) -> None:
        """Wait until a training has shown some images."""
        checkpoints = self.workspace / "train_lesions"
        end = time.monotonic() + 600
        while len(list(checkpoints.glob("*.partial/checkpoints/*"))) < 2:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.05)


@pytest.fixture(scope="module")
def runs(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("interrupted"), cohort)


@pytest.fixture(scope="module")
def undisturbed(runs: Runs) -> dict[str, str]:
    """Every file of a run that nobody disturbed; it is traced where that is possible."""
    runs.fresh()
    process = runs.begin(*TRACED, str(runs.folder / "trace")) if STRACE else runs.begin()
    said, complained = process.communicate(timeout=1800)
    assert process.returncode == 0, said + complained
    return _outputs(runs)


@pytest.mark.skipif(STRACE is None, reason="needs strace")
def test_nothing_leaves_the_loopback(runs: Runs, undisturbed: dict[str, str]) -> None:
    require_loopback_alone(runs.folder / "trace")


@pytest.mark.skipif(STRACE is None, reason="needs strace")
def test_nothing_leaves_the_loopback_on_the_way_from_mr_to_ct(cohort: Path, tmp_path: Path) -> None:
    runs = Runs(tmp_path, cohort)
    process = runs.begin(*TRACED, str(tmp_path / "trace"), settings=("--set", "tracks=[mr_to_ct]"))
    said, complained = process.communicate(timeout=1800)
    assert process.returncode == 0, said + complained
    assert list(runs.workspace.glob("evaluate_mr_to_ct/*/results.json"))
    require_loopback_alone(tmp_path / "trace")


def require_loopback_alone(trace: Path) -> None:
    """Every connection of a traced run is one to its own server, and no name was looked up."""
    lines = trace.read_text(encoding="utf-8", errors="replace").splitlines()
    addressed = [line for line in lines if "connect(" in line and "sa_family=AF_INET" in line]
    assert len(addressed) > 5, "the run talks to its own server"
    local = re.compile(r'inet_addr\("127\.|inet_pton\(AF_INET6, "::1"')
    assert [line for line in addressed if not local.search(line)] == []
    datagrams = re.compile(r"socket\(AF_INET6?, SOCK_DGRAM")
    assert [line for line in lines if datagrams.search(line)] == [], "no name is looked up"


def test_a_run_whose_server_is_killed_ends_or_says_so_and_goes_on(runs: Runs, undisturbed: dict[str, str]) -> None:
    runs.fresh()
    process = runs.begin()
    runs.wait_for_training(process)
    (server,) = [child for child in _children(process.pid) if b"flows.embedded_server" in _call(child)]
    began = time.monotonic()
    os.kill(server, signal.SIGKILL)
    said, complained = process.communicate(timeout=900)
    assert time.monotonic() - began < 120, "the rest of a training of seconds, and no minute for each last request"
    assert process.returncode in {0, 7}, said + complained
    if process.returncode:
        assert "found:" in complained
        assert "finished steps are kept" in complained
    assert "Traceback" not in complained
    assert not [lease for lease in leases(Ledger(runs.workspace / "ledger.sqlite")) if lease.ended_at is None]
    runs.finish()
    assert _outputs(runs) == undisturbed


def test_a_training_told_to_stop_is_gone_in_seconds_and_goes_on_to_the_same_bytes(
    runs: Runs, undisturbed: dict[str, str]
) -> None:
    runs.fresh()
    process = runs.begin()
    runs.wait_for_training(process)
    process.terminate()
    began = time.monotonic()
    _, complained = process.communicate(timeout=120)
    took = time.monotonic() - began
    assert process.returncode == 143, complained
    assert "run the same command again to resume" in complained
    assert took < 10
    assert list((runs.workspace / "train_lesions").glob("*.partial/stopped/*")), "the state of the moment is kept"
    assert leases(Ledger(runs.workspace / "ledger.sqlite"))[-1].outcome == "failed"
    runs.finish()
    rows = Ledger(runs.workspace / "ledger.sqlite").rows("ingest")
    assert [row.state for row in rows] == ["completed", "cached"]
    assert _outputs(runs) == undisturbed


def _outputs(runs: Runs) -> dict[str, str]:
    """Files of the workspace without Prefect's own."""
    return {name: own for name, own in tree(runs.workspace).items() if not name.startswith(".prefect/")}


def _children(process: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()]


def _call(process: int) -> bytes:
    return Path(f"/proc/{process}/cmdline").read_bytes()
