"""Commands that only show something: versions, the workspace, settings."""

import typer

from flows.commands.options import ConfigOption, DebugOption, SetOption, WorkspaceOption, console, options_of
from flows.failures import reported
from flows.words import DEFAULT_WORKSPACE

settings_commands = typer.Typer(help="See settings, their schema and the presets.", no_args_is_help=True)
commands = typer.Typer()
commands.add_typer(settings_commands, name="settings")


@commands.command()
def info(workspace: WorkspaceOption = DEFAULT_WORKSPACE, debug: DebugOption = False) -> None:
    """Show versions, the device, presets, and what the workspace holds."""
    with reported(debug):
        from flows.information import print_info

        print_info(console(), workspace)


@settings_commands.command("show", epilog="Example:  scanloom settings show --config demo --set seed=1 > my.yaml")
def settings_show(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
    overrides: SetOption = None,
    debug: DebugOption = False,
) -> None:
    """Print the resolved settings as YAML, every default written out."""
    with reported(debug):
        from flows.requests import load_settings
        from pipeline.settings_loading import to_yaml

        settings, _ = load_settings(options_of(workspace, config, overrides, None, debug))
        typer.echo(to_yaml(settings), nl=False)


@settings_commands.command("schema", epilog="Example:  scanloom settings schema > scanloom.schema.json")
def settings_schema() -> None:
    """Print the JSON schema of the settings, for completion in editors."""
    from flows.information import schema_text

    typer.echo(schema_text())


@settings_commands.command("presets")
def settings_presets() -> None:
    """List the presets that ship with scanloom."""
    from flows.information import print_presets

    print_presets(console())
