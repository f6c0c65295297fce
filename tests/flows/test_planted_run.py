"""A whole run through Prefect on scans full of tokens: none comes out anywhere; then a subject is forgotten."""

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pydicom
import pytest
from pydicom.datadict import DicomDictionary, dictionary_VR, keyword_for_tag

from pipeline.stage_runner import verified_record

pytestmark = pytest.mark.slow
Command = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).resolve().parents[2]
NEEDED = frozenset({"PatientID", "BodyPartExamined"})
FOR_EACH_SERIES = 70


def _keywords() -> list[str]:
    """Attributes of free text, spread over the dictionary."""
    tags = [tag for tag in sorted(DicomDictionary) if dictionary_VR(tag) in {"LO", "SH", "LT", "PN", "UT"}]
    texts = [keyword_for_tag(tag) for tag in tags if 0x0008 <= tag >> 16 < 0x5000]
    chosen = [keyword for keyword in texts if keyword and keyword not in NEEDED]
    return chosen[:: len(chosen) // FOR_EACH_SERIES]


@pytest.fixture(scope="module")
def planted(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("planted") / "QZWARD"
    shutil.copytree(cohort, folder)
    words: list[str] = ["QZWARD"]
    numbers = itertools.count()

    def word() -> str:
        words.append(f"QZT{next(numbers):05d}W")
        return words[-1]

    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.read_bytes()[128:132] == b"DICM")
    for _, series in itertools.groupby(files, key=lambda path: path.parent):
        texts = {keyword: word() for keyword in _keywords()}
        for path in series:
            item = pydicom.dcmread(path)
            for keyword, text in texts.items():
                setattr(item, keyword, text)
            item.save_as(path)
    for path in sorted(folder.rglob("*.json")):
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content | {name: word() for name in ("PatientName", "SeriesDescription", word())}))
    assert len(words) >= 500
    return folder, words


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_no_token_comes_out_of_a_run_and_a_subject_can_be_forgotten(
    planted: tuple[Path, list[str]], scanloom: Command, tmp_path: Path, find_words: Callable[..., list[str]]
) -> None:
    folder, words = planted
    workspace = tmp_path / "workspace"
    done = scanloom("run", "smoke", "--input", folder, "--workspace", workspace, "--set", "ingest.dates=shift")
    assert done.returncode == 0, done.stderr
    printed = (done.stdout + done.stderr).encode()
    assert find_words(workspace, words, leave_out=["identity"], extra=printed) == []
    _forgotten(workspace, folder, find_words)


def _forgotten(workspace: Path, folder: Path, find_words: Callable[..., list[str]]) -> None:
    (catalog,) = (path for path in (workspace / "ingest").iterdir() if path.suffix == "")
    crosswalk = json.loads(next((workspace / "identity").glob("crosswalk-*.json")).read_text())
    series = pl.read_parquet(catalog / "series.parquet")
    (volumes,) = workspace.glob("prepare_mr_to_ct/*/volumes.parquet")
    subject = pl.read_parquet(volumes).filter(pl.col("split") == "test")["subject_id"][0]
    patient = crosswalk["subjects"][subject]
    rows = series.filter(pl.col("subject_id") == subject).to_dicts()
    uids = {row["series_uid"] for row in rows if row["series_uid"]}
    traces = {patient, subject, *uids, *(row["series_id"] for row in rows)}
    assert find_words(workspace, traces, leave_out=["identity"])
    script = "from flows.command_line import main; main()"
    command = [sys.executable, "-c", script, "forget", "--patient-id", "--yes", "--workspace", str(workspace)]
    done = subprocess.run(command, input=patient + "\n", capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert patient not in done.stdout + done.stderr
    assert "train_mr_to_ct" in done.stdout
    assert find_words(workspace, traces) == [f"identity/forgotten.json: {subject}"]
    assert verified_record(catalog) is not None
    again = [sys.executable, "-c", script, "ingest", "--input", str(folder), "--workspace", str(workspace)]
    rerun = subprocess.run(again, capture_output=True, text=True, check=False, cwd=ROOT)
    assert rerun.returncode == 0, rerun.stderr
    tables = [pl.read_parquet(path) for path in workspace.glob("ingest/*/quarantine.parquet")]
    assert "FORGOTTEN" in pl.concat(tables)["reason"].to_list()
    assert find_words(workspace, traces - {patient}, leave_out=["identity"]) == []
