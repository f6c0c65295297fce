"""A mark on workspaces that hold evaluations of images from elsewhere, so that no run takes these for its scans."""

from pathlib import Path

from pipeline.errors import WorkspaceError
from pipeline.files import read_json, write_json
from pipeline.ledger import Ledger
from pipeline.stage_runner import RECORD_FILE
from pipeline.workspace import Workspace

_MARK = "outside.json"


def is_outside(workspace: Workspace) -> bool:
    """Whether the workspace is marked."""
    return (workspace.root / _MARK).exists()


def judged_catalogs(workspace: Workspace) -> list[Path]:
    """Catalog folders of the last evaluation; all that there are where none was finished yet."""
    records = {path.parent: read_json(path) for path in sorted(workspace.root.glob(f"ingest/*/{RECORD_FILE}"))}
    ended = [row for row in Ledger(workspace.ledger_path).rows() if row.stage.startswith("evaluate_outside_")]
    for row in reversed(ended):
        made = workspace.stage_folder(row.stage, row.key) / RECORD_FILE
        if made.is_file():
            inputs = set(read_json(made)["inputs"].values())
            return [folder for folder, stored in records.items() if stored["record"]["content_sha256"] in inputs]
    return list(records)


def claim(workspace: Workspace) -> None:
    """Mark a new workspace; a marked one stays as it is.

    Raises:
        WorkspaceError: it is the workspace of a run.
    """
    if is_outside(workspace):
        return
    if Ledger(workspace.ledger_path).rows():
        raise WorkspaceError(
            "Images from elsewhere are judged in a workspace of their own.",
            found="the workspace of scans and trainings",
            allowed="a new folder, or the workspace of an earlier evaluation like this one",
            change="Give another folder with --workspace.",
        )
    write_json(workspace.root / _MARK, {"holds": "evaluations of images from elsewhere"})


def refuse_outside(workspace: Workspace) -> None:
    """Nothing is trained on images that were only given to be judged.

    Raises:
        WorkspaceError: the workspace is marked.
    """
    if is_outside(workspace):
        raise WorkspaceError(
            "A run goes on with the scans that were ingested into its workspace.",
            found="a workspace that holds evaluations of images from elsewhere",
            allowed="the workspace of a run, or --input with a new workspace",
            change="Give another folder with --workspace.",
        )
