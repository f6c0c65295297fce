import json

import pytest
from pydantic import BaseModel

from pipeline.planning import reasons
from pipeline.stage_runner import RECORD_FILE, Stage, WouldRun, run_stage
from pipeline.workspace import Workspace


class Inner(BaseModel):
    level: int = 1


class Knobs(BaseModel):
    inner: Inner = Inner()
    name: str = "a"


@pytest.fixture
def workspace(tmp_path):
    return Workspace.open(tmp_path / "w")


def body(context):
    (context.folder / "data").write_text("whole", encoding="utf-8")
    return {}


def ask(workspace, knobs=None, hashes=None, *, module="pipeline.files", resumable=False):
    stage = Stage("demo", module, body, resumable=resumable)
    return run_stage(workspace, stage, knobs or Knobs(), records={}, hashes=hashes or {"input": "x"})


def why(workspace, *args, **keywords):
    """Kinds and texts of the reasons that a plan gives."""
    with pytest.raises(WouldRun) as would:
        ask(workspace.for_planning(), *args, **keywords)
    return {reason.kind: reason.text for reason in reasons(workspace, would.value)}


def test_a_plan_makes_nothing_and_tells_that_a_stage_never_ran(workspace):
    before = sorted(workspace.root.rglob("*"))
    assert set(why(workspace)) == {"never ran"}
    assert [path for path in sorted(workspace.root.rglob("*")) if "ledger" not in path.name] == before


def test_what_is_there_is_found(workspace):
    made = ask(workspace)
    assert ask(workspace.for_planning()) == made.model_copy(update={"cached": True})


def test_the_setting_the_input_and_the_source_that_changed_are_named(workspace):
    ask(workspace)
    assert why(workspace, Knobs(inner=Inner(level=2))) == {"setting": "settings changed: inner.level: 1 -> 2"}
    assert why(workspace, hashes={"input": "y"}) == {"input": "inputs changed: input"}
    source = why(workspace, module="pipeline.workspace")
    assert set(source) == {"source"}
    assert "pipeline.workspace" in source["source"]


def test_a_deleted_and_a_damaged_output_are_told_apart_and_left_as_they_are(workspace):
    folder = ask(workspace).path(workspace.root)
    (folder / "data").write_text("flipped", encoding="utf-8")
    assert set(why(workspace)) == {"damaged"}
    assert folder.is_dir()
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert set(why(workspace)) == {"gone"}


def test_a_stopped_stage_that_goes_on_says_so(workspace):
    ask(workspace)
    with pytest.raises(WouldRun) as would:
        ask(workspace.for_planning(), Knobs(name="b"), resumable=True)
    folder = workspace.stage_folder("demo", would.value.key)
    folder.with_name(folder.name + ".partial").mkdir()
    assert set(why(workspace, Knobs(name="b"), resumable=True)) == {"setting", "resume"}


def test_an_output_of_a_release_that_kept_no_modules_names_the_release(workspace):
    folder = ask(workspace).path(workspace.root)
    stored = json.loads((folder / RECORD_FILE).read_text())
    del stored["modules"]
    (folder / RECORD_FILE).write_text(json.dumps(stored))
    assert "another version" in why(workspace, module="pipeline.workspace")["source"]
