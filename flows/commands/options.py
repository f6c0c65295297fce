"""Options that commands share, and what commands do with them.

Whatever a command needs is imported when it runs: help must answer at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.failures import reported

if TYPE_CHECKING:
    from rich.console import Console

    from flows.requests import Options

WorkspaceOption = Annotated[Path, typer.Option("--workspace", "-w", help="Folder that holds everything a run makes.")]
OutsideWorkspaceOption = Annotated[
    Path, typer.Option("--workspace", "-w", help="Folder for this evaluation; not the workspace of a run.")
]
ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config",
        "-c",
        help="Preset name or YAML file. Without it: the settings last used in the workspace, else the defaults.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override one setting, e.g. train.lesions.images=20000. Repeatable."
    ),
]
DeviceOption = Annotated[str | None, typer.Option("--device", help="auto, cuda, mps or cpu.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks and Prefect's log; they may name paths.")]
EngineOption = Annotated[
    str | None,
    typer.Option(
        "--engine",
        help="Where to work on series, volumes and cases: serial, dask, dask:WORKERS or dask:tcp://HOST:PORT.",
    ),
]
InputOption = Annotated[
    Path | None,
    typer.Option("--input", "-i", help="Folder of scans. Without it: the scans ingested last into the workspace."),
]
NeededInputOption = Annotated[
    Path, typer.Option("--input", "-i", help="Folder of scans (or one .npz file); only read.")
]
ResumeOption = Annotated[
    bool,
    typer.Option("--resume/--fresh", help="Go on from the last checkpoint of a stopped training, or start it over."),
]


def options_of(
    workspace: Path,
    config: str | None,
    overrides: list[str] | None,
    device: str | None,
    debug: bool,
    engine: str | None = None,
) -> "Options":
    """What a command was asked, as the flows take it."""
    from flows.requests import Options

    return Options(workspace, config, tuple(overrides or ()), device, debug, engine)


def take_steps(
    options: "Options", targets: dict[str, str] | tuple[str, ...], input_folder: Path | None, *, fresh: bool = False
) -> None:
    """Walk the chain to the targets without Prefect, reporting failures as messages."""
    with reported(options.debug):
        from flows.stage_commands import run_steps

        run_steps(options, targets, console(), input_folder=input_folder, fresh=fresh)


def console() -> "Console":
    """The terminal."""
    from rich.console import Console

    return Console()
