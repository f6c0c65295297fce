"""Commands that prepare, train and use the two GANs."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.options import (
    ConfigOption,
    DebugOption,
    DeviceOption,
    EngineOption,
    InputOption,
    ResumeOption,
    SetOption,
    WorkspaceOption,
    console,
    options_of,
    take_steps,
)
from flows.failures import reported
from flows.words import DEFAULT_WORKSPACE

if TYPE_CHECKING:
    from flows.requests import Options

ModelOption = Annotated[
    str | None, typer.Option("--model", help="An imported model: the beginning of its hash, or newest.")
]
train_commands = typer.Typer(help="Train one of the two GANs.", no_args_is_help=True)
commands = typer.Typer()
commands.add_typer(train_commands, name="train")


@commands.command(epilog="Example:  scanloom prepare --workspace ~/work --config lesions")
def prepare(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
    input_folder: InputOption = None,
    overrides: SetOption = None,
    engine: EngineOption = None,
    debug: DebugOption = False,
) -> None:
    """Turn the catalog into training arrays for the tracks that the settings name."""
    targets = {"lesions": "prepare_lesions", "mr_to_ct": "prepare_mr_to_ct"}
    take_steps(options_of(workspace, config, overrides, None, debug, engine), targets, input_folder)


@train_commands.command("lesions", epilog="Example:  scanloom train lesions --set train.lesions.images=50000")
def train_lesions(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
    input_folder: InputOption = None,
    overrides: SetOption = None,
    device: DeviceOption = None,
    resume: ResumeOption = True,
    debug: DebugOption = False,
) -> None:
    """Train the conditional DCGAN on lesion crops; under torchrun, in several processes."""
    _train(options_of(workspace, config, overrides, device, debug), "train_lesions", input_folder, fresh=not resume)


@train_commands.command("mr-to-ct", epilog="Example:  scanloom train mr-to-ct --config mr_to_ct_paired")
def train_mr_to_ct(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
    input_folder: InputOption = None,
    overrides: SetOption = None,
    device: DeviceOption = None,
    resume: ResumeOption = True,
    debug: DebugOption = False,
) -> None:
    """Train the CycleGAN from MR to CT; under torchrun, in several processes."""
    _train(options_of(workspace, config, overrides, device, debug), "train_mr_to_ct", input_folder, fresh=not resume)


def _train(options: "Options", step: str, input_folder: Path | None, *, fresh: bool) -> None:
    with reported(options.debug):
        from flows.training_processes import train_together

        train_together(options, step, console(), input_folder=input_folder, fresh=fresh)


@commands.command(epilog="Example:  scanloom synthesize --set generate.lesions.per_class=500")
def synthesize(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
    input_folder: InputOption = None,
    overrides: SetOption = None,
    device: DeviceOption = None,
    model: ModelOption = None,
    query: Annotated[
        str | None,
        typer.Option("--query", "-q", help="The recipe in words, e.g. '40 small meningioma and 20 pituitary'."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask whether --query was read rightly.")] = False,
    engine: EngineOption = None,
    debug: DebugOption = False,
) -> None:
    """Make a cohort of synthetic lesions by recipe, from the settings or in words."""
    options = options_of(workspace, config, overrides, device, debug, engine)
    if model is None and query is None:
        take_steps(options, ("synthesize_lesions",), input_folder)
        return
    with reported(debug):
        if model is not None and engine is not None:
            raise typer.BadParameter("--engine is for the workspace's own model; an imported one works in this process")
        if model is not None and query is not None:
            raise typer.BadParameter("--query speaks of the workspace's own model; give a recipe with --set instead")
        if query is not None:
            from flows.requested_cohort import synthesize_requested

            synthesize_requested(options, console(), query, yes=yes, input_folder=input_folder)
        elif model is not None:
            from flows.sharing import synthesize_with

            synthesize_with(options, console(), model)


@commands.command(epilog="Example:  scanloom translate --set generate.mr_to_ct.splits=[validation,test]")
def translate(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
    input_folder: InputOption = None,
    overrides: SetOption = None,
    device: DeviceOption = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", help="An imported model: the beginning of its hash, or newest. Several: an ensemble."),
    ] = None,
    accept_risk: Annotated[
        str | None,
        typer.Option("--accept-risk", metavar="WHY", help="Translate MR out of the model's scope; stamped on them."),
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Make pseudo-CT volumes from MR, as NIfTI and as DICOM CT series."""
    risk = [] if accept_risk is None else [f"generate.mr_to_ct.accept_risk={json.dumps(accept_risk)}"]
    options = options_of(workspace, config, [*(overrides or ()), *risk], device, debug)
    if not models:
        take_steps(options, ("translate_mr_to_ct",), input_folder)
        return
    with reported(debug):
        from flows.sharing import translate_with

        translate_with(options, console(), models, input_folder)
