"""Shows the reports of this machine's sites on the loopback, to their owner only.

Prefect's pages may not link to files, and addresses may hold no path: ``/SITE/KEY/report.html`` is what a site's
workspace holds under ``report/KEY/``, and nothing else is served. Reports show scans, and every user of a machine
reaches its loopback: the kernel's table of connections tells who asks, and only the own user is answered.
"""

import http.server
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

from flows.sites import read_site
from pipeline.errors import ScanloomError

_ADDRESS = re.compile(r"/(?P<site>[a-z0-9][a-z0-9-]{0,39})/(?P<key>[0-9a-f]{16})/(?P<page>report|contact_sheet)\.html")
_CONNECTIONS = Path("/proc/net/tcp")
_LOOPBACK = "0100007F"
"""127.0.0.1 as /proc/net/tcp writes it on little-endian machines."""


def user_of(port: int) -> int | None:
    """Number of the user whose connection to this machine's loopback comes from ``port``; None where unknown."""
    try:
        lines = _CONNECTIONS.read_text(encoding="ascii").splitlines()[1:]
    except OSError:  # no Linux
        return None
    wanted = f"{_LOOPBACK}:{port:04X}"
    for fields in (line.split() for line in lines):
        if fields[1] == wanted:
            return int(fields[7])
    return None


def page_of(address: str) -> Path | None:
    """The file of an address, None where there is none."""
    match = _ADDRESS.fullmatch(address.partition("?")[0])
    if match is None:
        return None
    try:
        workspace = read_site(match["site"]).workspace
    except ScanloomError:
        return None
    path = workspace.expanduser() / "report" / match["key"] / f"{match['page']}.html"
    return path if path.is_file() and not path.is_symlink() else None


class _Reports(http.server.BaseHTTPRequestHandler):
    server_version, sys_version = "scanloom", ""

    def do_GET(self) -> None:
        if user_of(self.client_address[1]) != os.getuid():
            self.send_error(HTTPStatus.FORBIDDEN, "Reports are shown to the user who serves them only")
            return
        path = page_of(self.path)
        if path is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        content = path.read_bytes()
        self.send_response(HTTPStatus.OK)
        for name, value in (
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(content))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *values: object) -> None:
        """Say nothing."""


@contextmanager
def reports_shown(port: int) -> Iterator[str]:
    """Show reports for the time of the block; yields their base address.

    Raises:
        OSError: the port is taken.
    """
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), _Reports)
    thread = threading.Thread(target=server.serve_forever, name="reports", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
