"""Commands that give trained models away and take them in."""

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


@commands.command("export-model", epilog="Example:  scanloom export-model --format onnx --license CC-BY-NC-4.0")
def export_model(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    form: Annotated[
        str | None, typer.Option("--format", "-f", help="bundle, torch_export or onnx; as share.format.")
    ] = None,
    license_name: Annotated[
        str | None, typer.Option("--license", help="License of the weights, for the card; as share.license.")
    ] = None,
    config: ConfigOption = None,
    input_folder: InputOption = None,
    overrides: SetOption = None,
    device: DeviceOption = None,
    debug: DebugOption = False,
) -> None:
    """Write trained models as folders to give away: weights, card, and a program that runs without scanloom."""
    chosen = [
        *(overrides or ()),
        *([] if form is None else [f"share.format={form.replace('-', '_')}"]),
        *([] if license_name is None else [f"share.license={license_name}"]),
    ]
    with reported(debug):
        from flows.sharing import export_models

        export_models(options_of(workspace, config, chosen, device, debug), console(), input_folder)


@commands.command("import-model", epilog="Example:  scanloom import-model ~/downloads/shared --workspace ~/work")
def import_model(
    source: Annotated[Path, typer.Argument(help="Folder that `scanloom export-model` wrote.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
    overrides: SetOption = None,
    debug: DebugOption = False,
) -> None:
    """Check a model from elsewhere and keep it in the workspace; only safetensors and JSON are read, nothing is run."""
    with reported(debug):
        from flows.sharing import take_in

        take_in(options_of(workspace, config, overrides, None, debug), console(), source)
