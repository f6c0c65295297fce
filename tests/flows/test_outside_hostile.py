"""Folders of somebody else that cannot be compared: a message says what to change, and nothing crashes."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from flows.command_line import app
from pipeline.results import read_results

NAMES = ("flat", "steep")
Judge = Callable[..., Result]


def pictures(folder: Path, names: Sequence[str] = NAMES, mode: str = "L") -> Path:
    rng = np.random.default_rng(len(folder.name))
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(3):
            image = Image.fromarray(rng.integers(0, 255, (32, 32)).astype(np.uint8))
            image.convert(mode).save(folder / name / f"Ruth-{number}.png")
    return folder


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Judge:
    monkeypatch.setenv("COLUMNS", "200")

    def run(real: Path, synthetic: Path, test: Path | None = None) -> Result:
        given = ["--real", real, "--synthetic", synthetic, *(["--test", test] if test else [])]
        fast = ["--config", "smoke", "--set", "evaluate.lesions.classifier_steps=1"]
        arguments = ["evaluate", "lesions", *given, "--workspace", tmp_path / "w", *fast]
        return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="scanloom")

    return run


def refused(result: Result, *words: str) -> None:
    assert result.exit_code == 3, result.output
    assert all(fact in result.stderr for fact in ("error: ", "found:", "allowed:", "change:", *words)), result.stderr
    assert "Ruth" not in result.output
    assert "Traceback" not in result.output


def test_pictures_beside_class_folders_have_no_class(judge: Judge, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    Image.new("L", (32, 32)).save(tmp_path / "made" / "Ruth.png")
    refused(judge(pictures(tmp_path / "real"), tmp_path / "made"), "no known layout", "one folder for each class")


@pytest.mark.parametrize("name", ["=cmd|' C calc'!A0", "<script>alert(1)<"])
def test_class_names_that_a_page_or_spreadsheet_would_run_are_refused(judge: Judge, tmp_path: Path, name: str) -> None:
    refused(judge(pictures(tmp_path / "real", ("flat", name)), pictures(tmp_path / "made")), "Rename these folders")


def test_an_empty_folder_is_named_by_its_option(judge: Judge, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    refused(judge(pictures(tmp_path / "real"), tmp_path / "made"), "--synthetic: no file at all")


@pytest.mark.slow
def test_nothing_but_broken_pictures_is_counted_by_reason(judge: Judge, tmp_path: Path) -> None:
    made = pictures(tmp_path / "made")
    for path in made.glob("*/*.png"):
        path.write_bytes(b"no picture")
    refused(judge(pictures(tmp_path / "real"), made), "6 UNREADABLE", "quarantine list")


@pytest.mark.slow
def test_arrays_of_objects_are_never_unpickled(judge: Judge, tmp_path: Path) -> None:
    objects = np.array([object()], dtype=object)
    np.savez(tmp_path / "made.npz", train_images=objects, train_labels=np.zeros((1, 1)))
    refused(judge(pictures(tmp_path / "real"), tmp_path / "made.npz"), "everything was quarantined")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sides", "words"),
    [
        ({"test": ("flat",)}, ("real images for testing", "steep: 0")),
        ({"made": ("flat", "steep", "odd")}, ("classes of the real ones", "odd: 3")),
        ({"made": ("Flat", "STEEP")}, ("classes of the real ones", "Flat: 3, STEEP: 3", "flat, steep")),
        ({"real": ("flat",), "made": ("flat",), "test": ("flat",)}, ("at least two classes", "one class: flat")),
    ],
)
def test_classes_that_do_not_match_are_named(
    judge: Judge, tmp_path: Path, sides: dict[str, tuple[str, ...]], words: tuple[str, ...]
) -> None:
    real, made, test = (pictures(tmp_path / side, sides.get(side, NAMES)) for side in ("real", "made", "test"))
    refused(judge(real, made, test), *words)


@pytest.mark.slow
def test_odd_formats_and_a_missing_class_are_told_and_the_rest_is_judged(judge: Judge, tmp_path: Path) -> None:
    made = pictures(tmp_path / "made", ("flat",), mode="RGBA")
    Image.new("L", (3, 4000)).save(made / "flat" / "Ruth-wide.png")
    (made / "flat" / "Ruth-nothing.png").write_bytes(b"")
    Image.fromarray(np.full((20, 20), np.nan, np.float32)).save(made / "flat" / "Ruth-nan.tiff")
    result = judge(pictures(tmp_path / "real"), made, pictures(tmp_path / "test"))
    assert result.exit_code == 0, result.output
    assert "Ruth" not in result.output
    (evaluation,) = (tmp_path / "w" / "evaluate_outside_lesions").iterdir()
    results = read_results(evaluation)
    assert any("No synthetic image of: steep" in warning for warning in results.warnings)
    assert any("“synthetic only” was left out" in warning for warning in results.warnings)
    refusals = next(table for table in results.tables if table.key == "refused")
    assert sum(int(row["files"] or 0) for row in refusals.rows) >= 2
