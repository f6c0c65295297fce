"""Commands that look after a workspace: what would run, who works, what broke, what may go."""

from typing import Annotated

import typer

from flows.commands.options import (
    ConfigOption,
    DebugOption,
    DeviceOption,
    InputOption,
    SetOption,
    WorkspaceOption,
    console,
    options_of,
)
from flows.failures import reported
from flows.words import DEFAULT_WORKSPACE

commands = typer.Typer()
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")]


@commands.command(epilog="Example:  scanloom plan --workspace ~/work --set train.lesions.images=50000")
def plan(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
    input_folder: InputOption = None,
    overrides: SetOption = None,
    device: DeviceOption = None,
    debug: DebugOption = False,
) -> None:
    """Show which steps a run would take and why: which scan, setting or source changed. Nothing is made."""
    with reported(debug):
        from flows.planning import make_plan, print_plan

        options = options_of(workspace, config, overrides, device, debug)
        print_plan(console(), make_plan(options, input_folder))


@commands.command(epilog="Example:  scanloom status --workspace ~/work")
def status(workspace: WorkspaceOption = DEFAULT_WORKSPACE, debug: DebugOption = False) -> None:
    """Show who works in a workspace, what the last runs did and what they left broken."""
    with reported(debug):
        from flows.upkeep import print_status

        print_status(console(), workspace)


@commands.command(epilog="Example:  scanloom repair --workspace ~/work --dry-run")
def repair(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    dry_run: DryRunOption = False,
    verify: Annotated[bool, typer.Option("--verify", help="Check every output against its hashes too.")] = False,
    flow_runs: Annotated[
        bool, typer.Option("--flow-runs", help="Mark dead runs of all sites as crashed at the Prefect server too.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Close what killed runs left open: leases, steps, half outputs. Every run does so for its own workspace."""
    with reported(debug):
        from flows.upkeep import repair as repair_workspace

        repair_workspace(console(), workspace, dry_run=dry_run, verify=verify)
        if flow_runs:
            from flows.deploying import repair_flow_runs

            repair_flow_runs(console(), dry_run=dry_run, debug=debug)


@commands.command(epilog="Example:  scanloom gc --workspace ~/work --dry-run")
def gc(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    dry_run: DryRunOption = False,
    keep: Annotated[int, typer.Option("--keep", min=1, help="Newest outputs of each step that are kept.")] = 1,
    debug: DebugOption = False,
) -> None:
    """Remove outputs that nothing current needs: those of older settings or scans, damaged and half ones."""
    with reported(debug):
        from flows.upkeep import collect_garbage

        collect_garbage(console(), workspace, dry_run=dry_run, keep=keep)
