"""What the stage commands do: walk the chain up to a step, without Prefect."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from flows.chain import STEPS, Call
from flows.engines import engine
from flows.live_run import LiveRun
from flows.progress import display_for
from flows.requests import Options, load_settings, remembered
from flows.showing import short
from flows.summary import print_summary
from flows.words import sentence_case
from pipeline.files import read_json
from pipeline.lease import held
from pipeline.preflight import check_input
from pipeline.records import StageRecord
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from pipeline.train.crew import Crew


def run_steps(
    options: Options,
    targets: Mapping[str, str] | tuple[str, ...],
    console: Console,
    *,
    input_folder: Path | None = None,
    fresh: bool = False,
    crew: "Crew | None" = None,
) -> Mapping[str, StageRecord]:
    """Reach the target steps, taking what they need first.

    Args:
        options: workspace, settings, debug.
        targets: step names; or a mapping from track to step name, of which the tracks in the settings are taken.
        console: where progress and summary are shown.
        input_folder: the scans; None goes on with those ingested last.
        fresh: start trainings over.
        crew: the processes that train together; None for this one alone.

    Raises:
        ScanloomError: a step cannot begin or go on.
    """
    began = time.monotonic()
    settings, origin = load_settings(options)
    if input_folder is not None:
        check_input(input_folder, options.workspace)
    workspace = Workspace.open(options.workspace)
    console.print(f"settings: {origin}; workspace: {workspace.root}", style="dim", markup=False, highlight=False)
    names = targets if isinstance(targets, tuple) else tuple(targets[track] for track in settings.tracks)
    display = display_for(console)
    folders = [workspace.root, *([] if input_folder is None else [input_folder])]
    with (
        held(workspace, ", ".join(names)),
        remembered(workspace, settings),
        engine(options.engine, folders) as spread,
    ):
        run = LiveRun(Call(workspace, settings, input_folder, fresh=fresh, spread=spread, crew=crew), display)
        order = run.chain.path_to(names)
        try:
            for name in order:
                run.take(name, order)
        finally:
            display.close()
    print_summary(console, workspace, run.chain.records, time.monotonic() - began)
    for name in names:
        _print_facts(console, name, run.chain.records[name])
        if name == "ingest":
            _print_changes(console, workspace)
    return run.chain.records


def _print_facts(console: Console, name: str, record: StageRecord) -> None:
    """Show what a step's record is worth knowing, for steps that the summary has no figures for."""
    if name == "report" or not record.facts:
        return
    console.print(f"\n{sentence_case(STEPS[name].title)}", style="bold")
    for key, value in sorted(record.facts.items()):
        if value is not None:
            console.print(f"  {key:20} {short(value)}", markup=False, highlight=False, soft_wrap=True)


def _print_changes(console: Console, workspace: Workspace) -> None:
    """What the ingest found changed since the last time, and how much it had to parse."""
    from pipeline.ingest.stage import CHANGES_FILE

    changes = read_json(workspace.root / CHANGES_FILE)
    files = ", ".join(f"{count} {kind}" for kind, count in changes["files"].items())
    read = "; ".join(
        f"{what}: {count['parsed']} read, {count['known']} known" for what, count in changes["read"].items()
    )
    console.print(f"  {'files':20} {files}", markup=False, highlight=False)
    console.print(f"  {'parsed':20} {read or 'nothing'}", markup=False, highlight=False)
    if changes["index_rebuilt"]:
        console.print("The index of files was damaged and has been made again.", style="yellow")
