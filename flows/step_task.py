"""The Prefect task of every step: retried by the kind of its error, stopped at the run's deadline, shown as it goes.

What was made, and whether it must be made again, is known by the workspace's own ledger and content-hash keys, so tasks
persist no result and use no cache of Prefect's: its keys would see the few lines here, not the code behind them.

Nothing that could identify a patient is handed to Prefect: parameters are a step's name and a token; exceptions are
reduced to kind and type (`StepFailed`), their full text goes to the terminal and the ledger.
"""

import time
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from flows.artifacts import StepProgress, write_step_artifacts
from flows.device_mirror import DeviceMirror
from flows.events import tell_of_step
from flows.failures import StepFailed
from flows.live_run import LiveRun, live_run
from pipeline.device_turn import turns_shown
from pipeline.records import StageRecord

RETRY_DELAYS_S = [5.0, 30.0]
"""Before the second and third attempt at a step whose error may pass by itself; other kinds are not tried again."""


def _may_pass(failed: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """Prefect's retry condition."""
    return isinstance(state.data, StepFailed) and state.data.kind == "passing"


@task(
    name="step",
    task_run_name="{step}",
    tags={"scanloom"},
    retries=len(RETRY_DELAYS_S),
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
    shown = StepProgress(step)
    with run.watched(shown.advance), turns_shown(DeviceMirror()):
        try:
            record = run.take(step)
        except Exception as error:
            raise StepFailed(step, error) from None
    shown.finish()
    write_step_artifacts(run.chain.call.workspace, step, record)
    tell_of_step(run, step, record)
    return record


def take_steps(run: LiveRun, token: str, steps: list[str]) -> None:
    """Take steps in order, each with the time that is left to the run as its timeout; taken ones are passed over."""
    for step in steps:
        if step not in run.chain.records:
            left = None if run.deadline is None else max(1.0, run.deadline - time.monotonic())
            take_step.with_options(timeout_seconds=left)(step, token)
