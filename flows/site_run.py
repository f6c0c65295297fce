"""From a flow's parameters to a run at work: the live run of this process, or a new one on a site of this machine.

A flow that a command started, or that a parent flow called, finds its run by the token that stands in the place of the
site. A flow that a deployment started opens the site: it takes the workspace's lease, and asks the ledger first whether
its slot was served already.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from rich.console import Console

from flows.chain import Call
from flows.engines import engine
from flows.failures import FlowRefused, StepFailed, Terminated
from flows.live_run import LiveRun, enrolled, known_run
from flows.progress import display_for
from flows.requests import load_settings, remembered
from flows.sites import read_site
from pipeline.errors import ScanloomError, WorkspaceBusyError
from pipeline.lease import Holding, held
from pipeline.ledger import Ledger
from pipeline.preflight import check_input, estimate, require, survey
from pipeline.slots import serving_lease
from pipeline.workspace import Workspace

WAIT_S = 3600.0
"""A run of a schedule or trigger waits so long for a workspace that another run holds."""

WAIT_INTERVAL_S = 10.0


@dataclass(frozen=True)
class Request:
    """What a flow was asked.

    Attributes:
        flow: its name.
        site: name of a site of this machine, or the token of a live run.
        overrides: settings from the flow's parameters.
        device: overrides the ``device`` setting.
        fresh: start trainings over.
        timeout_hours: the run is stopped after so many hours; its trainings go on from their checkpoints next time.
        needs_input: whether the site's input is read; without, what was ingested last is gone on with.
        engine: where independent pieces are worked on; see `flows.engines`.
    """

    flow: str
    site: str
    overrides: tuple[str, ...] = ()
    device: str | None = None
    fresh: bool = False
    timeout_hours: float = 24.0
    needs_input: bool = False
    engine: str | None = None


@dataclass(frozen=True)
class Slot:
    """What made a flow run start.

    Attributes:
        flow_run: Prefect's id of the run.
        name: of the slot; None for a run that somebody started by hand.
        due_at: seconds since the epoch, for a slot of a schedule.
    """

    flow_run: str | None = None
    name: str | None = None
    due_at: float | None = None


@dataclass(frozen=True)
class OpenRun:
    """A run at work.

    Attributes:
        run: the live run.
        token: its token.
        own: whether this flow opened it, and therefore ends it.
    """

    run: LiveRun
    token: str
    own: bool


@dataclass(frozen=True)
class Served:
    """The slot was served by an earlier run: nothing is to be done."""

    began_at: float


@contextmanager
def opened(request: Request, slot: Slot) -> Iterator[OpenRun | Served]:
    """The run that a flow works on, for the time of the block.

    Raises:
        StepFailed: a step failed in the block.
        FlowRefused: the run could not begin, or anything else failed; Prefect is told no more than kind and type.
    """
    known = known_run(request.site)
    if known is not None:
        yield OpenRun(known, request.site, own=False)
        return
    try:
        with _on_site(request, slot) as found:
            yield found
    except StepFailed:
        raise
    except Exception as error:
        _tell(error)
        raise FlowRefused(request.flow, error) from None


@contextmanager
def _on_site(request: Request, slot: Slot) -> Iterator[OpenRun | Served]:
    site = read_site(request.site)
    options = site.options(request.overrides, request.device)
    settings, _ = load_settings(options)
    if settings.promotion == "auto":  # nobody looks at what a schedule trains
        settings = settings.model_copy(update={"promotion": "no_worse"})
    if request.needs_input:
        check_input(site.input, site.workspace)
    workspace = Workspace.open(site.workspace)
    with _held(workspace, request, slot) as holding, remembered(workspace, settings):
        if slot.name is not None:
            earlier = serving_lease(Ledger(workspace.ledger_path), slot.name, request.flow, slot.due_at)
            if earlier is not None:
                holding.idle = True
                yield Served(earlier.began_at)
                return
        folder = site.input if request.needs_input else None
        folders = [workspace.root, *([] if folder is None else [folder])]
        with engine(request.engine, folders) as spread:
            call = Call(workspace, settings, folder, fresh=request.fresh, spread=spread)
            with _live(request, call) as run:
                yield run


@contextmanager
def _held(workspace: Workspace, request: Request, slot: Slot) -> Iterator[Holding]:
    """Hold the workspace; a run of a schedule or trigger waits for another run to end, one started by hand does not."""
    give_up = time.monotonic() + (WAIT_S if slot.name else 0.0)
    with ExitStack() as stack:
        while True:
            try:
                holding = stack.enter_context(held(workspace, request.flow, flow_run=slot.flow_run, slot=slot.name))
                break
            except WorkspaceBusyError as error:
                if time.monotonic() >= give_up:
                    raise
                sys.stderr.write(f"waiting: {error.found}\n")
                time.sleep(WAIT_INTERVAL_S)
        yield holding


@contextmanager
def _live(request: Request, call: Call) -> Iterator[OpenRun]:
    if call.input_folder is not None:
        require(estimate(call.settings, survey(call.input_folder), call.workspace.root))
    display = display_for(Console())
    run = LiveRun(call, display, site=request.site)
    run.deadline = time.monotonic() + 3600 * request.timeout_hours
    try:
        with enrolled(run) as token:
            yield OpenRun(run, token, own=True)
    except StepFailed:
        if run.failure is not None and not isinstance(run.failure, Terminated):
            _tell(run.failure)
        raise
    finally:
        display.close()


def _tell(error: BaseException) -> None:
    """Write the full message where the service's owner reads it; of foreign errors the type only."""
    sys.stderr.write(f"{error if isinstance(error, ScanloomError) else type(error).__name__}\n")
