"""Commands that put flows on a schedule: sites, deployments, the service of a workstation, a server, notifications."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.options import DebugOption, SetOption, console
from flows.failures import reported

if TYPE_CHECKING:
    from flows.deployment_file import DeploymentEntry

site_commands = typer.Typer(help="Name inputs and workspaces of this machine, for flows.", no_args_is_help=True)
server_commands = typer.Typer(help="Prefect's server with its pages, on this machine.", no_args_is_help=True)
commands = typer.Typer()
commands.add_typer(site_commands, name="site")
commands.add_typer(server_commands, name="server")

FileArgument = Annotated[Path, typer.Argument(metavar="[FILE]", help="Deployments, in the form of a prefect.yaml.")]
SiteOption = Annotated[str | None, typer.Option("--site", help="One deployment for this site, instead of a file.")]
FlowOption = Annotated[
    str,
    typer.Option("--flow", help="ingest, train-lesions, train-mr-to-ct, synthesize, translate, evaluate or augment."),
]
CronOption = Annotated[str | None, typer.Option("--cron", help="When, e.g. '0 2 * * *' for every night at two.")]
TimezoneOption = Annotated[str | None, typer.Option("--timezone", help="Of --cron, e.g. Europe/Berlin; else UTC.")]
IntervalOption = Annotated[float | None, typer.Option("--interval", help="Minutes between two runs.")]
NewDataOption = Annotated[bool, typer.Option("--new-data", help="Run when the site's input holds new scans.")]
PortOption = Annotated[int, typer.Option("--port", help="Port of Prefect's server and pages.")]
LookOption = Annotated[float, typer.Option("--look-interval", min=1, help="Seconds between two looks for new scans.")]
PREFECT_YAML = Path("prefect.yaml")


@site_commands.command("add", epilog="Example:  scanloom site add nightly -i /data/in -w /data/work -c lesions")
def site_add(
    name: Annotated[str, typer.Argument(help="Shown in Prefect: lower-case letters, digits, hyphens; no patient.")],
    input_folder: Annotated[Path, typer.Option("--input", "-i", help="Folder of scans; only read.")],
    workspace: Annotated[Path, typer.Option("--workspace", "-w", help="Folder that holds everything a run makes.")],
    config: Annotated[str | None, typer.Option("--config", "-c", help="Preset name or YAML file.")] = None,
    overrides: SetOption = None,
    debug: DebugOption = False,
) -> None:
    """Keep an input, a workspace and settings under a name, in a file that only you can read."""
    with reported(debug):
        from flows.requests import load_settings
        from flows.sites import Site, write_site

        paths = [path.expanduser().resolve() for path in (input_folder, workspace)]
        site = Site(input=paths[0], workspace=paths[1], config=config, set=tuple(overrides or ()))
        load_settings(site.options())
        write_site(name, site)
        console().print(f"site {name} is kept on this machine; use it in deployments as site: {name}", highlight=False)


@site_commands.command("list")
def site_list(debug: DebugOption = False) -> None:
    """List the sites of this machine; their paths are shown to you only."""
    with reported(debug):
        from flows.sites import read_site, site_names

        for name in site_names():
            site = read_site(name)
            text = f"{name:20} {site.input} -> {site.workspace} ({site.config or 'settings last used'})"
            console().print(text, markup=False, highlight=False, soft_wrap=True)


@commands.command(epilog="Example:  scanloom deploy --site nightly --cron '0 2 * * *' --timezone Europe/Berlin")
def deploy(
    file: FileArgument = PREFECT_YAML,
    site: SiteOption = None,
    flow: FlowOption = "augment",
    cron: CronOption = None,
    timezone: TimezoneOption = None,
    interval: IntervalOption = None,
    new_data: NewDataOption = False,
    example: Annotated[bool, typer.Option("--example", help="Print an example of FILE and end.")] = False,
    debug: DebugOption = False,
) -> None:
    """Register deployments at the Prefect server, for the workers of a process work pool."""
    with reported(debug):
        from flows.deployment_file import TEMPLATE

        if example:
            typer.echo(TEMPLATE.read_text(encoding="utf-8"), nl=False)
            return
        from flows.deploying import deploy as register_all

        entries = _entries(file, site, flow, cron, timezone, interval, new_data)
        register_all(console(), entries, debug=debug)


@commands.command(epilog="Example:  scanloom serve --site nightly --cron '0 2 * * *' --timezone Europe/Berlin")
def serve(
    file: FileArgument = PREFECT_YAML,
    site: SiteOption = None,
    flow: FlowOption = "augment",
    cron: CronOption = None,
    timezone: TimezoneOption = None,
    interval: IntervalOption = None,
    new_data: NewDataOption = False,
    port: PortOption = 4200,
    reports_port: Annotated[int, typer.Option("--reports-port", help="Port where reports are shown to you.")] = 4280,
    look_interval: LookOption = 60.0,
    debug: DebugOption = False,
) -> None:
    """Run schedule, worker, server and pages of a workstation in one process, until Ctrl-C or SIGTERM."""
    with reported(debug):
        from flows.service import serve as serve_all

        entries = _entries(file, site, flow, cron, timezone, interval, new_data)
        serve_all(console(), entries, port=port, reports_port=reports_port, look_interval_s=look_interval, debug=debug)


@commands.command(epilog="Example:  scanloom watch --once")
def watch(
    once: Annotated[bool, typer.Option("--once", help="Look twice, --look-interval apart, then end.")] = False,
    look_interval: LookOption = 60.0,
    debug: DebugOption = False,
) -> None:
    """Start deployments of the tag new-data when the input of their site holds new scans; `serve` does this itself."""
    with reported(debug):
        from flows.deploying import watch as watch_all

        watch_all(console(), once=once, interval_s=look_interval, debug=debug)


@server_commands.command("start", epilog="Example:  scanloom server start --port 4200")
def server_start(port: PortOption = 4200, debug: DebugOption = False) -> None:
    """Serve Prefect's API and pages on 127.0.0.1, until Ctrl-C or SIGTERM. The database lies in SCANLOOM_HOME."""
    with reported(debug):
        from flows.server import serve_pages

        serve_pages(console(), port, debug=debug)


@commands.command(epilog="Example:  scanloom notify slack-webhook/ward")
def notify(
    block: Annotated[str, typer.Argument(help="A notification block of the Prefect server, type/name.")],
    debug: DebugOption = False,
) -> None:
    """Have the Prefect server tell people of failed runs, alarms of trainings and verdicts of evaluations."""
    with reported(debug):
        from flows.deploying import notify as install

        install(console(), block, debug=debug)


def _entries(
    file: Path,
    site: str | None,
    flow: str,
    cron: str | None,
    timezone: str | None,
    interval: float | None,
    new_data: bool,
) -> "tuple[DeploymentEntry, ...]":
    from flows.deployment_file import quick_deployment, read_deployments

    if site is None:
        return read_deployments(file)
    return (quick_deployment(site, flow, cron=cron, timezone=timezone, interval_minutes=interval, new_data=new_data),)
