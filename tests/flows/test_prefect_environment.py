from pathlib import Path

import pytest

from flows.embedded_server import EmbeddedServer
from flows.failures import OrchestrationError
from flows.prefect_environment import settle, settle_run


def test_embedded_server_keeps_its_database_in_the_workspace(tmp_path: Path) -> None:
    variables: dict[str, str] = {}
    assert settle(tmp_path, debug=False, environment=variables)
    assert variables["PREFECT_HOME"] == f"{tmp_path}/.prefect"
    assert variables["PREFECT_LOGGING_LEVEL"] == "CRITICAL"
    assert variables["PREFECT_INTERNAL_LOGGING_LEVEL"] == "CRITICAL"


def test_a_given_server_is_respected(tmp_path: Path) -> None:
    variables = {"PREFECT_API_URL": "http://prefect.hospital/api", "PREFECT_HOME": "/home/me/.prefect"}
    assert not settle(tmp_path, debug=False, environment=variables)
    assert variables["PREFECT_API_URL"] == "http://prefect.hospital/api"
    assert variables["PREFECT_HOME"] == "/home/me/.prefect"
    assert "NO_PROXY" not in variables


@pytest.mark.parametrize("given", [{}, {"PREFECT_API_URL": "http://prefect.hospital/api"}])
def test_nothing_phones_home_and_no_log_reaches_the_database(tmp_path: Path, given: dict[str, str]) -> None:
    variables = given | {"PREFECT_SERVER_ANALYTICS_ENABLED": "true", "PREFECT_LOGGING_TO_API_ENABLED": "true"}
    settle(tmp_path, debug=True, environment=variables)
    assert variables["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert variables["DO_NOT_TRACK"] == "1"
    assert variables["PREFECT_LOGGING_TO_API_ENABLED"] == "false"


def test_a_proxy_is_kept_away_from_the_embedded_server_only(tmp_path: Path) -> None:
    variables = {"NO_PROXY": "intranet"}
    settle(tmp_path, debug=False, environment=variables)
    assert variables["NO_PROXY"] == "intranet,127.0.0.1"


def test_a_server_that_cannot_start_is_reported_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").write_text("a file where Prefect wants a folder")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    server = EmbeddedServer(tmp_path / "server.log")
    with pytest.raises(OrchestrationError, match="ended with code"):
        server.wait(60)
    assert (tmp_path / "server.log").read_text() != ""
    server.stop()


def test_only_a_run_with_its_own_server_gives_up_early_and_a_given_number_of_retries_stays(tmp_path: Path) -> None:
    name = "PREFECT_CLIENT_MAX_RETRIES"
    own: dict[str, str] = {}
    assert settle_run(tmp_path, debug=False, environment=own)
    assert sum(2**attempt for attempt in range(1, 1 + int(own[name]))) < 5, "seconds that one request waits"
    given = {"PREFECT_API_URL": "http://prefect.hospital/api"}
    assert not settle_run(tmp_path, debug=False, environment=given)
    assert name not in given, "a server that is being restarted is waited for"
    service: dict[str, str] = {}
    settle(tmp_path, debug=False, environment=service)
    assert name not in service, "a service's server comes back"
    chosen = {name: "7"}
    settle_run(tmp_path, debug=False, environment=chosen)
    assert chosen[name] == "7"
