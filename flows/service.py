"""What `scanloom serve` does: schedule, worker, new-data trigger and reports of a workstation in one process.

Runs are processes of their own, one at a time, for they share one device. A stopped service leaves its schedules in
place: what fell due meanwhile runs at the next start, once (`pipeline.slots`); what was at work goes on
(`flows.zombies`).
"""

import asyncio
import os
import signal
import threading
from collections.abc import Callable

from rich.console import Console

from flows.deployment_file import NEW_DATA, DeploymentEntry
from flows.failures import Terminated
from flows.prefect_environment import REPORTS_URL
from flows.server import server_running
from flows.sites import read_site
from pipeline.errors import WorkspaceError

DEFAULT_REPORTS_PORT = 4280
PREFETCH_S = 10.0
QUERY_S = 5.0


def serve(
    console: Console,
    entries: tuple[DeploymentEntry, ...],
    *,
    port: int,
    reports_port: int,
    look_interval_s: float,
    debug: bool,
) -> None:
    """Serve deployments until Ctrl-C or SIGTERM.

    Args:
        console: where to say what goes on.
        entries: the deployments.
        port: of the server, unless PREFECT_API_URL names one.
        reports_port: where reports are shown.
        look_interval_s: seconds between two looks for new scans.
        debug: let Prefect log.

    Raises:
        SettingsError: a site is not known here, or a deployment is not valid.
        WorkspaceError: a port is taken.
    """
    for entry in entries:
        read_site(str(entry.parameters["site"]))
    with server_running(console, port, debug=debug):
        from flows.report_server import reports_shown

        try:
            with reports_shown(reports_port) as address:
                os.environ[REPORTS_URL] = address
                _serve(console, entries, look_interval_s)
        except OSError as error:
            raise WorkspaceError(
                "Reports need a free port of this machine.",
                found=f"port {reports_port}: {error.strerror}",
                allowed="a port that no other process listens on",
                change="Give another one with --reports-port.",
            ) from None


def _serve(console: Console, entries: tuple[DeploymentEntry, ...], look_interval_s: float) -> None:
    from prefect.client.orchestration import get_client

    from flows.deployments import catch_up, overdue
    from flows.device_mirror import free_slots
    from flows.new_data import Watcher
    from flows.zombies import bury_zombies

    with get_client(sync_client=True) as client:
        for line in [*bury_zombies(client, resume=True), *free_slots(client)]:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        missed = {entry.name: overdue(client, entry) for entry in entries}

    def catch_up_all() -> None:
        with get_client(sync_client=True) as client:
            for entry in entries:
                if catch_up(client, entry, missed[entry.name]) is not None:
                    console.print(f"{entry.name} fell due while no service ran: begun now", highlight=False)

    for entry in entries:
        console.print(f"serving {entry.name}: {_when(entry)}", markup=False, highlight=False)
    stopped = threading.Event()
    watch = Watcher().look_until
    if any(NEW_DATA in entry.tags for entry in entries):
        threading.Thread(target=watch, args=(stopped, look_interval_s), name="new-data", daemon=True).start()
    try:
        asyncio.run(_work(entries, catch_up_all))
    except asyncio.CancelledError:
        raise Terminated from None
    finally:
        stopped.set()


async def _work(entries: tuple[DeploymentEntry, ...], once_registered: Callable[[], None]) -> None:
    """Run what falls due until SIGTERM."""
    from prefect.runner import Runner

    from flows.deployments import deployment_of

    runner = Runner(
        name="scanloom", limit=1, query_seconds=QUERY_S, prefetch_seconds=PREFETCH_S, pause_on_shutdown=False
    )
    for deployment in await asyncio.to_thread(lambda: [deployment_of(entry, pool=False) for entry in entries]):
        await runner.aadd_deployment(deployment)
    await asyncio.to_thread(once_registered)
    running = asyncio.create_task(runner.start())
    while not runner.started and not running.done():
        await asyncio.sleep(0.05)
    # The runner's own handler leaves without stopping it; a cancelled one ends its runs first, with SIGTERM.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    await running


def _when(entry: DeploymentEntry) -> str:
    when = [each.cron or f"every {each.interval:g} s" for each in entry.schedules]
    when += ["new scans"] if NEW_DATA in entry.tags else []
    return ", ".join(when) or "by hand only"
