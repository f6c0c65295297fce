"""The engine of deployed flows: what their parameter takes, and that it is where the run works."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow

from flows import stage_flows
from flows.augment import augment
from flows.engines import asked_engine
from flows.site_run import OpenRun, Request, Slot, opened
from flows.sites import Site, write_site
from pipeline.errors import SettingsError
from pipeline.spreading import here

SPREADING = [
    augment,
    stage_flows.ingest,
    stage_flows.train_lesions,
    stage_flows.train_mr_to_ct,
    stage_flows.synthesize,
    stage_flows.evaluate,
]
WORDS = ["serial", "dask", "dask:4", "dask:tcp://10.0.0.5:8786", "dask:tls://scheduler:8786"]
NO_WORDS = ["", "ray", "dask:", "dask:0", "dask:-1", "dask:http://10.0.0.5", "dask:4 ", "Dask"]


@contextmanager
def _none(request: Request, slot: Slot) -> Iterator[None]:
    raise _AskedError(request)
    yield


class _AskedError(Exception):
    """What a flow asked for."""


@pytest.mark.parametrize("flow", SPREADING, ids=lambda flow: flow.name)
def test_a_flow_asks_for_the_engine_of_its_parameter(flow: Flow[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_flows, "opened", _none)
    shown = flow.parameters.properties["engine"]
    assert shown["default"] == "serial"
    for given, asked in (({}, "serial"), ({"engine": "dask:2"}, "dask:2")):
        with pytest.raises(_AskedError) as raised:
            flow.fn("nightly", **given)
        assert raised.value.args[0].engine == asked


def test_the_parameter_takes_what_the_option_takes() -> None:
    for word in WORDS:
        assert augment.validate_parameters({"site": "nightly", "engine": word})["engine"] == word
        asked_engine(word)
    for word in NO_WORDS:
        with pytest.raises(Exception, match="engine"):
            augment.validate_parameters({"site": "nightly", "engine": word})
        with pytest.raises(SettingsError):
            asked_engine(word)


@pytest.mark.parametrize(("word", "workers"), [("serial", None), ("dask:2", 2)])
def test_a_run_on_a_site_works_where_the_engine_says(
    word: str, workers: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCANLOOM_HOME", str(tmp_path / "home"))
    write_site("nightly", Site(input=tmp_path / "scans", workspace=tmp_path / "work", config="smoke"))
    with opened(Request("synthesize", "nightly", engine=word), Slot()) as found:
        assert isinstance(found, OpenRun)
        spread = found.run.chain.call.spread
        assert (spread is here) == (workers is None)
        if spread is not here:
            assert getattr(spread, "_asked").workers == workers  # noqa: B009
