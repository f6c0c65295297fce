"""Trainings that torchrun starts in two real processes: equal to one process, killed, stopped, gone on with."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from flows.command_line import app
from pipeline.ledger import Ledger

ROOT = Path(__file__).resolve().parents[2]
Command = Callable[..., subprocess.CompletedProcess[str]]
STEPS = {"lesions": "train_lesions", "mr-to-ct": "train_mr_to_ct"}


@pytest.fixture(scope="module")
def prepared(cohort: Path, scanloom: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tmp_path_factory.mktemp("prepared") / "workspace"
    done = scanloom("prepare", "--config", "smoke", "--input", cohort, "--workspace", workspace)
    assert done.returncode == 0, done.stderr
    return workspace


def torchrun(workspace: Path, track: str, *options: str) -> subprocess.Popen[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "flows.command_line", "train", track, "--workspace", str(workspace), *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SCANLOOM_")}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def weights(workspace: Path, track: str) -> torch.Tensor:
    (model,) = workspace.glob(f"{STEPS[track]}/*/model")
    tensors = [value for path in sorted(model.glob("*.safetensors")) for value in load_file(path).values()]
    return torch.cat([value.flatten().float() for value in tensors])


def copy_of(prepared: Path, folder: Path) -> Path:
    return Path(shutil.copytree(prepared, folder))


def wait_for_checkpoint(workspace: Path, step: str, images: int) -> None:
    deadline = time.monotonic() + 120
    while not list(workspace.glob(f"{step}/*.partial/checkpoints/{images:010d}")):
        assert time.monotonic() < deadline, "no checkpoint"
        time.sleep(0.02)


def workers_of(launcher: int) -> list[int]:
    """Processes of the ranks, first to last."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            environment = (folder / "environ").read_bytes().split(b"\0") if parent == launcher else []
        except OSError:
            continue
        ranks = [entry for entry in environment if entry.startswith(b"RANK=")]
        if ranks:
            found[int(ranks[0][5:])] = int(folder.name)
    return [found[rank] for rank in sorted(found)]


@pytest.mark.parametrize("command", [["run", "smoke"], ["prepare"], ["synthesize"]])
def test_torchrun_starts_trainings_only(command: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    result = CliRunner().invoke(app, [*command, "--workspace", str(tmp_path / "workspace")])
    assert result.exit_code == 2
    assert "torchrun starts trainings only" in result.stderr
    assert not (tmp_path / "workspace").exists()


@pytest.mark.slow
@pytest.mark.parametrize("track", STEPS)
def test_two_processes_train_what_one_does(track: str, prepared: Path, scanloom: Command, tmp_path: Path) -> None:
    one, two = copy_of(prepared, tmp_path / "one"), copy_of(prepared, tmp_path / "two")
    done = scanloom("train", track, "--workspace", one)
    assert done.returncode == 0, done.stderr
    running = torchrun(two, track)
    said, _ = running.communicate(timeout=300)
    assert running.returncode == 0, said
    first, second = weights(two, track), weights(one, track)
    assert 0 < float((first - second).norm() / second.norm()) < 0.02  # sums in another order, steered by Adam
    rows = Ledger(two / "ledger.sqlite").rows(STEPS[track])
    assert [row.state for row in rows] == ["completed"]  # one process wrote


@pytest.mark.slow
def test_a_batch_that_two_cannot_share_is_refused_before_anything_is_made(prepared: Path, tmp_path: Path) -> None:
    workspace = copy_of(prepared, tmp_path / "workspace")
    running = torchrun(workspace, "lesions", "--set", "train.lesions.batch_size=15")
    said, _ = running.communicate(timeout=300)
    assert running.returncode != 0
    assert "batch_size 15 with 2 processes" in said
    assert not (workspace / "train_lesions").exists()


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_one_process_killed_ends_all_and_one_alone_goes_on(
    victim: int, prepared: Path, scanloom: Command, tmp_path: Path
) -> None:
    workspace = copy_of(prepared, tmp_path / "workspace")
    options = ("--set", "train.lesions.images=4096")
    running = torchrun(workspace, "lesions", *options)
    wait_for_checkpoint(workspace, "train_lesions", 512)
    os.kill(workers_of(running.pid)[victim], signal.SIGKILL)
    began = time.monotonic()
    said, _ = running.communicate(timeout=60)
    assert running.returncode != 0
    assert time.monotonic() - began < 20
    assert "All processes of a training must live to its end" in said
    done = scanloom("train", "lesions", "--workspace", workspace, *options)
    assert done.returncode == 0, done.stderr
    resumed = next(line for line in done.stdout.splitlines() if "resumed_at_images" in line)
    assert int(resumed.split()[-1]) >= 512


@pytest.mark.slow
def test_a_stopped_training_goes_on_to_the_same_bits(prepared: Path, tmp_path: Path) -> None:
    whole, stopped = copy_of(prepared, tmp_path / "whole"), copy_of(prepared, tmp_path / "stopped")
    options = ("--set", "train.lesions.images=2048")
    running = torchrun(whole, "lesions", *options)
    said, _ = running.communicate(timeout=300)
    assert running.returncode == 0, said
    running = torchrun(stopped, "lesions", *options)
    wait_for_checkpoint(stopped, "train_lesions", 512)
    began = time.monotonic()
    running.send_signal(signal.SIGTERM)
    said, _ = running.communicate(timeout=60)
    assert time.monotonic() - began < 10
    assert running.returncode != 0
    assert list(stopped.glob("train_lesions/*.partial/stopped/*")), said
    running = torchrun(stopped, "lesions", *options)
    said, _ = running.communicate(timeout=300)
    assert running.returncode == 0, said
    assert torch.equal(weights(stopped, "lesions"), weights(whole, "lesions"))
