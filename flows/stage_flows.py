"""The Prefect flows of stages: `ingest`, `train-lesions`, `train-mr-to-ct`, `synthesize`, `translate`, `evaluate`.

Each can be deployed by itself or be called by `augment`. Its parameters are what Prefect's form shows: no paths, for
`site` is a name that this machine's site file resolves (see `flows.sites`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import Field

from flows.artifacts import write_run_artifacts
from flows.engines import ENGINE_PATTERN
from flows.live_run import known_run
from flows.site_run import OpenRun, Request, Served, Slot, opened
from flows.sites import NAME_PATTERN
from flows.step_task import take_steps

SiteName = Annotated[str, Field(pattern=NAME_PATTERN, title="Site", examples=["nightly"])]
Device = Literal["as the site says", "auto", "cuda", "mps", "cpu"]
Engine = Annotated[
    str,
    Field(pattern=ENGINE_PATTERN, title="Engine", examples=["serial", "dask", "dask:4", "dask:tcp://10.0.0.5:8786"]),
]
Hours = Annotated[float, Field(gt=0, le=24 * 14, title="Timeout (hours)")]
Images = Annotated[int, Field(gt=0, title="Training images")] | None
PerClass = Annotated[int, Field(gt=0, title="Synthetic images per class")] | None

AS_SITE: Device = "as the site says"
SERVED = "AlreadyServed"
"""Name of the state of a run for which nothing was to be done."""

TRIGGER_TAG = "slot:"
"""A trigger names its slot in a tag of the flow run."""


def run_name() -> str:
    """Name of a flow run: that of the settings for a run that a command started, else the site's."""
    site = str(flow_run.parameters.get("site", ""))
    run = known_run(site)
    return site if run is None else run.site or run.chain.call.settings.name


def this_slot(name: str) -> Slot:
    """What made the flow run at work start, as Prefect knows it."""
    context = FlowRunContext.get()
    run = None if context is None else context.flow_run
    if run is None:
        return Slot()
    trigger = next((tag.removeprefix(TRIGGER_TAG) for tag in run.tags if tag.startswith(TRIGGER_TAG)), None)
    if trigger is not None:
        return Slot(str(run.id), f"{name} {trigger}")
    due = run.expected_start_time
    if run.auto_scheduled and due is not None:
        return Slot(str(run.id), f"{name} {run.deployment_id} {due.isoformat()}", due.timestamp())
    return Slot(str(run.id))


def served(found: Served) -> State[None]:
    """Final state of a run whose slot an earlier run served."""
    return Completed(name=SERVED, message="a completed run served this slot; nothing was to be done")


@contextmanager
def on(request: Request) -> Iterator[OpenRun | Served]:
    """The run to work on; the artifacts of a whole run are written when a flow that opened its own ends."""
    with opened(request, this_slot(request.flow)) as found:
        yield found
        if isinstance(found, OpenRun) and found.own:
            write_run_artifacts(found.run.chain.call.workspace, found.run.chain.records, found.run.site)


def take(request: Request, targets: dict[str, str] | tuple[str, ...]) -> State[None] | None:
    """Reach the targets; a mapping names one by track, of which those of the settings are taken."""
    with on(request) as found:
        if isinstance(found, Served):
            return served(found)
        chain = found.run.chain
        tracks = chain.call.settings.tracks
        names = targets if isinstance(targets, tuple) else tuple(targets[track] for track in tracks if track in targets)
        take_steps(found.run, found.token, chain.path_to(names))
    return None


def request(
    name: str,
    site: str,
    timeout_hours: float,
    device: Device = AS_SITE,
    *,
    fresh: bool = False,
    needs_input: bool = False,
    engine: str = "serial",
    **settings: int | None,
) -> Request:
    """A flow's parameters as a request; ``settings`` are overrides, with ``__`` for dots; None leaves one alone."""
    overrides = tuple(f"{key.replace('__', '.')}={value}" for key, value in settings.items() if value is not None)
    where = None if device == AS_SITE else device
    return Request(name, site, overrides, where, fresh, timeout_hours, needs_input, engine)


@flow(name="ingest", flow_run_name=run_name, persist_result=False, log_prints=False)
def ingest(site: SiteName, engine: Engine = "serial", timeout_hours: Hours = 12.0) -> State[None] | None:
    """Read, check, de-identify and catalog the site's scans; set aside what cannot be trusted.

    Args:
        site: Name of a site of the machine that runs the flow; `scanloom site list` shows them. Never a path.
        engine: Where to work on series, volumes and cases: serial, dask, dask:WORKERS or dask:tcp://HOST:PORT.
        timeout_hours: The run is stopped after so many hours.
    """
    return take(request("ingest", site, timeout_hours, needs_input=True, engine=engine), ("ingest",))


@flow(name="train-lesions", flow_run_name=run_name, persist_result=False, log_prints=False)
def train_lesions(
    site: SiteName,
    images: Images = None,
    device: Device = AS_SITE,
    engine: Engine = "serial",
    fresh: bool = False,
    timeout_hours: Hours = 24.0,
) -> State[None] | None:
    """Train the conditional DCGAN on lesion crops, or go on with a stopped training.

    Args:
        site: Name of a site of the machine that runs the flow; `scanloom site list` shows them. Never a path.
        images: How many images to train for; empty for what the site's settings say.
        device: Where to compute.
        engine: Where to work on series, volumes and cases: serial, dask, dask:WORKERS or dask:tcp://HOST:PORT.
        fresh: Start over instead of going on from the last checkpoint.
        timeout_hours: The run is stopped after so many hours; the next one goes on from its last checkpoint.
    """
    asked = request(
        "train-lesions", site, timeout_hours, device, fresh=fresh, engine=engine, train__lesions__images=images
    )
    return take(asked, ("train_lesions",))


@flow(name="train-mr-to-ct", flow_run_name=run_name, persist_result=False, log_prints=False)
def train_mr_to_ct(
    site: SiteName,
    images: Images = None,
    device: Device = AS_SITE,
    engine: Engine = "serial",
    fresh: bool = False,
    timeout_hours: Hours = 24.0,
) -> State[None] | None:
    """Train the CycleGAN from MR to CT, or go on with a stopped training.

    Args:
        site: Name of a site of the machine that runs the flow; `scanloom site list` shows them. Never a path.
        images: How many images to train for; empty for what the site's settings say.
        device: Where to compute.
        engine: Where to work on series, volumes and cases: serial, dask, dask:WORKERS or dask:tcp://HOST:PORT.
        fresh: Start over instead of going on from the last checkpoint.
        timeout_hours: The run is stopped after so many hours; the next one goes on from its last checkpoint.
    """
    asked = request(
        "train-mr-to-ct", site, timeout_hours, device, fresh=fresh, engine=engine, train__mr_to_ct__images=images
    )
    return take(asked, ("train_mr_to_ct",))


@flow(name="synthesize", flow_run_name=run_name, persist_result=False, log_prints=False)
def synthesize(
    site: SiteName,
    per_class: PerClass = None,
    device: Device = AS_SITE,
    engine: Engine = "serial",
    timeout_hours: Hours = 12.0,
) -> State[None] | None:
    """Make a cohort of synthetic lesions.

    Args:
        site: Name of a site of the machine that runs the flow; `scanloom site list` shows them. Never a path.
        per_class: How many images of each class; empty for what the site's settings say.
        device: Where to compute.
        engine: Where to work on series, volumes and cases: serial, dask, dask:WORKERS or dask:tcp://HOST:PORT.
        timeout_hours: The run is stopped after so many hours.
    """
    asked = request("synthesize", site, timeout_hours, device, engine=engine, generate__lesions__per_class=per_class)
    return take(asked, ("synthesize_lesions",))


@flow(name="translate", flow_run_name=run_name, persist_result=False, log_prints=False)
def translate(site: SiteName, device: Device = AS_SITE, timeout_hours: Hours = 12.0) -> State[None] | None:
    """Make pseudo-CT volumes from MR, as NIfTI and as DICOM CT series.

    Args:
        site: Name of a site of the machine that runs the flow; `scanloom site list` shows them. Never a path.
        device: Where to compute.
        timeout_hours: The run is stopped after so many hours; the next one goes on after the last finished volume.
    """
    return take(request("translate", site, timeout_hours, device), ("translate_mr_to_ct",))


@flow(name="evaluate", flow_run_name=run_name, persist_result=False, log_prints=False)
def evaluate(
    site: SiteName, device: Device = AS_SITE, engine: Engine = "serial", timeout_hours: Hours = 12.0
) -> State[None] | None:
    """Judge what was generated, write the augmented dataset and the report.

    Args:
        site: Name of a site of the machine that runs the flow; `scanloom site list` shows them. Never a path.
        device: Where to compute.
        engine: Where to work on series, volumes and cases: serial, dask, dask:WORKERS or dask:tcp://HOST:PORT.
        timeout_hours: The run is stopped after so many hours.
    """
    return take(request("evaluate", site, timeout_hours, device, engine=engine), ("report",))
