"""What `scanloom deploy`, `watch` and `notify` do: each talks to a Prefect server that PREFECT_API_URL names."""

import os
import threading
from collections.abc import Callable
from typing import TypeVar

from rich.console import Console

from flows.deployment_file import DeploymentEntry
from flows.failures import OrchestrationError
from flows.prefect_environment import settle
from flows.server import DEFAULT_PORT
from flows.sites import home
from pipeline.errors import ScanloomError

_Answer = TypeVar("_Answer")


def deploy(console: Console, entries: tuple[DeploymentEntry, ...], *, debug: bool) -> None:
    """Register deployments and say what to start."""

    def register() -> list[tuple[str, bool]]:
        from flows.deployments import register as register_all

        return register_all(entries)

    for name, made in _at_server(register, debug=debug):
        pool = " (its work pool is new)" if made else ""
        console.print(f"registered {name}{pool}", markup=False, highlight=False)
    for pool in sorted({entry.work_pool.name for entry in entries}):
        console.print(f"workers take its runs: prefect worker start --pool {pool} --type process", highlight=False)


def watch(console: Console, *, once: bool, interval_s: float, debug: bool) -> None:
    """Look for new scans until stopped, or twice."""

    def look() -> list[str]:
        from flows.new_data import Watcher

        watcher, stopped = Watcher(), threading.Event()
        if not once:
            watcher.look_until(stopped, interval_s)
        started = watcher.look_once()
        stopped.wait(interval_s)
        return started + watcher.look_once()

    for name in _at_server(look, debug=debug):
        console.print(f"started {name}", markup=False, highlight=False)


def notify(console: Console, block: str, *, debug: bool) -> None:
    """Install the automations."""

    def install() -> list[str]:
        from flows.notifications import install as install_all

        return install_all(block)

    for name in _at_server(install, debug=debug):
        console.print(f"automation: {name}", markup=False, highlight=False)


def repair_flow_runs(console: Console, *, dry_run: bool, debug: bool) -> None:
    """Mark dead runs of this machine's sites as crashed, and free devices shown as held; nothing is begun again."""

    def repair() -> list[str]:
        from prefect.client.orchestration import get_client

        from flows.device_mirror import free_slots
        from flows.zombies import bury_zombies

        with get_client(sync_client=True) as client:
            return bury_zombies(client, resume=False, dry_run=dry_run) + free_slots(client, dry_run=dry_run)

    lines = _at_server(repair, debug=debug)
    for line in lines or ["No flow run is dead, no device is held by a dead one."]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _at_server(act: Callable[[], _Answer], *, debug: bool) -> _Answer:
    """Do something at the server; `scanloom server start`'s unless PREFECT_API_URL names another.

    Raises:
        OrchestrationError: it does not answer.
    """
    given = os.environ.get("PREFECT_API_URL")
    os.environ["PREFECT_API_URL"] = given or f"http://127.0.0.1:{DEFAULT_PORT}/api"
    settle(home(), debug=debug)
    from httpx import TransportError

    try:
        return act()
    except ScanloomError:
        raise
    except TransportError as error:
        raise OrchestrationError(
            "Deployments are kept by a Prefect server.",
            found=f"{type(error).__name__} at {'PREFECT_API_URL' if given else os.environ['PREFECT_API_URL']}",
            allowed="a server that answers",
            change="Start one with `scanloom server start`, or set PREFECT_API_URL.",
        ) from error
