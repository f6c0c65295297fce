"""From the options of a command to an opened workspace and validated settings."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError, ResourceError, SettingsError, WorkspaceError
from pipeline.files import write_bytes, write_text
from pipeline.settings import RunSettings
from pipeline.settings_loading import find_preset, load, to_yaml
from pipeline.workspace import Workspace

LAST_SETTINGS = "settings.yaml"
"""Settings last accepted in a workspace; commands without --config go on with them."""


@dataclass(frozen=True)
class Options:
    """Options that most commands share.

    Attributes:
        workspace: folder for outputs.
        config: preset name or YAML file; None goes on with the workspace's last settings, or with the defaults.
        overrides: ``key=value`` strings.
        device: overrides the ``device`` setting.
        debug: show tracebacks and Prefect's log.
        engine: where independent pieces are worked on; see `flows.engines`.
    """

    workspace: Path
    config: str | None = None
    overrides: Sequence[str] = ()
    device: str | None = None
    debug: bool = False
    engine: str | None = None


def load_settings(options: Options) -> tuple[RunSettings, str]:
    """Validated settings, and in words where they come from.

    Raises:
        SettingsError: a file, key or value is not valid.
    """
    overrides = [*options.overrides, *([f"device={options.device}"] if options.device else [])]
    last = options.workspace.expanduser() / LAST_SETTINGS
    if options.config is not None:
        return load(find_preset(options.config), overrides), options.config
    if last.is_file():
        return load(last, overrides), "last used in this workspace"
    return load(None, overrides), "defaults"


@contextmanager
def remembered(workspace: Workspace, settings: RunSettings) -> Iterator[None]:
    """Remember the settings in the workspace, unless they or the data are refused in the block.

    They are written before the block, so that a run that was killed goes on with its settings. A typo must not come
    back with the next command: a refusal restores what was remembered before. The workspace should be locked.
    """
    path = workspace.root / LAST_SETTINGS
    before = path.read_bytes() if path.exists() else None
    write_text(path, to_yaml(_without_risk(settings)))
    try:
        yield
    except (SettingsError, InputError, ResourceError, WorkspaceError):
        with suppress(OSError):  # the refusal is what the user must hear of
            if before is None:
                path.unlink()
            else:
                write_bytes(path, before)
        raise


def _without_risk(settings: RunSettings) -> RunSettings:
    """Settings to go on with: a risk is accepted for the command that says so, never for those after it."""
    own = settings.generate.mr_to_ct.model_copy(update={"accept_risk": None})
    return settings.model_copy(update={"generate": settings.generate.model_copy(update={"mr_to_ct": own})})
