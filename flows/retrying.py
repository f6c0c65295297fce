"""What `scanloom quarantine retry` does: forget refusals, ingest the last input again, tell what changed."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from flows.information import existing_workspace, quarantine_rows
from flows.outside_workspace import is_outside
from flows.requests import Options
from flows.stage_commands import run_steps
from flows.words import counted, workspace_option
from pipeline.errors import InputError
from pipeline.files import read_json
from pipeline.ingest.retries import last_input, retry
from pipeline.lease import held


def retry_quarantined(console: Console, options: Options, ids: Sequence[str]) -> None:
    """Parse quarantined files anew.

    Args:
        console: where the outcome goes; it shows no file names.
        options: workspace and settings.
        ids: beginnings of row ids; none for every row.

    Raises:
        InputError: an id that names no row or several, or no input to read again.
    """
    workspace = existing_workspace(options.workspace)
    before = quarantine_rows(options.workspace)
    hashes = [_row_id(before, item, options.workspace) for item in ids]
    if is_outside(workspace):
        with held(workspace, "quarantine retry"):
            retry(workspace.identity, _names(workspace.identity, hashes) if hashes else None)
        console.print("Give the same `scanloom evaluate` command again: what was refused is read anew.")
        return
    source = last_input(workspace.identity)
    if source is None or not source.exists():
        raise InputError(
            "Quarantined files can be read again where their input still is.",
            found="no input that was ingested into this workspace" if source is None else "an input that is gone",
            allowed="the folder that was ingested last, where it was",
            change="Put the input back, or run `scanloom ingest --input DIR` again.",
        )
    names = _names(workspace.identity, hashes) if hashes else None
    with held(workspace, "quarantine retry"):
        retry(workspace.identity, names)
    run_steps(options, ("ingest",), console, input_folder=source)
    _print_changes(console, before, quarantine_rows(options.workspace))


def _row_id(rows: Sequence[dict[str, object]], beginning: str, workspace: Path) -> str:
    found = sorted({str(row["path_hash"]) for row in rows if str(row["path_hash"]).startswith(beginning)})
    if len(found) == 1:
        return found[0]
    raise InputError(
        "Each id must name one row of the quarantine.",
        found=f"{beginning}: {counted(len(found), 'row')}",
        allowed="ids, or their beginnings",
        change=f"Copy ids from `scanloom quarantine list{workspace_option(workspace)}`.",
    )


def _names(identity: Path, hashes: Sequence[str]) -> set[str]:
    known: dict[str, str] = {}
    for path in sorted(identity.glob("crosswalk-*.json")):
        known |= read_json(path)["paths"]
    return {known[item] for item in hashes if item in known}


def _print_changes(console: Console, before: Sequence[dict[str, object]], after: Sequence[dict[str, object]]) -> None:
    ids = [{str(row["path_hash"]) for row in rows} for rows in (before, after)]
    gone, stays, new = len(ids[0] - ids[1]), len(ids[0] & ids[1]), len(ids[1] - ids[0])
    console.print(f"\nTried again: {gone} no longer refused, {stays} still refused, {new} refused anew.")
    for reason, count in Counter(sorted(str(row["reason"]) for row in after)).most_common():
        console.print(f"  {reason:24} {count}", markup=False, highlight=False)
