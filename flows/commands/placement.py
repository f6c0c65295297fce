"""The command that sets synthetic lesions into healthy scans."""

from pathlib import Path
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


@commands.command("place-lesions", epilog="Example:  scanloom place-lesions --hosts ~/healthy --masks ~/brain-masks")
def place_lesions(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    hosts: Annotated[
        Path | None,
        typer.Option("--hosts", help="Folder of healthy scans. Without it: scans that no lesion is listed for."),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option("--masks", help="Masks named like their hosts, where lesions may go. Without it: the body."),
    ] = None,
    config: ConfigOption = None,
    input_folder: InputOption = None,
    overrides: SetOption = None,
    device: DeviceOption = None,
    debug: DebugOption = False,
) -> None:
    """Set synthetic lesions into healthy scans; images, masks and lesions.csv come out."""
    with reported(debug):
        from flows.placing import place_into_hosts

        options = options_of(workspace, config, overrides, device, debug)
        place_into_hosts(options, console(), hosts=hosts, masks=masks, input_folder=input_folder)
