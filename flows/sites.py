"""Sites: which input goes with which workspace and settings, by a name that may be shown.

A deployment must know what to work on, and Prefect must not be told paths: an input folder may name a patient. So a
deployment's parameters hold the *name* of a site, and this machine keeps what the name stands for in a file that only
its owner may read. On another machine the same name may stand for other folders.

    $SCANLOOM_HOME/sites/NAME.yaml      mode 600, in a folder of mode 700; SCANLOOM_HOME is ~/.scanloom unless set
"""

import os
import re
import stat
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from flows.requests import Options
from pipeline.errors import SettingsError
from pipeline.files import write_text

NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,39}$"
"""Names of sites: short, lower case; they are shown in Prefect and in addresses."""


class Site(BaseModel):
    """What a site's file holds.

    Attributes:
        input: folder of scans; only read.
        workspace: folder for outputs.
        config: preset name or YAML file; None goes on with the workspace's last settings.
        set: ``key=value`` overrides.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    input: Path
    workspace: Path
    config: str | None = None
    set: tuple[str, ...] = ()

    def options(self, overrides: tuple[str, ...] = (), device: str | None = None) -> Options:
        """The site as options of a command; ``overrides`` come after the site's own."""
        return Options(self.workspace, self.config, (*self.set, *overrides), device)


def home() -> Path:
    """Folder of sites and of the database of `scanloom server start`."""
    return Path(os.environ.get("SCANLOOM_HOME") or "~/.scanloom").expanduser().resolve()


def site_names() -> list[str]:
    """Names of the sites that this machine knows."""
    return sorted(path.stem for path in (home() / "sites").glob("*.yaml"))


def write_site(name: str, site: Site) -> Path:
    """Keep a site, readable by its owner only; an older one of the name is replaced.

    Raises:
        SettingsError: the name is none.
    """
    path = _path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    before = os.umask(0o077)
    try:
        write_text(path, yaml.safe_dump(site.model_dump(mode="json"), sort_keys=False))
    finally:
        os.umask(before)
    return path


def read_site(name: str) -> Site:
    """The site of a name.

    Raises:
        SettingsError: no such site here, others may read its file, or it is not valid.
    """
    path = _path(name)
    if not path.is_file():
        raise SettingsError(
            "A flow works on a site that this machine knows.",
            found=f"no site {name!r} here",
            allowed=", ".join(site_names()) or "none yet",
            change="Add it on this machine: scanloom site add NAME --input DIR --workspace DIR --config PRESET",
        )
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise SettingsError(
            "A site's file may be readable by its owner only: its paths may name patients.",
            found=f"mode {stat.S_IMODE(path.stat().st_mode):o} of the file of site {name!r}",
            allowed="mode 600",
            change="chmod 600 the file in $SCANLOOM_HOME/sites.",
        )
    try:
        return Site.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValidationError, yaml.YAMLError) as error:
        raise SettingsError(
            "A site's file holds input, workspace and, if wanted, config and set.",
            found=f"site {name!r} is not valid ({type(error).__name__})",
            allowed="input: DIR, workspace: DIR, config: PRESET, set: [key=value]",
            change=f"Write it again: scanloom site add {name} --input DIR --workspace DIR --config PRESET",
        ) from None


def _path(name: str) -> Path:
    if not re.match(NAME_PATTERN, name):
        raise SettingsError(
            "The name of a site is shown in Prefect and in addresses.",
            found=f"{len(name)} characters that are no such name",
            allowed="1 to 40 lower-case letters, digits and hyphens, e.g. nightly",
            change="Give the site another name, one that says nothing of a patient.",
        )
    return home() / "sites" / f"{name}.yaml"
