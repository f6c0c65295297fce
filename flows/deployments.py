"""Deployments made from their entries: registered at a server for a work pool, or given to a runner of this process."""

import importlib
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Cron, Interval, Schedule
from prefect.types.entrypoint import EntrypointType

from flows.deployment_file import DeploymentEntry, ScheduleEntry
from flows.prefect_environment import ALWAYS
from flows.stage_flows import TRIGGER_TAG
from pipeline.errors import SettingsError

TAG = "scanloom"


def flow_of(entry: DeploymentEntry) -> Flow[..., Any]:
    """The flow of a deployment."""
    module, _, name = entry.entrypoint.rpartition(".")
    found: Flow[..., Any] = getattr(importlib.import_module(module), name)
    return found


def deployment_of(entry: DeploymentEntry, *, pool: bool) -> RunnerDeployment:
    """A deployment as Prefect takes it.

    Args:
        entry: what is wanted.
        pool: for a work pool; without, for a runner of this process.

    Raises:
        SettingsError: a schedule or a parameter is not valid.
    """
    flow = flow_of(entry)
    try:
        flow.validate_parameters(entry.parameters)
        made = flow.to_deployment(
            name=entry.name,
            schedules=[_schedule(each) for each in entry.schedules],
            parameters=entry.parameters,
            description=entry.description or flow.description,
            tags=[TAG, *entry.tags],
            entrypoint_type=EntrypointType.MODULE_PATH,
            **(_pool_arguments(entry) if pool else {}),
        )
    except Exception as error:
        raise SettingsError(
            "The schedule and the parameters of a deployment must suit its flow.",
            found=f"{entry.name}: {error}",
            allowed="a cron expression or interval, and parameters that the flow has",
            change="Correct the deployment.",
        ) from None
    if not isinstance(made, RunnerDeployment):
        raise TypeError("to_deployment was called from asynchronous code")
    return made


def overdue(client: SyncPrefectClient, entry: DeploymentEntry) -> datetime | None:
    """The latest time at which a deployment fell due and was not begun, e.g. while its service was down.

    Ask before the deployment is registered anew: Prefect then forgets what fell due before.
    """
    try:
        known = client.read_deployment_by_name(f"{flow_of(entry).name}/{entry.name}")
    except ObjectNotFound:
        return None
    found = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[known.id]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
            expected_start_time=FlowRunFilterExpectedStartTime(before_=datetime.now(UTC)),
        )
    )
    return max(
        (run.expected_start_time for run in found if run.auto_scheduled and run.expected_start_time), default=None
    )


def catch_up(client: SyncPrefectClient, entry: DeploymentEntry, due: datetime | None) -> str | None:
    """One run for all that fell due and was not begun; returns its name. Again and again with the same outcome."""
    if due is None:
        return None
    known = client.read_deployment_by_name(f"{flow_of(entry).name}/{entry.name}")
    run = client.create_flow_run_from_deployment(
        known.id,
        idempotency_key=f"missed-{known.id}-{due.isoformat()}",
        tags=[f"{TRIGGER_TAG}{known.id} {due.isoformat()}"],
    )
    return run.name


def register(entries: tuple[DeploymentEntry, ...]) -> list[tuple[str, bool]]:
    """Register deployments at the server, making work pools that lack; again and again with the same outcome.

    Returns:
        The full name of each, and whether it has a pool that was made now.
    """
    done = []
    with get_client(sync_client=True) as client:
        for entry in entries:
            made = False
            try:
                client.read_work_pool(entry.work_pool.name)
            except ObjectNotFound:
                client.create_work_pool(WorkPoolCreate(name=entry.work_pool.name, type="process"))
                made = True
            deployment, due = deployment_of(entry, pool=True), overdue(client, entry)
            deployment.apply()
            catch_up(client, entry, due)
            done.append((f"{deployment.flow_name}/{deployment.name}", made))
    return done


def _pool_arguments(entry: DeploymentEntry) -> dict[str, Any]:
    variables = dict(entry.work_pool.job_variables)
    variables["env"] = {**ALWAYS, **variables.get("env", {})}
    return {
        "work_pool_name": entry.work_pool.name,
        "work_queue_name": entry.work_pool.work_queue_name,
        "job_variables": variables,
    }


def _schedule(entry: ScheduleEntry) -> Schedule:
    if entry.cron is not None:
        return Cron(entry.cron, timezone=entry.timezone, active=entry.active)
    interval = timedelta(seconds=entry.interval or 0)
    return Interval(interval, anchor_date=entry.anchor_date, timezone=entry.timezone, active=entry.active)
