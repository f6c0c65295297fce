"""A mark on workspaces that hold evaluations of images from elsewhere, so that no run takes these for its scans."""

from pipeline.errors import WorkspaceError
from pipeline.files import write_json
from pipeline.ledger import Ledger
from pipeline.workspace import Workspace

_MARK = "outside.json"


def is_outside(workspace: Workspace) -> bool:
    """Whether the workspace is marked."""
    return (workspace.root / _MARK).exists()


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
