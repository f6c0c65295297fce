"""The Prefect flow `augment`: scans in; augmented dataset, pseudo-CT and report out. The parent of all others."""

from dataclasses import replace
from typing import Annotated, Any

from prefect import Flow, flow
from prefect.client.schemas.objects import State
from pydantic import Field

from flows.artifacts import write_run_artifacts
from flows.site_run import Served
from flows.stage_flows import (
    AS_SITE,
    Device,
    Engine,
    Hours,
    SiteName,
    evaluate,
    ingest,
    on,
    request,
    run_name,
    served,
    synthesize,
    train_lesions,
    train_mr_to_ct,
    translate,
)
from pipeline.settings import Track

_OF_TRACK: dict[Track, tuple[Flow[..., Any], ...]] = {
    "lesions": (train_lesions, synthesize),
    "mr_to_ct": (train_mr_to_ct, translate),
}
"""The flows of each track, in order; ingest comes before them, evaluate after them."""


@flow(name="augment", flow_run_name=run_name, persist_result=False, log_prints=False)
def augment(
    site: SiteName,
    tracks: Annotated[list[Track], Field(min_length=1, title="Tracks")] | None = None,
    device: Device = AS_SITE,
    engine: Engine = "serial",
    fresh: bool = False,
    timeout_hours: Hours = 24.0,
) -> State[None] | None:
    """Take every step from scans to report. What is done already is found, not made again.

    The flows share one device, so that they run one after the other.

    Args:
        site: Name of a site of the machine that runs the flow; `scanloom site list` shows them. Never a path.
        tracks: Lesions, MR to CT or both; empty for what the site's settings say.
        device: Where to compute.
        engine: Where to work on series, volumes and cases: serial, dask, dask:WORKERS or dask:tcp://HOST:PORT.
        fresh: Start trainings over instead of going on from their last checkpoints.
        timeout_hours: The run is stopped after so many hours; the next one goes on where it was.
    """
    asked = request("augment", site, timeout_hours, device, fresh=fresh, needs_input=True, engine=engine)
    if tracks is not None:
        asked = replace(asked, overrides=(f"tracks=[{','.join(tracks)}]",))
    with on(asked) as found:
        if isinstance(found, Served):
            return served(found)
        ingest(found.token)
        for track in found.run.chain.call.settings.tracks:
            for stage in _OF_TRACK[track]:
                stage(found.token)
        evaluate(found.token)
        if not found.own:  # a command's run has no site whose flow writes them
            write_run_artifacts(found.run.chain.call.workspace, found.run.chain.records)
    return None
