import http.client
import os
import socket
from pathlib import Path

import pytest

from flows import report_server
from flows.report_server import page_of, reports_shown, user_of
from flows.sites import Site, write_site

KEY = "0123456789abcdef"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCANLOOM_HOME", str(tmp_path / "home"))
    workspace = tmp_path / "work"
    folder = workspace / "report" / KEY
    folder.mkdir(parents=True)
    (folder / "report.html").write_text("<p>the report</p>", encoding="utf-8")
    (workspace / "identity").mkdir()
    (workspace / "identity" / "key").write_text("secret", encoding="utf-8")
    write_site("nightly", Site(input=tmp_path / "in", workspace=workspace))
    return folder / "report.html"


def get(base: str, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(base.removeprefix("http://"), timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_the_owner_is_shown_the_report_and_nothing_else(page: Path) -> None:
    with reports_shown(0) as base:
        assert get(base, f"/nightly/{KEY}/report.html") == (200, b"<p>the report</p>")
        for path in (
            "/",
            f"/nightly/{KEY}/",
            f"/nightly/{KEY}/contact_sheet.html",
            f"/other/{KEY}/report.html",
            "/nightly/../identity/key",
            f"/nightly/{KEY}/../../identity/key",
            f"/nightly/{KEY}/%2e%2e/report.html",
        ):
            assert get(base, path)[0] == 404


def test_another_user_of_the_machine_is_refused(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_server, "user_of", lambda port: os.getuid() + 1)
    with reports_shown(0) as base:
        assert get(base, f"/nightly/{KEY}/report.html")[0] == 403
    monkeypatch.setattr(report_server, "user_of", lambda port: None)
    with reports_shown(0) as base:
        assert get(base, f"/nightly/{KEY}/report.html")[0] == 403


def test_the_kernel_tells_whose_a_connection_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            assert user_of(client.getsockname()[1]) == os.getuid()
        assert user_of(1) is None


def test_a_link_is_not_followed(page: Path, tmp_path: Path) -> None:
    assert page_of(f"/nightly/{KEY}/report.html") == page
    page.unlink()
    page.symlink_to(tmp_path / "work" / "identity" / "key")
    assert page_of(f"/nightly/{KEY}/report.html") is None
