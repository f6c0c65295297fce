"""`synthesize --query`: what is asked for is shown, asked about, and becomes settings; `place-lesions`: its options."""

import io

import pytest
import typer
import yaml
from rich.console import Console

from flows import placing, requested_cohort
from flows.chain import newest_catalog
from flows.requests import Options, load_settings
from pipeline.errors import InputError
from pipeline.generate_settings import CohortLine
from pipeline.records import StageRecord
from pipeline.settings import RunSettings
from pipeline.stage_runner import Stage, run_stage
from pipeline.workspace import Workspace

SIZE = {"name": "size_mm", "low": 4.0, "high": 30.0, "thirds": [8.0, 12.0]}
FACTS = {"classes": ["cyst", "ring"], "attributes": [SIZE]}


class Chain:
    """Stands in for the chain: remembers what it was asked."""

    def __init__(self):
        self.calls = []

    def __call__(self, options, targets, console, *, input_folder=None):
        self.calls.append((options, targets))
        record = StageRecord(stage="x", key="k", folder="f", content_sha256="c", facts=FACTS)
        return dict.fromkeys(targets, record)


@pytest.fixture
def chain(monkeypatch):
    stand_in = Chain()
    monkeypatch.setattr(requested_cohort, "run_steps", stand_in)
    return stand_in


def ask(tmp_path, query, *, yes=True, overrides=()):
    out = io.StringIO()
    options = Options(tmp_path / "w", None, overrides)
    made = requested_cohort.synthesize_requested(options, Console(file=out, width=200), query, yes=yes)
    return made, out.getvalue()


def test_a_request_becomes_the_recipe_of_the_settings(chain, tmp_path):
    made, said = ask(tmp_path, "12 small cysts and 8 ring, seed 5", overrides=("generate.lesions.truncation=0.7",))
    assert made is not None
    assert [targets for _, targets in chain.calls] == [("prepare_lesions",), ("synthesize_lesions",)]
    recipe = load_settings(chain.calls[1][0])[0].generate.lesions
    assert recipe.lines == (
        CohortLine(lesion_class="cyst", count=12, attributes={"size_mm": "small"}),
        CohortLine(lesion_class="ring", count=8),
    )
    assert (recipe.per_class, recipe.truncation, recipe.seed) == (None, 0.7, 5)
    assert "12  cyst, size_mm small" in said
    assert "20  in all" in said
    assert 'in full: 12 cyst size_mm "small", 8 ring; seed 5' in said


def test_nothing_is_made_without_consent(chain, tmp_path, monkeypatch):
    monkeypatch.setattr(typer, "confirm", lambda question: False)
    made, said = ask(tmp_path, "3 ring", yes=False)
    assert made is None
    assert "Nothing was made." in said
    assert len(chain.calls) == 1
    monkeypatch.setattr(typer, "confirm", lambda question: True)
    assert ask(tmp_path, "3 ring", yes=False)[0] is not None


def test_nonsense_is_refused_before_anything_is_trained(chain, tmp_path):
    with pytest.raises(InputError, match="rong"):
        ask(tmp_path, "3 rong")
    assert [targets for _, targets in chain.calls] == [("prepare_lesions",)]


def test_a_recipe_in_the_settings_gives_way_to_the_request(chain, tmp_path):
    ask(tmp_path, "3 ring", overrides=("generate.lesions.per_class=50",))
    recipe = load_settings(chain.calls[1][0])[0].generate.lesions
    assert recipe.per_class is None
    assert len(recipe.lines) == 1
    written = yaml.safe_load(recipe.model_dump_json())
    assert written["lines"][0]["count"] == 3


def test_masks_need_the_hosts_that_they_belong_to(tmp_path):
    with pytest.raises(InputError, match="--masks without --hosts"):
        placing.place_into_hosts(Options(tmp_path / "w"), Console(file=io.StringIO()), masks=tmp_path)


def test_hosts_and_masks_do_not_become_the_scans_to_learn_from(tmp_path):
    workspace = Workspace.open(tmp_path / "w", identity_key=bytes(32))

    def ingested(name, facts):
        def body(context):
            (context.folder / name).write_text(name)
            return facts

        stage = Stage("ingest", "pipeline.prepared_set", body)
        return run_stage(workspace, stage, RunSettings(name=name), records={})

    scans = ingested("scans", {})
    hosts = ingested("hosts", {"role": "mr"})
    assert newest_catalog(workspace).key == scans.key != hosts.key
