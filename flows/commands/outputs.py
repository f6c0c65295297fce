"""Commands for what goes out: the augmented dataset and the report."""

from typing import Annotated

import typer

from flows.commands.options import (
    ConfigOption,
    DebugOption,
    DeviceOption,
    InputOption,
    SetOption,
    WorkspaceOption,
    options_of,
    take_steps,
)
from flows.words import DEFAULT_WORKSPACE

commands = typer.Typer()


@commands.command(epilog="Example:  scanloom export --workspace ~/work --format medmnist_npz")
def export(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    form: Annotated[
        str | None, typer.Option("--format", "-f", help="image_folder, medmnist_npz or dicom_sc; as export.format.")
    ] = None,
    config: ConfigOption = None,
    input_folder: InputOption = None,
    overrides: SetOption = None,
    device: DeviceOption = None,
    debug: DebugOption = False,
) -> None:
    """Write the augmented dataset: real and synthetic lesion images with provenance."""
    chosen = [*(overrides or ()), *([] if form is None else [f"export.format={form}"])]
    take_steps(options_of(workspace, config, chosen, device, debug), ("export_lesions",), input_folder)


@commands.command(epilog="Example:  scanloom report --workspace ~/work")
def report(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
    input_folder: InputOption = None,
    overrides: SetOption = None,
    device: DeviceOption = None,
    debug: DebugOption = False,
) -> None:
    """Write the HTML report, taking every step not done yet; after an ingest alone, a report on the data."""
    take_steps(options_of(workspace, config, overrides, device, debug), ("report",), input_folder)
