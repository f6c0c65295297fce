import pytest
from pydantic import BaseModel

from pipeline.housekeeping import half_outputs, remove, superseded
from pipeline.stage_runner import Stage, run_stage
from pipeline.workspace import Workspace


class Knobs(BaseModel):
    level: int = 1


@pytest.fixture
def workspace(tmp_path):
    return Workspace.open(tmp_path / "w")


def make(workspace, name, level=1, **records):
    def body(context):
        (context.folder / "data").write_text(f"{name} {level} {sorted(context.inputs)}", encoding="utf-8")
        return {}

    return run_stage(workspace, Stage(name, "pipeline.files", body), Knobs(level=level), records=records)


def names(workspace, removals):
    return sorted(removal.path.relative_to(workspace.root).as_posix() for removal in removals)


def test_older_outputs_go_and_what_the_newest_were_made_from_stays(workspace):
    old, first = make(workspace, "train", 1), make(workspace, "prepare", 1)
    new = make(workspace, "train", 2, prepared=first)
    make(workspace, "prepare", 2)  # newer, but the newest training was made from the first
    third = make(workspace, "prepare", 3)
    gone = superseded(workspace, {"train", "prepare"})
    assert names(workspace, gone) == sorted([old.folder, make(workspace, "prepare", 2).folder])
    assert {first.folder, new.folder, third.folder}.isdisjoint(names(workspace, gone))


def test_an_output_that_was_found_again_last_counts_as_the_newest(workspace):
    old, new = make(workspace, "train", 1), make(workspace, "train", 2)
    assert make(workspace, "train", 1).cached
    assert names(workspace, superseded(workspace, {"train"})) == [new.folder]
    assert names(workspace, superseded(workspace, {"train"}, keep=2)) == []
    assert old.path(workspace.root).is_dir()


def test_what_a_run_cannot_make_again_stays_with_all_that_it_was_made_from(workspace):
    old = make(workspace, "train", 1)
    make(workspace, "export_model", 1, trained=old)
    make(workspace, "train", 2)
    stranger = workspace.root / "train" / "0123456789abcdef"
    stranger.mkdir()  # the ledger knows nothing of it
    assert superseded(workspace, {"train"}) == []


def test_half_outputs_are_those_that_nothing_goes_on_with(workspace):
    done = make(workspace, "train", 1).path(workspace.root)
    for name in (f"train/{done.name}.partial", "train/feed.partial", "evaluate/beef.partial", "evaluate/cafe.retired"):
        (workspace.root / name).mkdir(parents=True)
    (workspace.root / "settings.yaml.partial").write_text("half", encoding="utf-8")
    halves = half_outputs(workspace, {"train"})
    assert names(workspace, halves) == sorted(
        [f"train/{done.name}.partial", "evaluate/beef.partial", "evaluate/cafe.retired", "settings.yaml.partial"]
    )
    assert remove(halves) == len("half")
    assert half_outputs(workspace, {"train"}) == []
    assert (workspace.root / "train/feed.partial").is_dir()
    assert done.is_dir()


def test_removing_leaves_the_rest_and_counts_bytes(workspace):
    make(workspace, "train", 1)
    kept = make(workspace, "train", 2)
    removals = superseded(workspace, {"train"})
    assert remove(removals) == sum(removal.bytes for removal in removals) > 0
    assert make(workspace, "train", 2).cached
    assert [path.name for path in (workspace.root / "train").iterdir()] == [kept.path(workspace.root).name]


def test_a_stopped_training_of_current_settings_stays_and_older_ones_go(workspace):
    with pytest.raises(KeyError):
        run_stage(workspace, Stage("train", "pipeline.files", _stops, resumable=True), Knobs(level=1), records={})
    with pytest.raises(KeyError):
        run_stage(workspace, Stage("train", "pipeline.files", _stops, resumable=True), Knobs(level=2), records={})
    first, second = sorted((workspace.root / "train").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert names(workspace, superseded(workspace, {"train"})) == [f"train/{first.name}"]
    assert second.is_dir()


def _stops(context):
    raise KeyError
