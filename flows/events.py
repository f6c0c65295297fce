"""Events for Prefect's automations: an alarm of a training, a verdict of an evaluation; failures Prefect knows itself.

    scanloom.alarm      a training raised an alarm       payload: step, alarms (names and counts)
    scanloom.verdict    an evaluation reached a verdict  payload: track, key, outcome (good, neutral, bad)

They name a site, a step and an outcome, nothing of a patient and no path. Only a run of a site tells them: a run that a
command started has its person watching. An event is a courtesy: a server that cannot take it ends no run.
"""

from collections import Counter
from contextlib import suppress
from typing import Any

from prefect.events import emit_event

from flows.live_run import LiveRun
from flows.summary import results_of
from pipeline.records import StageRecord
from pipeline.training_alarms import read_alarms

ALARM, VERDICT = "scanloom.alarm", "scanloom.verdict"
RESOURCE_PREFIX = "scanloom.site."


def tell_of_step(run: LiveRun, step: str, record: StageRecord) -> None:
    """Tell of alarms and verdicts of a step that was made now; a found one was told of before."""
    if run.site is None or record.cached:
        return
    with suppress(Exception):
        for name, payload in _happenings(run, step, record):
            emit_event(name, resource={"prefect.resource.id": f"{RESOURCE_PREFIX}{run.site}"}, payload=payload)


def _happenings(run: LiveRun, step: str, record: StageRecord) -> list[tuple[str, dict[str, Any]]]:
    workspace = run.chain.call.workspace
    if step.startswith("train_"):
        alarms = Counter(alarm.alarm for alarm in read_alarms(record.path(workspace.root)))
        return [(ALARM, {"step": step, "alarms": dict(alarms)})] if alarms else []
    return [
        (VERDICT, {"track": results.track, "verdict": verdict.key, "outcome": verdict.outcome})
        for results in results_of(workspace, {step: record})
        for verdict in results.verdicts
    ]
