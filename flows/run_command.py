"""What `scanloom run` and `scanloom demo` do: look before leaping, run the Prefect flow, say what came out."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from flows.chain import Call
from flows.embedded_server import EmbeddedServer
from flows.engines import engine
from flows.failures import OrchestrationError, Terminated
from flows.imports import without_collections
from flows.live_run import LiveRun, enrolled
from flows.prefect_environment import settle_run
from flows.progress import display_for
from flows.requests import Options, load_settings, remembered
from flows.summary import print_preflight, print_summary
from pipeline.lease import held
from pipeline.preflight import check_input, estimate, require, survey
from pipeline.records import StageRecord
from pipeline.workspace import Workspace


def run_all(
    options: Options, input_folder: Path, console: Console, *, fresh: bool = False, identity_key: bytes | None = None
) -> Mapping[str, StageRecord]:
    """Take every step from scans to report through Prefect.

    Args:
        options: workspace, settings, debug.
        input_folder: the scans.
        console: where progress and summary are shown.
        fresh: start trainings over.
        identity_key: fixed pseudonym key of a new workspace, for phantoms only.

    Returns:
        Records by step.

    Raises:
        ScanloomError: the run cannot begin or go on.
    """
    began = time.monotonic()
    settings, _ = load_settings(options)
    check_input(input_folder, options.workspace)
    workspace = Workspace.open(options.workspace, identity_key)
    folders = [workspace.root, input_folder]
    with (
        held(workspace, "run"),
        remembered(workspace, settings),
        engine(options.engine, folders) as spread,
    ):
        server = _start_server(workspace, console, debug=options.debug)
        preflight = estimate(settings, survey(input_folder), workspace.root)
        print_preflight(console, preflight)
        require(preflight)
        display = display_for(console)
        run = LiveRun(Call(workspace, settings, input_folder, fresh=fresh, spread=spread), display)
        try:
            _through_prefect(run, console, server)
        finally:
            display.close()
        print_summary(console, workspace, run.chain.records, time.monotonic() - began)
    return run.chain.records


def _start_server(workspace: Workspace, console: Console, *, debug: bool) -> EmbeddedServer | None:
    """Begin to start the embedded server, while the preflight looks around; None where a server is given."""
    if settle_run(workspace.root, debug=debug):
        console.print("Starting the embedded Prefect server; its database stays in the workspace.", style="dim")
        return EmbeddedServer(workspace.root / "logs" / "prefect-server.log")
    console.print("Using the Prefect server named by PREFECT_API_URL.", style="dim", highlight=False)
    return None


def _through_prefect(run: LiveRun, console: Console, server: EmbeddedServer | None) -> None:
    """Run the flow; a step's own exception comes out as it was raised, whatever Prefect made of it."""
    if server is not None:
        os.environ["PREFECT_API_URL"] = server.wait()
    with without_collections():
        from prefect.exceptions import TerminationSignal

        from flows.augment import augment
    with enrolled(run) as token:
        try:
            augment(token)
        except TerminationSignal:
            raise Terminated from None
        except Exception as error:
            if run.failure is not None:
                raise run.failure from None
            _without_server(run, error, console, embedded=server is not None)


def _without_server(run: LiveRun, error: Exception, console: Console, *, embedded: bool) -> None:
    """Prefect itself failed: say so, and whether anything is lost."""
    if run.complete():
        console.print(
            f"Prefect could not record the end of the run ({type(error).__name__}); every step is done.", style="yellow"
        )
        return
    server = "the embedded Prefect server" if embedded else "the Prefect server named by PREFECT_API_URL"
    check = "" if embedded else "Check PREFECT_API_URL, or unset it to use the embedded server. "
    raise OrchestrationError(
        "A run needs a Prefect server, embedded or given.",
        found=f"{type(error).__name__} while {'talking to' if run.began else 'starting or reaching'} {server}",
        allowed="a server that answers; the embedded one needs a free local port and a writable workspace",
        change=f"{check}Run again: finished steps are kept. Or take all steps without Prefect: `scanloom report"
        " --input DIR`. --debug shows what Prefect said.",
    ) from error
