"""The command `scanloom`. Only typer is imported here: whatever a command needs is imported when it runs.

Help must answer at once; torch, Prefect and the imaging libraries take seconds to import.
"""

import os
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from flows.commands import (
    evaluation,
    gans,
    information,
    inputs,
    outputs,
    placement,
    scheduling,
    sharing,
    upkeep,
    whole_runs,
)
from flows.words import TORCHRUN_VARIABLE

_EPILOG = (
    "First steps:  scanloom demo  ·  scanloom run lesions --input DIR --workspace DIR  ·  scanloom settings presets"
)
_HELP_ORDER = (
    *("demo", "run", "ingest", "prepare", "synthesize", "place-lesions", "translate", "export", "report"),
    *("export-model", "import-model", "info", "forget"),
    *("plan", "status", "repair", "gc"),
    *("serve", "deploy", "watch", "notify"),
    *("train", "evaluate", "quarantine", "settings", "site", "server"),
)


class _Ordered(TyperGroup):
    """Lists commands in the order of work, then groups of commands; what `_HELP_ORDER` lacks comes last."""

    def list_commands(self, context: Any) -> list[str]:
        place = {name: number for number, name in enumerate(_HELP_ORDER)}
        return sorted(super().list_commands(context), key=lambda name: place.get(name, len(place)))


app = typer.Typer(
    cls=_Ordered,
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for module in (whole_runs, inputs, gans, placement, evaluation, outputs, sharing, information, upkeep, scheduling):
    app.add_typer(module.commands)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"scanloom {version('scanloom')}")
        raise typer.Exit


@app.callback()
def about(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Medical scans in; balanced, checked training sets and pseudo-CT out. For research, not for clinical use."""
    if TORCHRUN_VARIABLE in os.environ and context.invoked_subcommand != "train":
        typer.echo("error: torchrun starts trainings only: scanloom train lesions, scanloom train mr-to-ct", err=True)
        raise typer.Exit(2)


def main() -> None:
    """Entry point of the command."""
    # Waiting threads that spin starve the working ones on a shared machine: a lesion GAN step took 0.09 s instead of
    # 0.4 to 1.5 s on two busy cores. OpenMP reads this when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A number of threads that follows the machine's load would change the order of sums, and with it the last bits.
    os.environ.setdefault("MKL_DYNAMIC", "FALSE")
    app(prog_name="scanloom")


if __name__ == "__main__":
    main()
