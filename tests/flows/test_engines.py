import os
import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from benchmarks.interrupted_runs import tree
from flows.chain import Call, Chain
from flows.engines import asked_engine, engine
from flows.failures import OrchestrationError
from pipeline.errors import InputError, QuarantineError, SettingsError
from pipeline.phantom import PhantomGrid
from pipeline.phantom.cohort import cohort_plan, write_cohort
from pipeline.settings_loading import find_preset, load
from pipeline.spreading import Spread, here
from pipeline.workspace import Workspace

pytest.importorskip("distributed", reason="the engine dask needs the extra `distributed`")


def test_here_takes_no_item_before_it_is_wanted() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(3):
            taken.append(number)
            yield number

    assert next(here(str, items())) == "0"
    assert taken == [0]


@pytest.mark.parametrize("word", ["dask:0", "dask:", "dask:-1", "dask:http://x:1", "ray", "serial:2", "dask:²"])
def test_an_unknown_engine_is_refused_by_name(word: str) -> None:
    with pytest.raises(SettingsError, match="found:   " + word):
        asked_engine(word)


def test_errors_cross_processes_whole() -> None:
    error = InputError("A rule.", found="a", allowed="b", change="c")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(again) is InputError
    assert str(again) == str(error)
    assert isinstance(pickle.loads(pickle.dumps(QuarantineError("A", "b", "c"))), QuarantineError)  # noqa: S301


def test_an_engine_without_work_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.engines._client", lambda asked: pytest.fail("started"))
    with engine("dask:2", [tmp_path]) as spread:
        assert spread is not here


def _square_of(number: int) -> tuple[int, int]:
    if number == 7:
        raise InputError("Seven.", found="7", allowed="others", change="Leave it out.")
    return number * number, os.getpid()


def _end(number: int) -> None:
    os._exit(number)


@pytest.mark.slow
def test_workers_keep_the_order_and_raise_what_the_work_raises(tmp_path: Path) -> None:
    with engine("dask:2", [tmp_path]) as spread:
        found = list(spread(_square_of, [5, 3, 4, 1, 2, 6]))
        assert [square for square, _ in found] == [25, 9, 16, 1, 4, 36]
        workers = {process for _, process in found}
        assert len(workers) == 2
        assert os.getpid() not in workers
        with pytest.raises(InputError, match=r"Seven\.\n  found:   7"):
            list(spread(_square_of, [1, 7, 2]))
        with pytest.raises(OrchestrationError, match="KilledWorker"):
            list(spread(_end, [3]))
        tmp_path.rename(tmp_path.with_name("gone"))
    with engine("dask:1", [tmp_path.with_name("gone")]) as spread:
        tmp_path.with_name("gone").rename(tmp_path)
        with pytest.raises(OrchestrationError, match="does not see"):
            list(spread(_square_of, [1]))


_FEW = (
    "train.mr_to_ct.images=8",
    "train.mr_to_ct.log_every_images=4",
    "train.mr_to_ct.checkpoint_every_images=8",
    "train.mr_to_ct.grid_every_images=8",
    "evaluate.mr_to_ct.bootstrap=100",
    "prepare.mr_to_ct.mr_normalization=landmarks",
    "train.lesions.images=32",
    "generate.lesions.per_class=80",
)


def _outputs(folder: Path, scans: Path, spread: Spread) -> dict[str, str]:
    workspace = Workspace.open(folder, bytes(range(32)))
    chain = Chain(Call(workspace, load(find_preset("smoke"), _FEW), scans, spread=spread))
    for name in chain.path_to(("evaluate_lesions", "evaluate_mr_to_ct")):
        chain.take(name)
    return tree(folder)


@pytest.mark.slow
def test_two_workers_make_the_bytes_that_one_process_makes(tmp_path: Path) -> None:
    grid = PhantomGrid((75, 86, 27), (3.0, 3.0, 6.0), (9.0, 14.0))
    write_cohort(tmp_path / "scans", 1, cohort_plan(heads=10, pelves=0), head_grid=grid)
    alone = _outputs(tmp_path / "work", tmp_path / "scans", here)
    (tmp_path / "work").rename(tmp_path / "alone")
    with engine("dask:2", [tmp_path / "scans"]) as spread:
        used: list[str] = []

        def watched(work, items, /):  # type: ignore[no-untyped-def]
            used.append(work.func.__name__ if isinstance(work, partial) else work.__name__)
            return spread(work, items)

        together = _outputs(tmp_path / "work", tmp_path / "scans", watched)
    assert together == alone
    assert {name.split("/")[0] for name in alone} >= {
        "ingest",
        "prepare_lesions",
        "prepare_mr_to_ct",
        "synthesize_lesions",
        "evaluate_lesions",
        "evaluate_mr_to_ct",
    }
    works = {"_all_of", "_cut", "_mr_case", "_ct_volume", "_scored", "_candidates_of_files", "_one_of_files"}
    assert works <= set(used)
