"""Commands for what goes out: the augmented dataset and the report."""

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
    take_steps,
)
from flows.failures import reported
from flows.words import DEFAULT_WORKSPACE

SCAN_FORMATS = ("nnunet", "decathlon", "bids")
"""Formats that hold whole scans, not images of lesions."""

commands = typer.Typer()


@commands.command(epilog="Example:  scanloom export --workspace ~/work --format medmnist_npz")
def export(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    form: Annotated[
        str | None,
        typer.Option("--format", "-f", help="image_folder, medmnist_npz, dicom_sc; or scans: nnunet, decathlon, bids."),
    ] = None,
    config: ConfigOption = None,
    input_folder: InputOption = None,
    overrides: SetOption = None,
    device: DeviceOption = None,
    debug: DebugOption = False,
) -> None:
    """Write the augmented dataset: real and synthetic lesion images with provenance; or the scans themselves."""
    if form in SCAN_FORMATS:
        with reported(debug):
            from flows.scan_export import export_scans_as

            export_scans_as(options_of(workspace, config, overrides, device, debug), console(), form, input_folder)
        return
    chosen = [*(overrides or ()), *([] if form is None else [f"export.format={form}"])]
    take_steps(options_of(workspace, config, chosen, device, debug), ("export_lesions",), input_folder)


@commands.command(epilog="Example:  scanloom report --workspace ~/work  ·  scanloom report ~/work ~/other")
def report(
    workspaces: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[WORKSPACE]...", help="Two or more: their newest reports side by side."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for a comparison; else in the first workspace.")
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
    input_folder: InputOption = None,
    overrides: SetOption = None,
    device: DeviceOption = None,
    debug: DebugOption = False,
) -> None:
    """Write the HTML report, taking every step not done yet; after an ingest alone, a report on the data.

    With several workspaces: compare their reports; nothing is run.
    """
    if workspaces and len(workspaces) > 1:
        with reported(debug):
            from flows.comparing import compare_workspaces

            compare_workspaces(console(), workspaces, output)
        return
    workspace = workspaces[0] if workspaces else workspace
    take_steps(options_of(workspace, config, overrides, device, debug), ("report",), input_folder)
