import io
from pathlib import Path

import pytest
from rich.console import Console

from flows.chain import Call
from flows.failures import OrchestrationError
from flows.live_run import LiveRun
from flows.progress import LineDisplay
from flows.run_command import _without_server
from pipeline.settings import RunSettings
from pipeline.workspace import Workspace


@pytest.mark.parametrize("embedded", [False, True])
def test_a_missing_server_is_explained_by_where_it_should_have_been(tmp_path: Path, embedded: bool) -> None:
    console = Console(file=io.StringIO())
    run = LiveRun(Call(Workspace.open(tmp_path / "work"), RunSettings()), LineDisplay(console))
    with pytest.raises(OrchestrationError) as caught:
        _without_server(run, ConnectionError("refused"), console, embedded=embedded)
    assert ("unset it to use the embedded server" in caught.value.change) is not embedded
    assert ("named by PREFECT_API_URL" in caught.value.found) is not embedded
    assert "ConnectionError" in caught.value.found
