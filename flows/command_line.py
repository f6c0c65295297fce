"""The command `scanloom`. Only typer is imported here: whatever a command needs is imported when it runs.

Help must answer at once; torch, Prefect and the imaging libraries take seconds to import.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.failures import reported
from flows.words import DEFAULT_WORKSPACE, OUTSIDE_WORKSPACE

if TYPE_CHECKING:
    from rich.console import Console

    from flows.requests import Options

_EPILOG = (
    "First steps:  scanloom demo  ·  scanloom run lesions --input DIR --workspace DIR  ·  scanloom settings presets"
)
app = typer.Typer(
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
train_app = typer.Typer(help="Train one of the two GANs.", no_args_is_help=True)
evaluate_app = typer.Typer()
quarantine_app = typer.Typer(help="See which inputs were set aside, and why.", no_args_is_help=True)
settings_app = typer.Typer(help="See settings, their schema and the presets.", no_args_is_help=True)
app.add_typer(train_app, name="train")
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(quarantine_app, name="quarantine")
app.add_typer(settings_app, name="settings")

_WorkspaceOption = Annotated[Path, typer.Option("--workspace", "-w", help="Folder that holds everything a run makes.")]
_OutsideWorkspaceOption = Annotated[
    Path, typer.Option("--workspace", "-w", help="Folder for this evaluation; not the workspace of a run.")
]
_ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config",
        "-c",
        help="Preset name or YAML file. Without it: the settings last used in the workspace, else the defaults.",
    ),
]
_SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override one setting, e.g. train.lesions.images=20000. Repeatable."
    ),
]
_DeviceOption = Annotated[str | None, typer.Option("--device", help="auto, cuda, mps or cpu.")]
_DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks and Prefect's log; they may name paths.")]
_InputOption = Annotated[
    Path | None,
    typer.Option("--input", "-i", help="Folder of scans. Without it: the scans ingested last into the workspace."),
]
_NeededInputOption = Annotated[
    Path, typer.Option("--input", "-i", help="Folder of scans (or one .npz file); only read.")
]
_ResumeOption = Annotated[
    bool,
    typer.Option("--resume/--fresh", help="Go on from the last checkpoint of a stopped training, or start it over."),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"scanloom {version('scanloom')}")
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Medical scans in; balanced, checked training sets and pseudo-CT out. For research, not for clinical use."""


@app.command(epilog="Example:  scanloom demo --workspace demo-workspace")
def demo(
    workspace: _WorkspaceOption = Path("demo-workspace"),
    overrides: _SetOption = None,
    device: _DeviceOption = None,
    config: Annotated[str, typer.Option("--config", "-c", help="Preset or YAML file for the phantoms.")] = "demo",
    resume: _ResumeOption = True,
    debug: _DebugOption = False,
) -> None:
    """Show the whole thing on digital phantoms: DICOM and NIfTI in, both GANs trained, report out; some minutes."""
    with reported(debug):
        from flows.demo_input import PHANTOM_KEY, demo_input
        from flows.run_command import run_all

        options = _options(workspace, config, overrides, device, debug)
        console = _console()
        with console.status("Writing digital phantoms"):
            folder = demo_input(workspace)
        run_all(options, folder, console, fresh=not resume, identity_key=PHANTOM_KEY)


@app.command(
    epilog="Example:  scanloom run lesions --input ~/scans --workspace ~/work --set train.lesions.images=50000"
)
def run(
    config: Annotated[str, typer.Argument(help="Preset name or YAML file; see `scanloom settings presets`.")],
    input_folder: _NeededInputOption,
    workspace: _WorkspaceOption = DEFAULT_WORKSPACE,
    overrides: _SetOption = None,
    device: _DeviceOption = None,
    resume: _ResumeOption = True,
    debug: _DebugOption = False,
) -> None:
    """Take every step from scans to report as one Prefect flow. What is done already is found, not made again."""
    with reported(debug):
        from flows.run_command import run_all

        options = _options(workspace, config, overrides, device, debug)
        run_all(options, input_folder, _console(), fresh=not resume)


@app.command(epilog="Example:  scanloom ingest --input ~/scans --workspace ~/work")
def ingest(
    input_folder: _NeededInputOption,
    workspace: _WorkspaceOption = DEFAULT_WORKSPACE,
    config: _ConfigOption = None,
    overrides: _SetOption = None,
    debug: _DebugOption = False,
) -> None:
    """Read, check, de-identify and catalog scans; set aside what cannot be trusted, with the reason."""
    _take(_options(workspace, config, overrides, None, debug), ("ingest",), input_folder)


@app.command(epilog="Example:  scanloom prepare --workspace ~/work --config lesions")
def prepare(
    workspace: _WorkspaceOption = DEFAULT_WORKSPACE,
    config: _ConfigOption = None,
    input_folder: _InputOption = None,
    overrides: _SetOption = None,
    debug: _DebugOption = False,
) -> None:
    """Turn the catalog into training arrays for the tracks that the settings name."""
    targets = {"lesions": "prepare_lesions", "mr_to_ct": "prepare_mr_to_ct"}
    _take(_options(workspace, config, overrides, None, debug), targets, input_folder)


@train_app.command("lesions", epilog="Example:  scanloom train lesions --set train.lesions.images=50000")
def train_lesions(
    workspace: _WorkspaceOption = DEFAULT_WORKSPACE,
    config: _ConfigOption = None,
    input_folder: _InputOption = None,
    overrides: _SetOption = None,
    device: _DeviceOption = None,
    resume: _ResumeOption = True,
    debug: _DebugOption = False,
) -> None:
    """Train the conditional DCGAN on lesion crops."""
    options = _options(workspace, config, overrides, device, debug)
    _take(options, ("train_lesions",), input_folder, fresh=not resume)


@train_app.command("mr-to-ct", epilog="Example:  scanloom train mr-to-ct --config mr_to_ct_paired")
def train_mr_to_ct(
    workspace: _WorkspaceOption = DEFAULT_WORKSPACE,
    config: _ConfigOption = None,
    input_folder: _InputOption = None,
    overrides: _SetOption = None,
    device: _DeviceOption = None,
    resume: _ResumeOption = True,
    debug: _DebugOption = False,
) -> None:
    """Train the CycleGAN from MR to CT."""
    options = _options(workspace, config, overrides, device, debug)
    _take(options, ("train_mr_to_ct",), input_folder, fresh=not resume)


@app.command(epilog="Example:  scanloom synthesize --set generate.lesions.per_class=500")
def synthesize(
    workspace: _WorkspaceOption = DEFAULT_WORKSPACE,
    config: _ConfigOption = None,
    input_folder: _InputOption = None,
    overrides: _SetOption = None,
    device: _DeviceOption = None,
    debug: _DebugOption = False,
) -> None:
    """Make a cohort of synthetic lesions by recipe."""
    _take(_options(workspace, config, overrides, device, debug), ("synthesize_lesions",), input_folder)


@app.command(epilog="Example:  scanloom translate --set generate.mr_to_ct.splits=[validation,test]")
def translate(
    workspace: _WorkspaceOption = DEFAULT_WORKSPACE,
    config: _ConfigOption = None,
    input_folder: _InputOption = None,
    overrides: _SetOption = None,
    device: _DeviceOption = None,
    debug: _DebugOption = False,
) -> None:
    """Make pseudo-CT volumes from MR, as NIfTI and as DICOM CT series."""
    _take(_options(workspace, config, overrides, device, debug), ("translate_mr_to_ct",), input_folder)


@evaluate_app.callback(invoke_without_command=True, epilog="Example:  scanloom evaluate --workspace ~/work")
def evaluate(
    context: typer.Context,
    workspace: _WorkspaceOption = DEFAULT_WORKSPACE,
    config: _ConfigOption = None,
    input_folder: _InputOption = None,
    overrides: _SetOption = None,
    device: _DeviceOption = None,
    debug: _DebugOption = False,
) -> None:
    """Judge what was generated: fidelity, diversity, memorization and use of lesions; HU errors of pseudo-CT.

    With a command: judge images that scanloom did not make.
    """
    if context.invoked_subcommand is not None:
        _refuse_early_options(context)
        return
    targets = {"lesions": "evaluate_lesions", "mr_to_ct": "evaluate_mr_to_ct"}
    _take(_options(workspace, config, overrides, device, debug), targets, input_folder)


@evaluate_app.command("lesions", epilog="Example:  scanloom evaluate lesions --real train --test test --synthetic made")
def evaluate_lesions(
    real: Annotated[
        Path, typer.Option("--real", help="Real images the generator was trained on: class folders or npz.")
    ],
    synthetic: Annotated[Path, typer.Option("--synthetic", help="Synthetic images of the same classes.")],
    test: Annotated[
        Path | None,
        typer.Option("--test", help="Real images the generator never saw. Without it: a part of --real is held out."),
    ] = None,
    workspace: _OutsideWorkspaceOption = OUTSIDE_WORKSPACE,
    config: _ConfigOption = None,
    overrides: _SetOption = None,
    device: _DeviceOption = None,
    debug: _DebugOption = False,
) -> None:
    """Judge a synthetic cohort that scanloom did not make, in a workspace of its own, with report."""
    with reported(debug):
        from flows.outside_evaluation import evaluate_cohorts

        options = _options(workspace, config, overrides, device, debug)
        evaluate_cohorts(options, _console(), real=real, synthetic=synthetic, test=test)


@evaluate_app.command("mr-to-ct", epilog="Example:  scanloom evaluate mr-to-ct --ct ct --pseudo-ct made --mr mr")
def evaluate_mr_to_ct(
    ct: Annotated[Path, typer.Option("--ct", help="Reference CT: NIfTI, MetaImage, NRRD or DICOM.")],
    pseudo_ct: Annotated[Path, typer.Option("--pseudo-ct", help="Pseudo-CT in HU, named like their CT.")],
    mr: Annotated[Path | None, typer.Option("--mr", help="MR on the grid of the CT, for trivial baselines.")] = None,
    mask: Annotated[
        Path | None, typer.Option("--mask", help="Masks, > 0 inside. Without: the CT's body outline.")
    ] = None,
    workspace: _OutsideWorkspaceOption = OUTSIDE_WORKSPACE,
    config: _ConfigOption = None,
    overrides: _SetOption = None,
    debug: _DebugOption = False,
) -> None:
    """Judge pseudo-CT that scanloom did not make: geometry first, then HU errors; in a workspace of its own."""
    with reported(debug):
        from flows.outside_evaluation import evaluate_pseudo_ct

        options = _options(workspace, config, overrides, None, debug)
        evaluate_pseudo_ct(options, _console(), ct=ct, pseudo_ct=pseudo_ct, mr=mr, mask=mask)


@app.command(epilog="Example:  scanloom export --workspace ~/work")
def export(
    workspace: _WorkspaceOption = DEFAULT_WORKSPACE,
    config: _ConfigOption = None,
    input_folder: _InputOption = None,
    overrides: _SetOption = None,
    device: _DeviceOption = None,
    debug: _DebugOption = False,
) -> None:
    """Write the augmented dataset: real and synthetic lesion images with provenance."""
    _take(_options(workspace, config, overrides, device, debug), ("export_lesions",), input_folder)


@app.command(epilog="Example:  scanloom report --workspace ~/work")
def report(
    workspace: _WorkspaceOption = DEFAULT_WORKSPACE,
    config: _ConfigOption = None,
    input_folder: _InputOption = None,
    overrides: _SetOption = None,
    device: _DeviceOption = None,
    debug: _DebugOption = False,
) -> None:
    """Write the HTML report, taking every step not done yet; after an ingest alone, a report on the data."""
    _take(_options(workspace, config, overrides, device, debug), ("report",), input_folder)


@app.command()
def info(workspace: _WorkspaceOption = DEFAULT_WORKSPACE, debug: _DebugOption = False) -> None:
    """Show versions, the device, presets, and what the workspace holds."""
    with reported(debug):
        from flows.information import print_info

        print_info(_console(), workspace)


@quarantine_app.command("list", epilog="Example:  scanloom quarantine list --workspace ~/work")
def quarantine_list(workspace: _WorkspaceOption = DEFAULT_WORKSPACE, debug: _DebugOption = False) -> None:
    """List what the last ingest set aside."""
    with reported(debug):
        from flows.information import print_quarantine

        print_quarantine(_console(), workspace)


@quarantine_app.command("retry", epilog="Example:  scanloom quarantine retry --workspace ~/work")
def quarantine_retry(
    identifiers: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Rows to read anew. Without: every row.")
    ] = None,
    workspace: _WorkspaceOption = DEFAULT_WORKSPACE,
    config: _ConfigOption = None,
    overrides: _SetOption = None,
    debug: _DebugOption = False,
) -> None:
    """Read what was set aside anew, e.g. after a change of settings or limits, and ingest the last input again."""
    with reported(debug):
        from flows.retrying import retry_quarantined

        retry_quarantined(_console(), _options(workspace, config, overrides, None, debug), identifiers or [])


@quarantine_app.command("show", epilog="Example:  scanloom quarantine show 3fa9 --workspace ~/work")
def quarantine_show(
    path_hash: Annotated[str, typer.Argument(metavar="ID", help="An id from the list, or its beginning.")],
    workspace: _WorkspaceOption = DEFAULT_WORKSPACE,
    debug: _DebugOption = False,
) -> None:
    """Show one refusal in full: what was found, what to do about it."""
    with reported(debug):
        from flows.information import print_quarantined

        print_quarantined(_console(), workspace, path_hash)


@app.command(epilog="Example:  scanloom forget sub-4f1c09ab2e --workspace ~/work")
def forget(
    subject: Annotated[str | None, typer.Argument(metavar="SUBJECT", help="Its pseudonym, sub-...")] = None,
    workspace: _WorkspaceOption = DEFAULT_WORKSPACE,
    patient_id: Annotated[
        bool, typer.Option("--patient-id", help="Ask for the PatientID instead, or read it from standard input.")
    ] = False,
    models: Annotated[
        bool, typer.Option("--models", help="Also delete trained models that saw it, and their synthetic cohorts.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    debug: _DebugOption = False,
) -> None:
    """Erase one subject from a workspace: its scans, what was made from them, and who it is. Lists first, then asks."""
    with reported(debug):
        from flows.forgetting import forget_subject

        forget_subject(_console(), workspace, subject, patient_id=patient_id, yes=yes, models=models)


@settings_app.command("show", epilog="Example:  scanloom settings show --config demo --set seed=1 > my.yaml")
def settings_show(
    workspace: _WorkspaceOption = DEFAULT_WORKSPACE,
    config: _ConfigOption = None,
    overrides: _SetOption = None,
    debug: _DebugOption = False,
) -> None:
    """Print the resolved settings as YAML, every default written out."""
    with reported(debug):
        from flows.requests import load_settings
        from pipeline.settings_loading import to_yaml

        settings, _ = load_settings(_options(workspace, config, overrides, None, debug))
        typer.echo(to_yaml(settings), nl=False)


@settings_app.command("schema", epilog="Example:  scanloom settings schema > scanloom.schema.json")
def settings_schema() -> None:
    """Print the JSON schema of the settings, for completion in editors."""
    from flows.information import schema_text

    typer.echo(schema_text())


@settings_app.command("presets")
def settings_presets() -> None:
    """List the presets that ship with scanloom."""
    from flows.information import print_presets

    print_presets(_console())


def main() -> None:
    """Entry point of the command."""
    # Waiting threads that spin starve the working ones on a shared machine: a lesion GAN step took 0.09 s instead of
    # 0.4 to 1.5 s on two busy cores. OpenMP reads this when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A number of threads that follows the machine's load would change the order of sums, and with it the last bits.
    os.environ.setdefault("MKL_DYNAMIC", "FALSE")
    app(prog_name="scanloom")


def _refuse_early_options(context: typer.Context) -> None:
    """Options before the name of a command would be lost without a word.

    Raises:
        typer.BadParameter: there are some.
    """
    source = {name: context.get_parameter_source(name) for name in context.params}
    early = [name for name, found in source.items() if found is not None and found.name == "COMMANDLINE"]
    if early:
        raise typer.BadParameter("options belong behind the command, e.g. `scanloom evaluate lesions --workspace DIR`")


def _options(
    workspace: Path, config: str | None, overrides: list[str] | None, device: str | None, debug: bool
) -> "Options":
    from flows.requests import Options

    return Options(workspace, config, tuple(overrides or ()), device, debug)


def _take(
    options: "Options", targets: dict[str, str] | tuple[str, ...], input_folder: Path | None, *, fresh: bool = False
) -> None:
    """Walk the chain to the targets without Prefect, reporting failures as messages."""
    with reported(options.debug):
        from flows.stage_commands import run_steps

        run_steps(options, targets, _console(), input_folder=input_folder, fresh=fresh)


def _console() -> "Console":
    from rich.console import Console

    return Console()
