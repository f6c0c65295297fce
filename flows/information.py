"""What `scanloom info`, `quarantine` and `settings` print."""

import json
import platform
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.chain import newest_catalog
from flows.outside_workspace import is_outside, judged_catalogs
from flows.progress import duration
from flows.words import workspace_option
from pipeline.errors import InputError, WorkspaceError
from pipeline.ledger import Ledger
from pipeline.workspace import Workspace

_PACKAGES = ("scanloom", "torch", "monai", "prefect", "pydicom", "nibabel", "simpleitk", "numpy", "polars")


def print_info(console: Console, workspace: Path) -> None:
    """Print versions, device, presets, and what the workspace holds."""
    from pipeline.device import available_memory_bytes, choose_device, describe_device
    from pipeline.settings_loading import preset_names

    rows = {
        "versions": ", ".join(f"{name} {_version(name)}" for name in _PACKAGES),
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "device": describe_device(choose_device("auto")),
        "free memory": f"{available_memory_bytes() / 1e9:.1f} GB",
        "presets": ", ".join(preset_names()),
        "workspace": str(workspace.expanduser().resolve()),
    }
    for key, value in rows.items():
        console.print(f"{key:12} {value}", markup=False, highlight=False, soft_wrap=True)
    if (workspace.expanduser() / "workspace.json").is_file():
        _print_ledger(console, workspace)
    else:
        console.print(f"{'':12} (nothing there yet)", style="dim")


def print_quarantine(console: Console, workspace: Path) -> None:
    """List what the last ingest set aside: one line a refusal."""
    rows = quarantine_rows(workspace)
    if not rows:
        console.print("Nothing is in quarantine.")
        return
    counts = Counter(sorted(str(row["reason"]) for row in rows)).most_common()
    console.print(", ".join(f"{count} {reason}" for reason, count in counts), markup=False, highlight=False)
    table = Table()
    for heading in ("id", "reason", "files", "found"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(str(row["path_hash"]), str(row["reason"]), str(row["files"]), str(row["found"]))
    console.print(table)
    for hint in ("More on one of them: scanloom quarantine show ID", "Read them anew: scanloom quarantine retry"):
        text = hint + workspace_option(workspace)
        console.print(text, style="dim", markup=False, highlight=False, soft_wrap=True)


def print_quarantined(console: Console, workspace: Path, path_hash: str) -> None:
    """Show one refusal in full.

    Raises:
        InputError: no row has this id.
    """
    rows = quarantine_rows(workspace)
    found = [row for row in rows if str(row["path_hash"]).startswith(path_hash)]
    if len(found) != 1:
        raise InputError(
            "The id must name one row of the quarantine.",
            found=f"{path_hash}: {len(found)} rows",
            allowed=", ".join(str(row["path_hash"]) for row in rows) or "none: the quarantine is empty",
            change=f"Copy an id from `scanloom quarantine list{workspace_option(workspace)}`.",
        )
    for key in ("path_hash", "reason", "files", "found", "advice"):
        console.print(f"{key:10} {found[0][key]}", markup=False, highlight=False, soft_wrap=True)
    console.print(
        "Which file it was is known only to the workspace's identity/ folder, for it may name a patient.", style="dim"
    )


def schema_text() -> str:
    """JSON schema of the settings, for editors."""
    from pipeline.settings_loading import json_schema

    return json.dumps(json_schema(), indent=2)


def print_presets(console: Console) -> None:
    """List presets with the first sentence of their comments."""
    from pipeline.settings_loading import find_preset, preset_names

    for name in preset_names():
        first = find_preset(name).read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        console.print(f"{name:22} {first}", markup=False, highlight=False, soft_wrap=True)


def existing_workspace(folder: Path) -> Workspace:
    """Open a workspace that exists; never makes one.

    Raises:
        WorkspaceError: there is none.
    """
    if not (folder.expanduser() / "workspace.json").is_file():
        raise WorkspaceError(
            "This command reads a workspace.",
            found=f"no workspace at {folder}",
            allowed="a folder in which a scanloom command ran before",
            change="Give it with --workspace, or run `scanloom ingest` first.",
        )
    return Workspace.open(folder)


def quarantine_rows(folder: Path) -> list[dict[str, Any]]:
    """Rows of the last ingest: of its catalog, or, where it refused everything and left none, those kept in logs/.

    An evaluation of images from elsewhere ingests several folders: all of them count.
    """
    from pipeline.catalog import read_quarantine

    workspace = existing_workspace(folder)
    for row in reversed(Ledger(workspace.ledger_path).rows("ingest")):
        kept = workspace.root / "logs" / f"quarantine-{row.key[:16]}.parquet"
        if row.state == "failed" and kept.is_file():
            return read_quarantine(kept)
        if row.state in {"completed", "cached"}:
            break
    if is_outside(workspace):
        tables = [folder / "quarantine.parquet" for folder in judged_catalogs(workspace)]
        return [row for path in tables for row in read_quarantine(path)]
    return read_quarantine(newest_catalog(workspace).path(workspace.root) / "quarantine.parquet")


def _print_ledger(console: Console, folder: Path) -> None:
    workspace = existing_workspace(folder)
    rows = Ledger(workspace.ledger_path).rows()
    if not rows:
        console.print(f"{'':12} (no step ran yet)", style="dim")
        return
    table = Table(title="Last run of each step", title_justify="left")
    for heading in ("step", "state", "key", "took", "runs"):
        table.add_column(heading, justify="right" if heading in {"took", "runs"} else "left")
    for stage in dict.fromkeys(row.stage for row in rows):
        of_stage = [row for row in rows if row.stage == stage]
        last = of_stage[-1]
        took = "" if last.seconds is None else duration(last.seconds)
        table.add_row(stage, last.state, last.key[:16], took, str(len(of_stage)))
    console.print(table)
    failed = [row for row in rows if row.state == "failed"]
    if failed:
        console.print(f"last failure, in {failed[-1].stage}:\n{failed[-1].message}", markup=False, highlight=False)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
