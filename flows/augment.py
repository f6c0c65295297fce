"""The Prefect flow `augment`: scans in; augmented dataset, pseudo-CT and report out. One task a step.

Prefect gives a run its name, states, retries and artifacts. What was made, and whether it must be made again, is known
by the workspace's own ledger and content-hash keys, so tasks persist no result and use no cache of Prefect's: its keys
would see the few lines here, not the code behind them. A second run finds every step done within each task.

Nothing that could identify a patient is handed to Prefect: parameters are a random token, the run's name and step
names; exceptions are reduced to their type (`StepFailed`), their full text goes to the terminal and the ledger.
"""

from contextlib import nullcontext
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from flows.artifacts import TrainingArtifact, write_run_artifacts
from flows.chain import STEPS
from flows.failures import StepFailed
from flows.live_run import live_run
from pipeline.records import StageRecord

RETRIES = 2
RETRY_DELAYS_S = [5.0, 30.0]


def _may_pass(failed: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """Prefect's retry condition."""
    return isinstance(state.data, StepFailed) and state.data.transient


@task(
    name="step",
    task_run_name="{step}",
    tags={"scanloom"},
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=_may_pass,
    cache_policy=NO_CACHE,
    persist_result=False,
    log_prints=False,
)
def take_step(step: str, token: str) -> StageRecord:
    """Run one step of the live run, or find its output.

    Raises:
        StepFailed: the step failed; the live run keeps the full exception.
    """
    run = live_run(token)
    artifact = TrainingArtifact(step) if STEPS[step].training else None
    with run.watched(artifact.advance) if artifact else nullcontext():
        try:
            record = run.take(step, run.chain.order())
        except Exception as error:
            raise StepFailed(step, error) from None
    if artifact:
        artifact.finish()
    return record


@flow(name="augment", flow_run_name="{run_name}", log_prints=False, persist_result=False, validate_parameters=True)
def augment(run_name: str, token: str) -> dict[str, StageRecord]:
    """Take every step of the live run in order, one at a time: they share one device.

    Args:
        run_name: name from the settings.
        token: names the live run in this process.

    Returns:
        Records by step.
    """
    run = live_run(token)
    records = {step: take_step(step, token) for step in run.chain.order()}
    write_run_artifacts(run.chain.call.workspace, records)
    return records
