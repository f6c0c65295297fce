"""The commands that judge images from elsewhere: exit codes, messages, a workspace of their own."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from flows.command_line import app
from flows.outside_workspace import claim, refuse_outside
from pipeline.errors import WorkspaceError
from pipeline.results import read_results
from pipeline.workspace import Workspace

FAST = ("--config", "smoke", "--set", "evaluate.lesions.classifier_steps=1", "--set", "report.slices_per_case=1")


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str | Path) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="scanloom")

    return run


def _stripes(folder: Path, count: int, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:32, :32]
    for name, slope in (("flat", 0.2), ("steep", 2.0)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            wave = np.sin((rows + slope * columns) * rng.uniform(0.4, 0.9) + rng.uniform(0, 6))
            pixels = 127 + 50 * wave + rng.normal(0, 25, wave.shape)
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / name / f"Ruth-{number}.png")
    return folder


def _volumes(folder: Path, cases: int, offset: int) -> Path:
    folder.mkdir(parents=True)
    i, j, _ = np.indices((32, 30, 8))
    body = ((i - 16) / 12) ** 2 + ((j - 15) / 11) ** 2 < 1
    for number in range(cases):
        hu = np.where(body, 40, -1000)
        hu[np.hypot(i - 10, j - 15) < 3 + number] = 900
        image = nib.Nifti1Image((hu + offset).astype(np.int16), np.diag([2.0, 2, 4, 1]))
        image.header.set_xyzt_units("mm")
        nib.save(image, folder / f"Ruth{number}.nii")
    return folder


@pytest.mark.slow
def test_cohorts_end_to_end(invoke: Callable[..., Result], tmp_path: Path) -> None:
    real, test = _stripes(tmp_path / "real", 12, 1), _stripes(tmp_path / "test", 20, 2)
    made = _stripes(tmp_path / "made", 8, 3)
    for number in range(6):  # the generator hands out test images
        copied = (test / "flat" / f"Ruth-{number}.png").read_bytes()
        (made / "flat" / f"Ruth-{number}.png").write_bytes(copied)
    (made / "flat" / "broken.png").write_bytes(b"no picture")
    call = ("evaluate", "lesions", "--real", real, "--test", test, "--synthetic", made, "--workspace", tmp_path / "w")
    first = invoke(*call, *FAST)
    assert first.exit_code == 0, first.output
    assert "seems to have seen the test images" in first.stdout
    assert "1 synthetic files were set aside" in first.stdout
    (evaluation,) = (tmp_path / "w" / "evaluate_outside_lesions").iterdir()
    results = read_results(evaluation)
    assert {"test_copies", "release_gate", "leakage", "utility"} <= {verdict.key for verdict in results.verdicts}
    assert {"utility", "refused"} <= {table.key for table in results.tables}
    (report,) = (tmp_path / "w" / "report").glob("*/report.html")
    page = report.read_text(encoding="utf-8")
    assert "DCGAN" not in page
    assert "Nothing was trained or generated here" in page
    assert "Ruth" not in page
    again = invoke(*call)
    assert again.exit_code == 0, again.output
    assert "6 of them found done" in again.stdout


def test_pseudo_ct_end_to_end(invoke: Callable[..., Result], tmp_path: Path) -> None:
    ct, made = _volumes(tmp_path / "ct", 2, 0), _volumes(tmp_path / "made", 2, 30)
    (made / "Ruth7.nii").write_bytes(b"no volume")
    call = ("evaluate", "mr-to-ct", "--ct", ct, "--pseudo-ct", made, "--workspace", tmp_path / "w")
    first = invoke(*call, *FAST)
    assert first.exit_code == 0, first.output
    assert "All 2 pseudo-CT lie where their CT lies" in first.stdout
    (evaluation,) = (tmp_path / "w" / "evaluate_outside_mr_to_ct").iterdir()
    (headline,) = read_results(evaluation).headlines
    assert headline.value == pytest.approx(30)
    (report,) = (tmp_path / "w" / "report").glob("*/report.html")
    page = report.read_text(encoding="utf-8")
    assert "CycleGAN" not in page
    assert "Ruth" not in page
    assert "5 of them found done" in invoke(*call).stdout
    listed = invoke("quarantine", "list", "--workspace", tmp_path / "w")
    assert listed.exit_code == 0, listed.output
    assert "Nothing is in quarantine" not in listed.stdout
    (made / "Ruth7.nii").unlink()
    assert invoke("quarantine", "retry", "--workspace", tmp_path / "w").exit_code == 0
    assert "0 of them found done" in invoke(*call).stdout
    assert "Nothing is in quarantine" in invoke("quarantine", "list", "--workspace", tmp_path / "w").stdout


def _refused(result: Result, exit_code: int, *words: str) -> None:
    assert result.exit_code == exit_code, result.output
    assert all(fact in result.stderr for fact in ("error: ", "found:", "allowed:", "change:", *words)), result.stderr


def test_a_missing_folder_is_named_by_its_option(invoke: Callable[..., Result], tmp_path: Path) -> None:
    real = _stripes(tmp_path / "real", 1, 1)
    result = invoke(
        "evaluate", "lesions", "--real", real, "--synthetic", tmp_path / "none", "--workspace", tmp_path / "w"
    )
    _refused(result, 3, "--synthetic")
    assert not (tmp_path / "w").exists()


def test_the_workspace_of_a_run_is_not_taken(invoke: Callable[..., Result], tmp_path: Path) -> None:
    scans = _stripes(tmp_path / "scans", 2, 1)
    assert invoke("ingest", "--input", scans, "--workspace", tmp_path / "w").exit_code == 0
    result = invoke("evaluate", "lesions", "--real", scans, "--synthetic", scans, "--workspace", tmp_path / "w", *FAST)
    _refused(result, 4, "workspace of their own")


@pytest.mark.parametrize("command", [("evaluate",), ("report",), ("train", "lesions")])
def test_no_run_goes_on_with_images_that_were_given_to_be_judged(
    invoke: Callable[..., Result], tmp_path: Path, command: tuple[str, ...]
) -> None:
    claim(Workspace.open(tmp_path / "w"))
    _refused(invoke(*command, "--workspace", tmp_path / "w", "--config", "smoke"), 4, "from elsewhere")


def test_a_mark_holds_and_a_plain_workspace_has_none(tmp_path: Path) -> None:
    marked, plain = Workspace.open(tmp_path / "marked"), Workspace.open(tmp_path / "plain")
    claim(marked)
    claim(marked)
    refuse_outside(plain)
    with pytest.raises(WorkspaceError):
        refuse_outside(marked)


def test_options_before_the_command_are_not_lost_without_a_word(invoke: Callable[..., Result], tmp_path: Path) -> None:
    result = invoke("evaluate", "--workspace", tmp_path / "w", "lesions", "--real", tmp_path, "--synthetic", tmp_path)
    assert result.exit_code == 2
    assert "behind the command" in result.stderr


def test_evaluate_alone_is_still_the_step_of_a_run(invoke: Callable[..., Result], tmp_path: Path) -> None:
    _refused(invoke("evaluate", "--workspace", tmp_path / "w"), 3, "ingested into the workspace")
