"""What `scanloom server start` does: Prefect's server with its pages, on this machine only, until it is stopped."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from flows.embedded_server import EmbeddedServer
from flows.prefect_environment import settle
from flows.sites import home

DEFAULT_PORT = 4200
SERVICE_STARTUP_S = 600.0
"""A service starts with the machine, when everything else does too, and makes its database first."""


@contextmanager
def server_running(console: Console, port: int, *, debug: bool) -> Iterator[str]:
    """The address of a server's API for the time of the block: one of our own, unless PREFECT_API_URL names one.

    Raises:
        OrchestrationError: the server did not start, e.g. because the port is taken.
    """
    folder = home()
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    if not settle(folder, debug=debug):
        yield os.environ["PREFECT_API_URL"]
        return
    server = EmbeddedServer(folder / "logs" / "prefect-server.log", port, pages=True)
    try:
        address = server.wait(SERVICE_STARTUP_S)
        os.environ["PREFECT_API_URL"] = address
        console.print(f"Prefect's pages: {address.removesuffix('/api')}", highlight=False)
        yield address
    finally:
        server.stop()


def serve_pages(console: Console, port: int, *, debug: bool) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    os.environ.pop("PREFECT_API_URL", None)
    with server_running(console, port, debug=debug):
        console.print("Stop with Ctrl-C.", style="dim")
        while True:
            time.sleep(3600)
