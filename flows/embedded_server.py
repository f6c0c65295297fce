"""The embedded Prefect server: a child process that outlives Ctrl-C and ends with the command, however that ends.

Prefect can start a server by itself, but in the terminal's process group: Ctrl-C then kills it while the flow still
wants to report that it was stopped, which takes more than a minute of retries. Here the server has a session of its own
and leaves when the pipe to the command closes, so that not even SIGKILL leaves it behind. It listens on this machine
only, on a port that the system chooses.

The child runs ``python -m flows.embedded_server PORT PAGES``. With pages it serves Prefect's interface and runs its
scheduler and automations too, on a port that stays the same, as a service needs; without, only what one run needs.
"""

import atexit
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from flows.failures import OrchestrationError
from flows.imports import without_collections
from flows.prefect_environment import STARTUP_TIMEOUT_S

if TYPE_CHECKING:
    from uvicorn import Server

_HOST = "127.0.0.1"
_STOP_TIMEOUT_S = 10.0


class EmbeddedServer:
    """Starts the server at once; `wait` returns when it answers. It is stopped when the command ends.

    Make it before Prefect is imported: Prefect's own exit handlers, registered later, then run first and can still
    reach it.

    Args:
        log_file: takes what the server writes to its error stream.
        port: to listen on; 0 lets the system choose.
        pages: serve Prefect's interface, scheduler and automations too.
    """

    def __init__(self, log_file: Path, port: int = 0, *, pages: bool = False) -> None:
        with log_file.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-m", "flows.embedded_server", str(port), "pages" if pages else "bare"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                cwd=Path(__file__).resolve().parent.parent,
            )
        self._log_file = log_file
        atexit.register(self.stop)

    def wait(self, timeout_s: float = STARTUP_TIMEOUT_S) -> str:
        """Wait until the server answers; returns its API address.

        Raises:
            OrchestrationError: it ended, or took too long.
        """
        deadline = time.monotonic() + timeout_s
        line = self._process.stdout.readline() if self._process.stdout else b""
        port = int(line) if line.strip().isdigit() else None
        while port is not None and self._process.poll() is None and time.monotonic() < deadline:
            if _healthy(port):
                return f"http://{_HOST}:{port}/api"
            time.sleep(0.05)
        ended = self._process.poll()
        self.stop()
        raise OrchestrationError(
            "A run starts an embedded Prefect server unless PREFECT_API_URL names one.",
            found=f"no answer after {timeout_s:g} s" if ended is None else f"the server ended with code {ended}",
            allowed="a server that answers; it needs a free port on this machine and a writable workspace",
            change=f"Read {self._log_file}, then run again; or run `scanloom report`, which takes all steps without"
            " Prefect.",
        )

    def stop(self) -> None:
        """Stop the server; a second call does nothing."""
        atexit.unregister(self.stop)
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()


def _healthy(port: int) -> bool:
    """Whether the API answers; asked directly, for a proxy of the environment must not see it."""
    connection = http.client.HTTPConnection(_HOST, port, timeout=5)
    try:
        connection.request("GET", "/api/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def main() -> None:
    """Serve until standard input closes. The first line on standard output is the port."""
    port, pages = int(sys.argv[1]), sys.argv[2] == "pages"
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((_HOST, port))
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    os.environ.pop("PREFECT_API_URL", None)
    if pages:
        os.environ["PREFECT_SERVER_UI_API_URL"] = f"http://{_HOST}:{listener.getsockname()[1]}/api"
        os.environ["PREFECT_UI_STATIC_DIRECTORY"] = str(Path(os.environ["PREFECT_HOME"]) / "pages")
    at_work: list[Server] = []
    threading.Thread(target=_leave_with_parent, args=(at_work,), daemon=True).start()
    with without_collections():
        import uvicorn
        from prefect.server.api.server import create_app

        server = uvicorn.Server(
            uvicorn.Config(create_app(ephemeral=not pages, final=True), log_level="error", lifespan="on")
        )
    at_work.append(server)
    server.run(sockets=[listener])
    sys.stderr.flush()
    os._exit(0)  # all is in the database; taking some thousand modules apart would keep the command waiting


def _leave_with_parent(at_work: "list[Server]") -> None:
    """When standard input closes, let the server end its requests; leave at once where it does not serve yet."""
    sys.stdin.buffer.read()
    for server in at_work:
        server.should_exit = True
        time.sleep(_STOP_TIMEOUT_S / 2)
    os._exit(0)  # a connection that will not close must not keep an orphan alive


if __name__ == "__main__":
    main()
