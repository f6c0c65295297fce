"""`scanloom forget`: lists, asks, forgets; never echoes a PatientID."""

import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from flows.command_line import app
from pipeline.deidentify import Pseudonymizer
from pipeline.ingest.stage import ingest
from pipeline.scan_io import SeriesIdentity, write_dicom_series
from pipeline.scan_io.dicom_write import Acquisition
from pipeline.settings import RunSettings
from pipeline.workspace import Workspace

PATIENT = "QZ-PATIENT-1"


@pytest.fixture
def workspace(tmp_path):
    for number, patient in enumerate((PATIENT, "QZ-PATIENT-2")):
        voxels = np.random.default_rng(number).integers(0, 900, (12, 10, 4))
        who = SeriesIdentity(patient, f"1.2.{number}", f"1.2.{number}.1", f"1.2.{number}.2")
        affine = np.diag([-1.0, -1.0, 4.0, 1.0])
        write_dicom_series(tmp_path / "scans" / str(number), voxels, affine, "MR", who, Acquisition(body_part="HEAD"))
    opened = Workspace.open(tmp_path / "workspace", bytes(range(32)))
    ingest(opened, RunSettings(), tmp_path / "scans")
    return opened


def _subject(workspace, patient=PATIENT):
    return Pseudonymizer(workspace.identity_key()).subject(patient)


def _run(workspace, *arguments, typed=""):
    return CliRunner().invoke(app, ["forget", *arguments, "--workspace", str(workspace.root)], input=typed)


def test_it_lists_first_and_keeps_everything_when_refused(workspace):
    done = _run(workspace, _subject(workspace), typed="n\n")
    assert done.exit_code == 0, done.output
    assert "rewrite  ingest/" in done.output
    assert "Nothing was changed." in done.output
    assert not (workspace.identity / "forgotten.json").exists()


def test_it_forgets_when_told_so(workspace):
    done = _run(workspace, _subject(workspace), typed="y\n")
    assert done.exit_code == 0, done.output
    assert "is forgotten" in done.output
    again = _run(workspace, _subject(workspace), "--yes")
    assert again.exit_code == 0, again.output
    assert "no trace of it is left" in again.output


def test_the_patient_id_comes_from_standard_input_and_is_never_shown(workspace):
    script = "from flows.command_line import main; main()"
    command = ["forget", "--patient-id", "--yes", "--workspace", str(workspace.root)]
    done = subprocess.run(
        [sys.executable, "-c", script, *command], input=PATIENT + "\n", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert PATIENT not in done.stdout + done.stderr
    assert _subject(workspace) in done.stdout


@pytest.mark.parametrize("arguments", [(), ("sub-0123456789", "--patient-id"), ("sub-0123456789",)])
def test_a_command_that_names_no_subject_is_refused(workspace, arguments):
    done = _run(workspace, *arguments, "--yes")
    assert done.exit_code == 3
    assert "found:" in done.output
    assert not (workspace.identity / "forgotten.json").exists()


def test_a_workspace_in_use_is_left_alone(workspace):
    with workspace.locked():
        assert _run(workspace, _subject(workspace), "--yes").exit_code == 4
