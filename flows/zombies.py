"""Flow runs that Prefect takes for running while their processes are dead; they are marked crashed, and begun again.

A killed worker or a power cut leaves a run RUNNING for ever. The ledger knows better: the run's lease names its
process. A run of a deployment that died, or was stopped with its service, is begun again, once, by a run with the
idempotency key ``resume-<id>``; it finds what was done and goes on from the last checkpoint. After `MOST_RESUMES` in a
row it is left to a person: whatever kills it may kill it again.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Crashed

from flows.sites import read_site, site_names
from flows.stage_flows import SERVED, TRIGGER_TAG
from pipeline.errors import ScanloomError
from pipeline.lease import leases
from pipeline.ledger import Ledger

MOST_RESUMES = 3
RESUME_TAG = "resumed:"
UNSEEN_AFTER = timedelta(minutes=2)
"""A run that no ledger knows is dead when it began so long ago: it would have taken its lease, or given up."""
_LOOK_BACK = timedelta(days=14)


def bury_zombies(client: SyncPrefectClient, *, resume: bool, dry_run: bool = False) -> list[str]:
    """Mark dead runs of this machine's sites as crashed.

    Args:
        client: of the server.
        resume: begin those of deployments again.
        dry_run: only tell.

    Returns:
        One line a run.
    """
    lines = []
    living, known = _leases_by_run()
    for run in _open_runs(client):
        site = str(run.parameters.get("site", ""))
        if site not in site_names() or str(run.id) in living or not _is_dead(run, known):
            continue
        lines.append(f"flow run {run.name} ({run.id}): its process is dead")
        if dry_run:
            continue
        crashed: State[None] = Crashed(message="its process ended without a word; found by scanloom")
        for each in [*_children(client, run.id), run]:
            client.set_flow_run_state(each.id, crashed, force=True)
    if resume and not dry_run:
        for run in _crashed_runs(client):
            if str(run.parameters.get("site", "")) in site_names() and not _overtaken(client, run):
                lines += _begin_again(client, run)
    return lines


def _crashed_runs(client: SyncPrefectClient) -> list[FlowRun]:
    """Runs of deployments that ended with their process: killed, or stopped with the service."""
    return [run for run in _runs(client, [StateType.CRASHED]) if run.deployment_id is not None]


def _overtaken(client: SyncPrefectClient, run: FlowRun) -> bool:
    """Whether a later run of the same deployment did the work, or was begun in its place."""
    found = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[run.deployment_id] if run.deployment_id else []),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.COMPLETED])),
        ),
        sort=FlowRunSort.START_TIME_DESC,
        limit=20,
    )
    began = run.start_time or run.expected_start_time
    done = [each for each in found if each.state_name != SERVED and each.start_time is not None]
    return any(began is not None and each.start_time is not None and each.start_time > began for each in done)


def _is_dead(run: FlowRun, known: set[str]) -> bool:
    """Whether a run that no living lease names is dead: its lease ended, or it never took one."""
    began = run.start_time or run.expected_start_time
    if str(run.id) in known or began is None:
        return str(run.id) in known
    return datetime.now(UTC) - began > UNSEEN_AFTER and run.parent_task_run_id is None


def _begin_again(client: SyncPrefectClient, run: FlowRun) -> Sequence[str]:
    before = next((int(tag.removeprefix(RESUME_TAG)) for tag in run.tags if tag.startswith(RESUME_TAG)), 0)
    if before >= MOST_RESUMES or run.deployment_id is None:
        return [f"  not begun again: it died {before + 1} times in a row"]
    slot = next((tag for tag in run.tags if tag.startswith(TRIGGER_TAG)), f"{TRIGGER_TAG}{run.id}")
    made = client.create_flow_run_from_deployment(
        run.deployment_id,
        parameters=run.parameters,
        idempotency_key=f"resume-{run.id}",
        tags=[slot, f"{RESUME_TAG}{before + 1}"],
    )
    return [f"  begun again as {made.name}"]


def _open_runs(client: SyncPrefectClient) -> list[FlowRun]:
    return _runs(client, [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING])


def _runs(client: SyncPrefectClient, states: list[StateType]) -> list[FlowRun]:
    """Runs of the last days in one of these states, without those inside others."""
    found = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states)),
            expected_start_time=FlowRunFilterExpectedStartTime(after_=datetime.now(UTC) - _LOOK_BACK),
        )
    )
    return [run for run in found if run.parent_task_run_id is None]


def _children(client: SyncPrefectClient, parent: UUID) -> list[FlowRun]:
    found = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[parent]))
    )
    return [run for run in found if run.state is None or not run.state.is_final()]


def _leases_by_run() -> tuple[set[str], set[str]]:
    """Ids of the flow runs with a living lease, and of all that ever took one, at the sites of this machine."""
    living, known = set(), set()
    for name in site_names():
        try:
            ledger_path = read_site(name).workspace / "ledger.sqlite"
        except ScanloomError:
            continue
        for lease in leases(Ledger(ledger_path)) if ledger_path.is_file() else []:
            if lease.flow_run is not None:
                known.add(lease.flow_run)
                if lease.ended_at is None and not lease.dead():
                    living.add(lease.flow_run)
    return living, known
