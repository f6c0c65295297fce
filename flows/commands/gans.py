"""Commands that prepare, train and use the two GANs."""

import typer

from flows.commands.options import (
    ConfigOption,
    DebugOption,
    DeviceOption,
    InputOption,
    ResumeOption,
    SetOption,
    WorkspaceOption,
    options_of,
    take_steps,
)
from flows.words import DEFAULT_WORKSPACE

train_commands = typer.Typer(help="Train one of the two GANs.", no_args_is_help=True)
commands = typer.Typer()
commands.add_typer(train_commands, name="train")


@commands.command(epilog="Example:  scanloom prepare --workspace ~/work --config lesions")
def prepare(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
    input_folder: InputOption = None,
    overrides: SetOption = None,
    debug: DebugOption = False,
) -> None:
    """Turn the catalog into training arrays for the tracks that the settings name."""
    targets = {"lesions": "prepare_lesions", "mr_to_ct": "prepare_mr_to_ct"}
    take_steps(options_of(workspace, config, overrides, None, debug), targets, input_folder)


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
    """Train the conditional DCGAN on lesion crops."""
    options = options_of(workspace, config, overrides, device, debug)
    take_steps(options, ("train_lesions",), input_folder, fresh=not resume)


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
    """Train the CycleGAN from MR to CT."""
    options = options_of(workspace, config, overrides, device, debug)
    take_steps(options, ("train_mr_to_ct",), input_folder, fresh=not resume)


@commands.command(epilog="Example:  scanloom synthesize --set generate.lesions.per_class=500")
def synthesize(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
    input_folder: InputOption = None,
    overrides: SetOption = None,
    device: DeviceOption = None,
    debug: DebugOption = False,
) -> None:
    """Make a cohort of synthetic lesions by recipe."""
    take_steps(options_of(workspace, config, overrides, device, debug), ("synthesize_lesions",), input_folder)


@commands.command(epilog="Example:  scanloom translate --set generate.mr_to_ct.splits=[validation,test]")
def translate(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
    input_folder: InputOption = None,
    overrides: SetOption = None,
    device: DeviceOption = None,
    debug: DebugOption = False,
) -> None:
    """Make pseudo-CT volumes from MR, as NIfTI and as DICOM CT series."""
    take_steps(options_of(workspace, config, overrides, device, debug), ("translate_mr_to_ct",), input_folder)
