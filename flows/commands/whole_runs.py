"""Commands that go from scans to report."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import (
    DebugOption,
    DeviceOption,
    EngineOption,
    NeededInputOption,
    ResumeOption,
    SetOption,
    WorkspaceOption,
    console,
    options_of,
)
from flows.failures import reported
from flows.imports import without_collections
from flows.words import DEFAULT_WORKSPACE

commands = typer.Typer()


@commands.command(epilog="Example:  scanloom demo --workspace demo-workspace")
def demo(
    workspace: WorkspaceOption = Path("demo-workspace"),
    overrides: SetOption = None,
    device: DeviceOption = None,
    config: Annotated[str, typer.Option("--config", "-c", help="Preset or YAML file for the phantoms.")] = "demo",
    resume: ResumeOption = True,
    debug: DebugOption = False,
) -> None:
    """Show the whole thing on digital phantoms: DICOM and NIfTI in, both GANs trained, report out; some minutes."""
    with reported(debug):
        with without_collections():
            from flows.demo_input import PHANTOM_KEY, demo_input
            from flows.run_command import run_all

        options = options_of(workspace, config, overrides, device, debug)
        terminal = console()
        with terminal.status("Writing digital phantoms"):
            folder = demo_input(workspace)
        run_all(options, folder, terminal, fresh=not resume, identity_key=PHANTOM_KEY)


@commands.command(
    epilog="Example:  scanloom run lesions --input ~/scans --workspace ~/work --set train.lesions.images=50000"
)
def run(
    config: Annotated[str, typer.Argument(help="Preset name or YAML file; see `scanloom settings presets`.")],
    input_folder: NeededInputOption,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    overrides: SetOption = None,
    device: DeviceOption = None,
    resume: ResumeOption = True,
    engine: EngineOption = None,
    debug: DebugOption = False,
) -> None:
    """Take every step from scans to report as one Prefect flow. What is done already is found, not made again."""
    with reported(debug):
        with without_collections():
            from flows.run_command import run_all

        options = options_of(workspace, config, overrides, device, debug, engine)
        run_all(options, input_folder, console(), fresh=not resume)
