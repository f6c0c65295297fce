"""Bad input: one clear message on stderr, a non-zero exit code, no traceback, nothing written."""

import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from flows.command_line import app

FACTS = ("found:", "allowed:", "change:")


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str | Path) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="scanloom")

    return run


def _refused(result: Result, exit_code: int, *words: str) -> None:
    """The command ended with one message that names rule, found, allowed and change."""
    assert result.exit_code == exit_code, result.output
    assert result.stderr.startswith("error: ")
    assert all(fact in result.stderr for fact in FACTS)
    assert all(word in result.stderr for word in words), result.stderr
    assert "Traceback" not in result.output


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A folder that passes for an input until it is read."""
    folder = tmp_path / "scans"
    folder.mkdir()
    (folder / "notes.txt").write_text("no scan")
    return folder


def test_empty_folder(invoke: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    result = invoke("run", "smoke", "--input", tmp_path / "empty", "--workspace", tmp_path / "work")
    _refused(result, 3, "no file at all")
    assert not (tmp_path / "work").exists()


def test_missing_folder(invoke: Callable[..., Result], tmp_path: Path) -> None:
    _refused(invoke("ingest", "--input", tmp_path / "none", "--workspace", tmp_path / "work"), 3, "must exist")


def test_folder_without_a_scan(invoke: Callable[..., Result], scans: Path, tmp_path: Path) -> None:
    _refused(invoke("ingest", "--input", scans, "--workspace", tmp_path / "work", "--config", "smoke"), 3)


def test_workspace_inside_the_input(invoke: Callable[..., Result], scans: Path) -> None:
    _refused(invoke("run", "smoke", "--input", scans, "--workspace", scans / "work"), 3, "apart")
    assert [path.name for path in scans.iterdir()] == ["notes.txt"]


def test_typo_in_yaml_gets_the_nearest_name(invoke: Callable[..., Result], scans: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("train:\n  lesions:\n    imags: 100\n")
    result = invoke("run", tmp_path / "mine.yaml", "--input", scans, "--workspace", tmp_path / "work")
    _refused(result, 2, "train.lesions.imags", "Did you mean `images`?")


def test_unknown_preset_gets_the_nearest_name(invoke: Callable[..., Result], scans: Path, tmp_path: Path) -> None:
    result = invoke("run", "lesion", "--input", scans, "--workspace", tmp_path / "work")
    _refused(result, 2, "Did you mean `lesions`?")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed", ("key=value",)),
        ("seed=-1", ("seed = -1",)),
        ("train.lesions.width=wide", ("train.lesions.width",)),
        ("tracks=[lesion]", ("tracks",)),
    ],
)
def test_wrong_override(invoke: Callable[..., Result], tmp_path: Path, override: str, words: tuple[str, ...]) -> None:
    _refused(invoke("settings", "show", "--workspace", tmp_path, "--set", override), 2, *words)


@pytest.mark.parametrize("place", ["/proc/nothing", "/sys/kernel/nothing"])
def test_read_only_workspace(invoke: Callable[..., Result], scans: Path, place: str) -> None:
    _refused(invoke("run", "smoke", "--input", scans, "--workspace", place), 4, "can be written")


def test_file_in_the_place_of_the_workspace(invoke: Callable[..., Result], scans: Path, tmp_path: Path) -> None:
    (tmp_path / "work").write_text("mine")
    _refused(invoke("run", "smoke", "--input", scans, "--workspace", tmp_path / "work"), 4)
    assert (tmp_path / "work").read_text() == "mine"


def test_foreign_folder_as_workspace_is_left_alone(invoke: Callable[..., Result], scans: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("mine")
    _refused(invoke("run", "smoke", "--input", scans, "--workspace", tmp_path / "thesis"), 4)
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "mine"


def test_stage_without_ingested_scans(invoke: Callable[..., Result], tmp_path: Path) -> None:
    _refused(invoke("train", "lesions", "--workspace", tmp_path / "work"), 3, "--input DIR")


def test_stage_of_a_track_that_the_settings_leave_out(invoke: Callable[..., Result], tmp_path: Path) -> None:
    result = invoke("train", "lesions", "--workspace", tmp_path / "work", "--config", "mr_to_ct")
    _refused(result, 3, "tracks=[lesions]")


def test_quarantine_of_no_workspace_makes_none(invoke: Callable[..., Result], tmp_path: Path) -> None:
    _refused(invoke("quarantine", "list", "--workspace", tmp_path / "work"), 4)
    assert not (tmp_path / "work").exists()


def test_run_that_cannot_fit_is_refused(invoke: Callable[..., Result], scans: Path, tmp_path: Path) -> None:
    options = ("--set", "train.lesions.width=100000", "--set", "train.lesions.batch_size=4096")
    result = invoke("run", "smoke", "--input", scans, "--workspace", tmp_path / "work", *options)
    assert result.exit_code == 5, result.output
    assert all(fact in result.stderr for fact in FACTS)
    assert not (tmp_path / "work" / "settings.yaml").exists()


def test_one_class_only(invoke: Callable[..., Result], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "images" / "cyst").mkdir(parents=True)
    for number in range(12):
        pixels = rng.integers(0, 256, (48, 48), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / "cyst" / f"{number}.png")
    result = invoke(
        "prepare", "--input", tmp_path / "images", "--workspace", tmp_path / "work", "--config", "lesions_class_folders"
    )
    _refused(result, 3, "class")


def test_folder_without_mr(invoke: Callable[..., Result], cohort: Path, tmp_path: Path) -> None:
    for source in sorted(cohort.rglob("*_ct.*"))[:4]:
        target = tmp_path / "scans" / source.relative_to(cohort)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    arguments = ("--input", tmp_path / "scans", "--workspace", tmp_path / "work", "--config", "smoke")
    _refused(invoke("prepare", *arguments, "--set", "tracks=[mr_to_ct]"), 3, "MR")


def test_a_truncated_file_costs_one_series_and_both_are_listed(
    invoke: Callable[..., Result], cohort: Path, tmp_path: Path
) -> None:
    series = sorted({path.parent for path in cohort.rglob("*") if _is_dicom(path)})[:2]
    for folder in series:
        for source in sorted(folder.iterdir()):
            target = tmp_path / "scans" / source.relative_to(cohort)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    victim = min((tmp_path / "scans" / series[0].relative_to(cohort)).iterdir())
    patient = str(pydicom.dcmread(victim, stop_before_pixels=True).PatientName)
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    work = ("--workspace", tmp_path / "work")
    ingested = invoke("ingest", "--input", tmp_path / "scans", *work)
    assert ingested.exit_code == 0, ingested.output
    assert "2 inputs were set aside" in ingested.stdout  # the file, and the rest of its series
    listed = invoke("quarantine", "list", *work)
    assert "1 of 27 slices are damaged" in re.sub(r"\s+", " ", listed.stdout)
    identifier = re.search(r"\b([0-9a-f]{16})\b\W+TRUNCATED", listed.stdout)
    assert identifier is not None
    shown = invoke("quarantine", "show", identifier[1][:6], *work)
    assert "TRUNCATED" in shown.stdout
    assert "advice" in shown.stdout
    assert patient not in ingested.output + listed.output + shown.output
    assert victim.name not in ingested.output + listed.output + shown.output
    _refused(invoke("quarantine", "show", "zzzz", *work), 3, "0 rows")


def test_quarantine_of_an_ingest_that_refused_everything(
    invoke: Callable[..., Result], cohort: Path, tmp_path: Path
) -> None:
    folder = min(path.parent for path in cohort.rglob("*") if _is_dicom(path))
    (tmp_path / "scans").mkdir()
    for source in sorted(folder.iterdir())[:2]:
        (tmp_path / "scans" / source.name).write_bytes(source.read_bytes())
    work = ("--workspace", tmp_path / "my work")
    refused = invoke("ingest", "--input", tmp_path / "scans", "--config", "smoke", *work)
    _refused(refused, 3, "everything was quarantined", "scanloom quarantine list")
    assert not (tmp_path / "my work" / "settings.yaml").exists()
    listed = invoke("quarantine", "list", *work)
    assert listed.exit_code == 0, listed.output
    assert "TOO_FEW_SLICES" in listed.stdout
    assert f"scanloom quarantine show ID --workspace '{tmp_path}/my work'" in listed.stdout
    identifier = re.search(r"\b[0-9a-f]{16}\b", listed.stdout)
    assert identifier is not None
    assert "TOO_FEW_SLICES" in invoke("quarantine", "show", identifier.group(), *work).stdout
    (tmp_path / "whole").mkdir()
    for source in folder.iterdir():
        (tmp_path / "whole" / source.name).write_bytes(source.read_bytes())
    ingested = invoke("ingest", "--input", tmp_path / "whole", "--config", "smoke", *work)
    assert re.search(r"quarantine_reasons +none", ingested.stdout), ingested.output
    assert "1 step, 0 of them found done" in ingested.stdout
    assert "Nothing is in quarantine." in invoke("quarantine", "list", *work).stdout
    assert invoke("ingest", "--input", tmp_path / "scans", "--config", "smoke", *work).exit_code == 3
    assert "TOO_FEW_SLICES" in invoke("quarantine", "list", *work).stdout


def test_unexpected_error_shows_its_type_only(
    invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*arguments: object) -> None:
        raise LookupError("patient Lindgren")

    monkeypatch.setattr("flows.information.print_info", fail)
    result = invoke("info", "--workspace", tmp_path)
    assert result.exit_code == 70
    assert "unexpected error: LookupError (run with --debug" in result.stderr
    assert "Lindgren" not in result.output
    debugged = invoke("info", "--workspace", tmp_path, "--debug")
    assert isinstance(debugged.exception, LookupError)


def test_interrupt_says_how_to_go_on(
    invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.information.print_info", stop)
    result = invoke("info", "--workspace", tmp_path)
    assert result.exit_code == 130
    assert "run the same command again to resume" in result.stderr


def test_settings_show_is_a_settings_file(invoke: Callable[..., Result], tmp_path: Path) -> None:
    shown = invoke("settings", "show", "--workspace", tmp_path, "--config", "demo", "--set", "seed=11")
    (tmp_path / "mine.yaml").write_text(shown.stdout)
    again = invoke("settings", "show", "--workspace", tmp_path, "--config", tmp_path / "mine.yaml")
    assert again.stdout == shown.stdout
    assert "seed: 11" in shown.stdout


def test_version_is_that_of_the_package(invoke: Callable[..., Result]) -> None:
    shown = invoke("--version")
    assert shown.exit_code == 0
    assert shown.stdout == f"scanloom {version('scanloom')}\n"


def test_every_preset_is_listed_with_a_sentence(invoke: Callable[..., Result]) -> None:
    from pipeline.settings_loading import preset_names

    lines = invoke("settings", "presets").stdout.splitlines()
    assert [line.split()[0] for line in lines] == preset_names()
    assert all(len(line.split()) > 4 for line in lines)


def _is_dicom(path: Path) -> bool:
    return path.is_file() and path.read_bytes()[128:132] == b"DICM"


def test_a_model_that_is_none_is_refused_before_a_workspace_is_made(
    invoke: Callable[..., Result], scans: Path, tmp_path: Path
) -> None:
    result = invoke("import-model", scans, "--workspace", tmp_path / "work")
    _refused(result, 3, "NO_MODEL", "manifest.json")
    assert not (tmp_path / "work").exists()


def test_an_imported_model_must_be_there(invoke: Callable[..., Result], tmp_path: Path) -> None:
    result = invoke("synthesize", "--model", "3fa9", "--workspace", tmp_path / "work", "--config", "smoke")
    _refused(result, 3, "3fa9: 0 imported models", "scanloom import-model")


@pytest.mark.parametrize("form", ["pickle", "nnunet2"])
def test_unknown_formats_are_refused(invoke: Callable[..., Result], tmp_path: Path, form: str) -> None:
    _refused(invoke("export", "--format", form, "--workspace", tmp_path / "work"), 2, "image_folder", "medmnist_npz")
    _refused(invoke("export-model", "--format", form, "--workspace", tmp_path / "work"), 2, "bundle", "onnx")
