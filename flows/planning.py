"""What `scanloom plan` does: which steps would run and why, without running any.

Each step is asked for its output in a workspace for planning. A step whose input would be made again cannot be asked:
its key depends on what that gives. It is told as such; where the input comes out as before, the step is found.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from flows.chain import STEPS, Call, Chain
from flows.information import existing_workspace
from flows.requests import Options, load_settings
from flows.words import counted
from pipeline.errors import InputError
from pipeline.planning import Reason, reasons
from pipeline.preflight import check_input
from pipeline.stage_runner import WouldRun


@dataclass(frozen=True)
class Planned:
    """One step of a plan.

    Attributes:
        step: its name.
        outcome: found (nothing to do), runs, or depends (on a step that runs).
        reasons: why, in words.
    """

    step: str
    outcome: str
    reasons: tuple[Reason, ...] = ()


def make_plan(options: Options, input_folder: Path | None, targets: Sequence[str] = ("report",)) -> list[Planned]:
    """Ask every step of a run what it would do.

    Args:
        options: workspace and settings; nothing of them is remembered.
        input_folder: the scans; None goes on with those ingested last.
        targets: steps to reach.

    Raises:
        ScanloomError: settings, workspace or input are not valid, or a step could not begin.
    """
    settings, _ = load_settings(options)
    if input_folder is not None:
        check_input(input_folder, options.workspace)
    workspace = existing_workspace(options.workspace).for_planning()
    chain = Chain(Call(workspace, settings, input_folder))
    plan: list[Planned] = []
    for step in chain.path_to(tuple(targets)):
        plan.append(_planned(chain, step, [item.step for item in plan if item.outcome != "found"]))
    return plan


def _planned(chain: Chain, step: str, moving: Sequence[str]) -> Planned:
    needs = [need for need in (list(chain.order()) if step == "report" else STEPS[step].needs) if need in moving]
    if needs:
        return Planned(step, "depends", (Reason("input", f"after {', '.join(needs)}"),))
    try:
        chain.take(step)
    except WouldRun as would:
        why = reasons(chain.call.workspace, would)
        if would.stage == "ingest":
            why = [replace(reason, text=_scans(chain.call, reason.text)) for reason in why]
        elif would.stage != step:
            why = [Reason("part", f"makes {would.stage} first"), *why]
        return Planned(step, "runs", tuple(why))
    except InputError as error:
        return Planned(step, "runs", (Reason("refused", f"would be refused: {error.rule} Found: {error.found}"),))
    return Planned(step, "found")


def _scans(call: Call, text: str) -> str:
    """Say of a changed input which scans changed, in numbers."""
    if call.input_folder is None or "input" not in text:
        return text
    from pipeline.ingest.stage import changed_files

    return f"{text} ({changed_files(call.workspace, call.input_folder)})"


def print_plan(console: Console, plan: Sequence[Planned]) -> None:
    """Show a plan."""
    marks = {"found": "found  ", "runs": "RUNS   ", "depends": "depends"}
    for item in plan:
        why = "; ".join(reason.text for reason in item.reasons)
        console.print(f"  {marks[item.outcome]} {item.step:20} {why}", markup=False, highlight=False, soft_wrap=True)
    moving = sum(item.outcome != "found" for item in plan)
    console.print(f"{counted(moving, 'step')} to take or ask again, {len(plan) - moving} found done.", highlight=False)
