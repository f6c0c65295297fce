"""`scanloom report A B`: the newest report of each workspace, or a message that names what to do."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.command_line import app
from flows.comparing import newest_report
from pipeline.errors import InputError
from pipeline.files import write_json
from pipeline.settings import FrozenSettings
from pipeline.stage_runner import Stage, run_stage
from pipeline.workspace import Workspace


class Version(FrozenSettings):
    """Tells reports apart."""

    number: int


def reported(root: Path, *seeds: int) -> Path:
    """A workspace with one small report for each seed, in this order."""
    workspace = Workspace.open(root)
    for seed in seeds:
        numbers = {
            "settings": {"name": root.name, "seed": seed},
            "stages": {},
            "results": {},
            "decisions": {},
            "test_sets": {},
        }

        def body(context: Any, numbers: dict[str, Any] = numbers) -> dict[str, Any]:
            write_json(context.folder / "report.json", numbers)
            return {}

        run_stage(workspace, Stage("report", "pipeline.files", body), Version(number=seed), records={})
    return root


def test_the_newest_reports_are_compared_in_the_order_given(tmp_path: Path) -> None:
    one, two = reported(tmp_path / "one", 1, 2), reported(tmp_path / "two", 3)
    done = CliRunner().invoke(app, ["report", str(one), str(two)])
    assert done.exit_code == 0, done.output
    page = (one / "comparison" / "comparison.html").read_text(encoding="utf-8")
    assert page.index("A: one") < page.index("B: two")
    assert "2 of 2 settings differ" in page
    assert 'data-sort="2"' in page
    assert 'data-sort="1"' not in page
    assert str(tmp_path) not in page


def test_a_comparison_is_written_where_asked(tmp_path: Path) -> None:
    one, two = reported(tmp_path / "one", 1), reported(tmp_path / "two", 2)
    done = CliRunner().invoke(app, ["report", str(two), str(one), "--output", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["comparison.html", "comparison.json"]
    assert not (two / "comparison").exists()


def test_a_folder_without_a_report_is_named_and_left_alone(tmp_path: Path) -> None:
    one, empty = reported(tmp_path / "one", 1), tmp_path / "empty"
    empty.mkdir()
    done = CliRunner().invoke(app, ["report", str(one), str(empty)])
    assert done.exit_code != 0
    assert "no finished report" in " ".join(done.output.split())
    assert list(empty.iterdir()) == []
    with pytest.raises(InputError, match="no finished report"):
        newest_report(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_one_workspace_is_not_compared_with_itself(tmp_path: Path) -> None:
    one = reported(tmp_path / "one", 1)
    done = CliRunner().invoke(app, ["report", str(one), str(one / ".." / "one")])
    assert done.exit_code != 0
    assert "named twice" in " ".join(done.output.split())
