"""One real run through Prefect on phantoms, then a second that finds everything done, then what may not have leaked."""

import gzip
import json
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
from typer.testing import CliRunner, Result

from flows.chain import STEPS
from flows.command_line import app
from pipeline.ledger import Ledger
from pipeline.workspace import Workspace

INSIDE_REPORT = "contact_sheet"
"""A stage that is no step of its own: the report makes it, and does not look for it where it is found done itself."""

FLOWS = 7
"""`augment` and the six flows that it calls."""

Command = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Runs:
    workspace: Path
    first: subprocess.CompletedProcess[str]
    second: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def runs(cohort: Path, scanloom: Command, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    workspace = tmp_path_factory.mktemp("run") / "workspace"
    arguments = ("run", "smoke", "--input", cohort, "--workspace", workspace)
    return Runs(workspace, scanloom(*arguments), scanloom(*arguments))


def test_first_run_makes_every_step(runs: Runs) -> None:
    assert runs.first.returncode == 0, runs.first.stderr
    completed = {row.stage for row in Ledger(runs.workspace / "ledger.sqlite").rows() if row.state == "completed"}
    assert completed == {*STEPS, INSIDE_REPORT}


def test_second_run_finds_every_step(runs: Runs) -> None:
    assert runs.second.returncode == 0, runs.second.stderr
    rows = Ledger(runs.workspace / "ledger.sqlite").rows()
    assert [row.state for row in rows[-len(STEPS) :]] == ["cached"] * len(STEPS)
    assert len([row for row in rows if row.state == "completed"]) == len(STEPS) + 1
    assert f"{len(STEPS)} steps, {len(STEPS)} of them found done" in runs.second.stdout


def test_summary_prints_the_figures_of_this_run(runs: Runs) -> None:
    for track in ("lesions", "mr_to_ct"):
        (path,) = runs.workspace.glob(f"evaluate_{track}/*/results.json")
        results = json.loads(path.read_text())
        for headline in results["headlines"]:
            shown = "–" if headline["value"] is None else f"{headline['value']:.4g}"
            rows = [line for line in runs.first.stdout.splitlines() if headline["text"] in line]
            assert rows
            assert all(shown in line for line in rows)
        for verdict in results["verdicts"]:
            assert verdict["sentence"] in runs.first.stdout.replace("\n", " ")
    (report,) = runs.workspace.glob("report/*/report.html")
    assert str(report) in runs.first.stdout
    assert runs.first.stderr == ""


def test_prefect_knows_the_runs_and_their_steps(runs: Runs) -> None:
    with sqlite3.connect(f"file:{runs.workspace}/.prefect/prefect.db?mode=ro", uri=True) as database:
        flows = database.execute("SELECT name, state_type FROM flow_run").fetchall()
        steps = database.execute("SELECT name, state_type FROM task_run").fetchall()
        artifacts = {row[0] for row in database.execute("SELECT key FROM artifact").fetchall()}
    assert flows == [("smoke", "COMPLETED")] * 2 * FLOWS
    taken = [step for step in steps if step[0] in STEPS]  # Prefect notes each flow in a flow as a task too
    assert sorted(taken) == sorted((name, "COMPLETED") for name in [*STEPS, *STEPS])
    assert {"run-summary", "headlines", "train-lesions-curves", "train-mr-to-ct-curves"} <= artifacts


def test_nothing_identifying_leaves_the_identity_folder(runs: Runs, cohort: Path) -> None:
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in _one_file_each(cohort)]
    words = {cohort.name, str(cohort.parent)}
    words |= {str(header[key].value) for header in headers for key in ("PatientName", "PatientID", "StudyInstanceUID")}
    assert len(words) > 6
    leaks = [
        f"{path.relative_to(runs.workspace)}: {word}"
        for path in sorted(runs.workspace.rglob("*"))
        if path.is_file() and path.relative_to(runs.workspace).parts[0] != "identity"
        for word in words
        if word.encode() in _content(path)
    ]
    assert leaks == []


def test_identity_folder_is_private(runs: Runs) -> None:
    assert (runs.workspace / "identity").stat().st_mode & 0o777 == 0o700


def test_no_server_outlives_the_command(runs: Runs) -> None:
    home = f"PREFECT_HOME={runs.workspace}/.prefect".encode()
    alive = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if home in environment.read_bytes():
                alive.append(environment.parent.name)
        except OSError:  # the process ended, or is another user's
            continue
    assert alive == []


def test_later_commands_go_on_with_the_settings_of_the_run(runs: Runs) -> None:
    done = _in_this_process("report", "--workspace", runs.workspace)
    assert done.exit_code == 0, done.output
    assert f"{len(STEPS)} steps, {len(STEPS)} of them found done" in done.stdout
    assert "last used in this workspace" in done.stdout


def test_info_tells_what_the_workspace_holds(runs: Runs) -> None:
    done = _in_this_process("info", "--workspace", runs.workspace)
    assert done.exit_code == 0, done.output
    assert all(name in done.stdout for name in STEPS)


def test_a_refused_run_tells_the_user_all_and_prefect_nothing(
    cohort: Path, scanloom: Command, runs: Runs, tmp_path: Path
) -> None:
    ct_only = tmp_path / "Ward-7-Anna-Berg"
    for source in sorted(cohort.rglob("*_ct.nii.gz"))[:4]:
        for path in (source, source.with_name(source.name.replace(".nii.gz", ".json"))):
            target = ct_only / path.relative_to(cohort)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    workspace = tmp_path / "workspace"
    # Prefect takes longer to make its database than scanloom to refuse the run.
    shutil.copytree(runs.workspace / ".prefect", Workspace.open(workspace).root / ".prefect")
    arguments = ("run", "smoke", "--input", ct_only, "--workspace", workspace, "--set", "tracks=[mr_to_ct]")
    done = scanloom(*arguments)
    assert done.returncode == 3, done.stdout + done.stderr
    assert done.stderr.startswith("error: ")
    assert all(word in done.stderr for word in ("MR", "found:", "allowed:", "change:"))
    assert "Traceback" not in done.stdout + done.stderr
    with sqlite3.connect(f"file:{workspace}/.prefect/prefect.db?mode=ro", uri=True) as database:
        messages = " ".join(str(row) for row in database.execute("SELECT name, message FROM flow_run_state").fetchall())
        states = [row[0] for row in database.execute("SELECT state_type FROM flow_run").fetchall()]
    assert sorted(states) == ["COMPLETED"] * 2 * FLOWS + ["COMPLETED", "FAILED", "FAILED"]  # ingest, training, augment
    assert "prepare_mr_to_ct: input (InputError)" in messages
    assert "allowed" not in messages


def _in_this_process(*arguments: str | Path) -> Result:
    """A command that needs no Prefect, without starting Python once more."""
    return CliRunner().invoke(app, [str(word) for word in arguments], prog_name="scanloom", env={"COLUMNS": "200"})


def _one_file_each(cohort: Path) -> list[Path]:
    """One DICOM file of every series folder."""
    folders = {path.parent for path in cohort.rglob("*") if path.is_file() and path.read_bytes()[128:132] == b"DICM"}
    return [min(path for path in folder.iterdir() if path.is_file()) for folder in sorted(folders)]


def _content(path: Path) -> bytes:
    """Name and bytes of a file, inflated where it is compressed."""
    raw = path.read_bytes()
    inflated = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else b""
    return path.name.encode() + raw + inflated
