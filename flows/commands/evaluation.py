"""Commands that judge images: those of a run, and those from elsewhere."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import (
    ConfigOption,
    DebugOption,
    DeviceOption,
    EngineOption,
    InputOption,
    OutsideWorkspaceOption,
    SetOption,
    WorkspaceOption,
    console,
    options_of,
    take_steps,
)
from flows.failures import reported
from flows.words import DEFAULT_WORKSPACE, OUTSIDE_WORKSPACE

evaluate_commands = typer.Typer()
commands = typer.Typer()
commands.add_typer(evaluate_commands, name="evaluate")


@evaluate_commands.callback(invoke_without_command=True, epilog="Example:  scanloom evaluate --workspace ~/work")
def evaluate(
    context: typer.Context,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
    input_folder: InputOption = None,
    overrides: SetOption = None,
    device: DeviceOption = None,
    engine: EngineOption = None,
    debug: DebugOption = False,
) -> None:
    """Judge what was generated: fidelity, diversity, memorization and use of lesions; HU errors of pseudo-CT.

    With a command: judge images that scanloom did not make.
    """
    if context.invoked_subcommand is not None:
        _refuse_early_options(context)
        return
    targets = {"lesions": "evaluate_lesions", "mr_to_ct": "evaluate_mr_to_ct"}
    take_steps(options_of(workspace, config, overrides, device, debug, engine), targets, input_folder)


@evaluate_commands.command(
    "lesions", epilog="Example:  scanloom evaluate lesions --real train --test test --synthetic made"
)
def evaluate_lesions(
    real: Annotated[
        Path, typer.Option("--real", help="Real images the generator was trained on: class folders or npz.")
    ],
    synthetic: Annotated[Path, typer.Option("--synthetic", help="Synthetic images of the same classes.")],
    test: Annotated[
        Path | None,
        typer.Option("--test", help="Real images the generator never saw. Without it: a part of --real is held out."),
    ] = None,
    workspace: OutsideWorkspaceOption = OUTSIDE_WORKSPACE,
    config: ConfigOption = None,
    overrides: SetOption = None,
    device: DeviceOption = None,
    debug: DebugOption = False,
) -> None:
    """Judge a synthetic cohort that scanloom did not make, in a workspace of its own, with report."""
    with reported(debug):
        from flows.outside_evaluation import evaluate_cohorts

        options = options_of(workspace, config, overrides, device, debug)
        evaluate_cohorts(options, console(), real=real, synthetic=synthetic, test=test)


@evaluate_commands.command("mr-to-ct", epilog="Example:  scanloom evaluate mr-to-ct --ct ct --pseudo-ct made --mr mr")
def evaluate_mr_to_ct(
    ct: Annotated[Path, typer.Option("--ct", help="Reference CT: NIfTI, MetaImage, NRRD or DICOM.")],
    pseudo_ct: Annotated[Path, typer.Option("--pseudo-ct", help="Pseudo-CT in HU, named like their CT.")],
    mr: Annotated[Path | None, typer.Option("--mr", help="MR on the grid of the CT, for trivial baselines.")] = None,
    mask: Annotated[
        Path | None, typer.Option("--mask", help="Masks, > 0 inside. Without: the CT's body outline.")
    ] = None,
    segmentations: Annotated[
        Path | None, typer.Option("--segmentations", help="Label maps of your segmenter, in ct/ and pseudo-ct/.")
    ] = None,
    workspace: OutsideWorkspaceOption = OUTSIDE_WORKSPACE,
    config: ConfigOption = None,
    overrides: SetOption = None,
    debug: DebugOption = False,
) -> None:
    """Judge pseudo-CT that scanloom did not make: geometry first, then HU errors; in a workspace of its own."""
    with reported(debug):
        from flows.outside_evaluation import evaluate_pseudo_ct

        options = options_of(workspace, config, overrides, None, debug)
        evaluate_pseudo_ct(
            options, console(), ct=ct, pseudo_ct=pseudo_ct, mr=mr, mask=mask, segmentations=segmentations
        )


def _refuse_early_options(context: typer.Context) -> None:
    """Options before the name of a command would be lost without a word.

    Raises:
        typer.BadParameter: there are some.
    """
    source = {name: context.get_parameter_source(name) for name in context.params}
    early = [name for name, found in source.items() if found is not None and found.name == "COMMANDLINE"]
    if early:
        raise typer.BadParameter("options belong behind the command, e.g. `scanloom evaluate lesions --workspace DIR`")
