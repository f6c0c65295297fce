import pytest
from pydantic import BaseModel

from pipeline.errors import InputError, ResourceError
from pipeline.ledger import Ledger
from pipeline.source_hash import _imports, source_hash
from pipeline.stage_runner import Stage, run_stage, stage_key
from pipeline.workspace import Workspace


class Knobs(BaseModel):
    level: int = 1


class Counted:
    """A body that counts its calls."""

    def __init__(self, error=None):
        self.calls, self.error, self.seen = 0, error, []

    def __call__(self, context):
        self.calls += 1
        self.seen = sorted(path.name for path in context.folder.iterdir())
        (context.folder / "part").write_text("half", encoding="utf-8")
        if self.error:
            raise self.error
        (context.folder / "data").write_text("whole", encoding="utf-8")
        return {"answer": 42}


@pytest.fixture
def workspace(tmp_path):
    return Workspace.open(tmp_path / "w")


def make(workspace, body, *, knobs=None, hashes=None, resumable=False, fresh=False):
    stage = Stage("demo", "pipeline.files", body, resumable=resumable)
    return run_stage(workspace, stage, knobs or Knobs(), records={}, hashes=hashes, fresh=fresh)


def test_a_second_run_finds_the_first(workspace):
    body = Counted()
    first, second = make(workspace, body), make(workspace, body)
    assert body.calls == 1
    assert (first.cached, second.cached) == (False, True)
    assert first.content_sha256 == second.content_sha256
    assert second.facts == {"answer": 42}
    assert [row.state for row in Ledger(workspace.ledger_path).rows("demo")] == ["completed", "cached"]


@pytest.mark.parametrize("change", [{"knobs": Knobs(level=2)}, {"hashes": {"input": "x"}}])
def test_other_settings_or_inputs_make_another_output(workspace, change):
    body = Counted()
    assert make(workspace, body).key != make(workspace, body, **change).key
    assert body.calls == 2


def test_a_record_of_an_input_enters_the_key(workspace):
    body = Counted()
    source = make(workspace, body)
    stage = Stage("next", "pipeline.files", body)
    first = run_stage(workspace, stage, Knobs(), records={"source": source})
    other = run_stage(workspace, stage, Knobs(), records={"source": make(workspace, body, hashes={"i": "1"})})
    assert first.key == other.key  # equal content, whatever made it
    assert body.calls == 3


@pytest.mark.parametrize("damage", ["flip", "delete", "add"])
def test_a_damaged_output_is_never_used(workspace, damage):
    body = Counted()
    folder = make(workspace, body).path(workspace.root)
    if damage == "flip":
        (folder / "data").write_text("whole!", encoding="utf-8")
    elif damage == "delete":
        (folder / "data").unlink()
    else:
        (folder / "extra").write_text("?", encoding="utf-8")
    assert make(workspace, body).cached is False
    assert body.calls == 2
    assert (folder / "data").read_text(encoding="utf-8") == "whole"


def test_a_failure_leaves_no_final_folder_and_is_in_the_ledger(workspace):
    error = InputError("Rule.", found="f", allowed="a", change="c")
    with pytest.raises(InputError):
        make(workspace, Counted(error))
    row = Ledger(workspace.ledger_path).rows("demo")[-1]
    assert (row.state, row.message) == ("failed", str(error))
    assert not [path for path in (workspace.root / "demo").iterdir() if not path.name.endswith(".partial")]


def test_only_a_resumable_stage_sees_what_it_left(workspace):
    for resumable, fresh, expected in ((False, False, []), (True, False, ["part"]), (True, True, [])):
        with pytest.raises(KeyError):
            make(workspace, Counted(KeyError()), resumable=True)
        body = Counted(KeyError())
        with pytest.raises(KeyError):
            make(workspace, body, resumable=resumable, fresh=fresh)
        assert body.seen == expected


def test_texts_of_foreign_errors_stay_out_of_the_ledger(workspace):
    with pytest.raises(ValueError, match="DOE"):
        make(workspace, Counted(ValueError("PatientName DOE^JANE")))
    assert Ledger(workspace.ledger_path).rows("demo")[-1].message == "ValueError"


def test_a_full_disk_becomes_a_typed_error(workspace):
    with pytest.raises(ResourceError, match="No space left"):
        make(workspace, Counted(OSError(28, "No space left on device")))


def test_equal_runs_in_two_workspaces_have_equal_bytes(tmp_path):
    records = [make(Workspace.open(tmp_path / name), Counted()) for name in "ab"]
    assert records[0] == records[1]


def test_the_key_holds_the_stage_sources():
    body = Counted()
    one, other = Stage("s", "pipeline.files", body), Stage("s", "pipeline.stage_runner", body)
    assert stage_key(one, {}, Knobs()) != stage_key(other, {}, Knobs())


def test_facts_of_a_made_output_come_in_the_order_of_a_found_one(tmp_path):
    workspace = Workspace.open(tmp_path / "w")

    class Nothing(BaseModel):
        pass

    stage = Stage("demo", "pipeline.files", lambda context: {"b": {"z": 1, "a": 2}, "a": [3]})
    made, found = (run_stage(workspace, stage, Nothing(), records={}) for _ in range(2))
    assert (made.cached, found.cached) == (False, True)
    assert str(made.facts) == str(found.facts) == "{'a': [3], 'b': {'a': 2, 'z': 1}}"


def test_imports_are_found_wherever_a_statement_may_stand(tmp_path):
    path = tmp_path / "nested.py"
    path.write_text(
        "import pipeline.a, os\n"
        "if os:\n    import pipeline.b\nelif 1:\n    import pipeline.c\nelse:\n    import pipeline.d\n"
        "try:\n    import models.e\nexcept OSError:\n    import models.f\nelse:\n    import models.g\n"
        "finally:\n    import models.h\n"
        "class A:\n    async def f(self):\n        async with x:\n            from pipeline import i\n"
        "match os:\n    case 1:\n        for _ in ():\n            import pipeline.j\n"
        "        else:\n            import pipeline.k\n"
        "f = lambda: [None if 1 else 2 for _ in ()]\n"
    )
    deep = {f"pipeline.{name}" for name in "abcdijk"} | {f"models.{name}" for name in "efgh"}
    assert _imports(path) == deep | {"pipeline"}


def test_source_hash_follows_imports_but_not_beyond_our_packages():
    assert source_hash("pipeline.stage_runner") != source_hash("pipeline.files")
    assert source_hash("json") == source_hash("os")  # none of ours: nothing hashed


def test_the_declaration_of_settings_and_the_wording_of_errors_are_no_sources_of_a_stage():
    for module in ("pipeline.settings", "pipeline.train_settings", "pipeline.errors"):
        assert source_hash(module) == source_hash("json"), module
    assert source_hash("pipeline.device") != source_hash("json")
