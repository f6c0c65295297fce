"""Commands for what comes in: ingest, what was set aside, and who is forgotten."""

from typing import Annotated

import typer

from flows.commands.options import (
    ConfigOption,
    DebugOption,
    EngineOption,
    NeededInputOption,
    SetOption,
    WorkspaceOption,
    console,
    options_of,
    take_steps,
)
from flows.failures import reported
from flows.words import DEFAULT_WORKSPACE

quarantine_commands = typer.Typer(help="See which inputs were set aside, and why.", no_args_is_help=True)
commands = typer.Typer()
commands.add_typer(quarantine_commands, name="quarantine")


@commands.command(epilog="Example:  scanloom ingest --input ~/scans --workspace ~/work")
def ingest(
    input_folder: NeededInputOption,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
    overrides: SetOption = None,
    engine: EngineOption = None,
    debug: DebugOption = False,
) -> None:
    """Read, check, de-identify and catalog scans; set aside what cannot be trusted, with the reason."""
    take_steps(options_of(workspace, config, overrides, None, debug, engine), ("ingest",), input_folder)


@quarantine_commands.command("list", epilog="Example:  scanloom quarantine list --workspace ~/work")
def quarantine_list(workspace: WorkspaceOption = DEFAULT_WORKSPACE, debug: DebugOption = False) -> None:
    """List what the last ingest set aside."""
    with reported(debug):
        from flows.information import print_quarantine

        print_quarantine(console(), workspace)


@quarantine_commands.command("retry", epilog="Example:  scanloom quarantine retry --workspace ~/work")
def quarantine_retry(
    identifiers: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Rows to read anew. Without: every row.")
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
    overrides: SetOption = None,
    debug: DebugOption = False,
) -> None:
    """Read what was set aside anew, e.g. after a change of settings or limits, and ingest the last input again."""
    with reported(debug):
        from flows.retrying import retry_quarantined

        retry_quarantined(console(), options_of(workspace, config, overrides, None, debug), identifiers or [])


@quarantine_commands.command("show", epilog="Example:  scanloom quarantine show 3fa9 --workspace ~/work")
def quarantine_show(
    path_hash: Annotated[str, typer.Argument(metavar="ID", help="An id from the list, or its beginning.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    debug: DebugOption = False,
) -> None:
    """Show one refusal in full: what was found, what to do about it."""
    with reported(debug):
        from flows.information import print_quarantined

        print_quarantined(console(), workspace, path_hash)


@commands.command(epilog="Example:  scanloom forget sub-4f1c09ab2e --workspace ~/work")
def forget(
    subject: Annotated[str | None, typer.Argument(metavar="SUBJECT", help="Its pseudonym, sub-...")] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    patient_id: Annotated[
        bool, typer.Option("--patient-id", help="Ask for the PatientID instead, or read it from standard input.")
    ] = False,
    models: Annotated[
        bool, typer.Option("--models", help="Also delete trained models that saw it, and their synthetic cohorts.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    debug: DebugOption = False,
) -> None:
    """Erase one subject from a workspace: its scans, what was made from them, and who it is. Lists first, then asks."""
    with reported(debug):
        from flows.forgetting import forget_subject

        forget_subject(console(), workspace, subject, patient_id=patient_id, yes=yes, models=models)
