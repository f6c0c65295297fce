import json
from dataclasses import replace
from pathlib import Path

import pytest

from flows.chain import STEPS, Call, Chain, Records, newest_catalog, steps_of
from pipeline.errors import InputError
from pipeline.ledger import Ledger
from pipeline.records import StageRecord
from pipeline.settings import RunSettings
from pipeline.stage_runner import Stage, StageContext, run_stage
from pipeline.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "work")


def _catalog(workspace: Workspace, word: str) -> StageRecord:
    """Run a stage named ingest that writes one word."""

    def body(context: StageContext) -> dict[str, object]:
        (context.folder / "word.json").write_text(json.dumps(word))
        return {"word": word}

    stage = Stage("ingest", "pipeline.errors", body)  # type: ignore[arg-type]
    return run_stage(workspace, stage, RunSettings(), records={}, hashes={"word": word})


def test_every_step_comes_after_what_it_needs() -> None:
    order = list(STEPS)
    for name, step in STEPS.items():
        assert all(order.index(need) < order.index(name) for need in step.needs)


def test_a_step_needs_steps_of_its_own_track_only() -> None:
    for step in STEPS.values():
        assert {STEPS[need].track for need in step.needs} <= {None, step.track}


def test_tracks_choose_the_steps() -> None:
    lesions, mr_to_ct = set(steps_of(("lesions",))), set(steps_of(("mr_to_ct",)))
    assert lesions & mr_to_ct == {"ingest", "report"}
    assert lesions | mr_to_ct == set(STEPS)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("ingest", ["ingest"]),
        ("train_mr_to_ct", ["ingest", "prepare_mr_to_ct", "train_mr_to_ct"]),
        ("evaluate_lesions", ["ingest", "prepare_lesions", "train_lesions", "synthesize_lesions", "evaluate_lesions"]),
        ("report", list(STEPS)),
    ],
)
def test_path_to_a_step_takes_its_needs_and_no_more(workspace: Workspace, target: str, path: list[str]) -> None:
    assert Chain(Call(workspace, RunSettings())).path_to((target,)) == path


def test_a_report_after_an_ingest_alone_is_of_the_data(workspace: Workspace, tmp_path: Path) -> None:
    ledger = Ledger(workspace.ledger_path)
    ledger.complete(ledger.start("ingest", "k", {}), "c", 1.0, 1.0)
    chain = Chain(Call(workspace, RunSettings()))
    assert chain.path_to(("report",)) == ["ingest", "report"]
    assert Chain(Call(workspace, RunSettings(), tmp_path)).path_to(("report",)) == list(STEPS)
    ledger.start("contact_sheet", "k", {})
    ledger.start("report", "k", {})
    assert chain.path_to(("report",)) == ["ingest", "report"]
    ledger.start("train_lesions", "k", {})
    assert chain.path_to(("report",)) == list(STEPS)


def test_report_of_one_track_leaves_the_other_out(workspace: Workspace) -> None:
    chain = Chain(Call(workspace, RunSettings(tracks=("lesions",))))
    assert chain.path_to(("report",)) == steps_of(("lesions",))


def test_step_outside_the_tracks_is_refused(workspace: Workspace) -> None:
    with pytest.raises(InputError, match="tracks that include mr_to_ct"):
        Chain(Call(workspace, RunSettings(tracks=("lesions",)))).path_to(("translate_mr_to_ct",))


def test_a_step_is_handed_the_records_it_needs_and_the_report_all(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: dict[str, set[str]] = {}
    for name, step in list(STEPS.items()):

        def run(call: Call, records: Records, name: str = name) -> StageRecord:
            handed[name] = set(records)
            return StageRecord(stage=name, key="k", folder=name, content_sha256="c", facts={})

        monkeypatch.setitem(STEPS, name, replace(step, run=run))
    chain = Chain(Call(workspace, RunSettings()))
    for name in chain.order():
        chain.take(name)
    assert handed.pop("report") == set(STEPS) - {"report"}
    assert handed == {name: set(step.needs) for name, step in STEPS.items() if name != "report"}


def test_a_recipe_with_an_unknown_class_is_refused_before_training(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []

    def train(*arguments: object, **named: object) -> StageRecord:
        trained.append(arguments)
        return StageRecord(stage="train_lesions", key="k", folder="t", content_sha256="c", facts={})

    monkeypatch.setattr("pipeline.train.stage.train_lesions", train)
    prepared = StageRecord(
        stage="prepare_lesions", key="k", folder="p", content_sha256="c", facts={"classes": ["cyst", "mass"]}
    )

    def take(recipe: dict[str, int], *, by_line: bool = False) -> StageRecord:
        lines = [{"lesion_class": name, "count": count} for name, count in recipe.items()]
        settings = RunSettings.model_validate(
            {"generate": {"lesions": {"lines": lines} if by_line else {"per_class": recipe}}}
        )
        return Chain(Call(workspace, settings), {"prepare_lesions": prepared}).take("train_lesions")

    with pytest.raises(InputError, match="cist") as caught:
        take({"cist": 4})
    assert caught.value.allowed == "cyst, mass"
    with pytest.raises(InputError, match="cist"):
        take({"cyst": 4, "cist": 4}, by_line=True)
    assert not trained
    take({"cyst": 4})
    assert len(trained) == 1


def test_newest_catalog_is_the_one_used_last(workspace: Workspace) -> None:
    first = _catalog(workspace, "first")
    _catalog(workspace, "second")
    assert newest_catalog(workspace).facts == {"word": "second"}
    assert _catalog(workspace, "first").cached
    found = newest_catalog(workspace)
    assert (found.key, found.cached) == (first.key, True)


def test_newest_catalog_passes_over_a_damaged_one(workspace: Workspace) -> None:
    _catalog(workspace, "first")
    second = _catalog(workspace, "second")
    (second.path(workspace.root) / "word.json").write_text("changed")
    assert newest_catalog(workspace).facts == {"word": "first"}


def test_newest_catalog_of_an_empty_workspace_says_what_to_give(workspace: Workspace) -> None:
    Ledger(workspace.ledger_path)
    with pytest.raises(InputError, match="--input DIR"):
        newest_catalog(workspace)
