"""The demo's input: digital phantoms written as DICOM and NIfTI beside the workspace."""

from pathlib import Path

from pipeline.files import atomic_folder, folder_manifest, read_json, sha256_json, write_json
from pipeline.records import ProgressCallback, silent
from pipeline.source_hash import source_hash

PHANTOM_KEY = bytes.fromhex("5ca1ab1e" * 8)
"""Fixed pseudonym key of demo workspaces: phantoms have no privacy, and equal runs can be compared."""
INPUT_FOLDER = "demo-input"
_TRUTH = ".demo-input.json"
_SEED = 20


def demo_input(workspace: Path, progress: ProgressCallback = silent) -> Path:
    """Write the phantom cohort beside the workspace, or find it there unchanged.

    Args:
        workspace: the demo's workspace folder.
        progress: told of written subjects.

    Returns:
        The folder of scans.
    """
    from pipeline.phantom.cohort import write_cohort

    folder = workspace.expanduser().resolve().parent / INPUT_FOLDER
    truth_file = folder.parent / _TRUTH
    recipe = sha256_json({"seed": _SEED, "sources": source_hash("pipeline.phantom.cohort")})
    if not _unchanged(folder, truth_file, recipe):
        with atomic_folder(folder) as partial:
            write_cohort(partial, _SEED, on_subject=lambda done, total: progress("phantom subjects", done, total))
        write_json(truth_file, {"recipe": recipe, "files": folder_manifest(folder)})
    return folder


def _unchanged(folder: Path, truth_file: Path, recipe: str) -> bool:
    if not (folder.is_dir() and truth_file.is_file()):
        return False
    truth = read_json(truth_file)
    return bool(truth["recipe"] == recipe and truth["files"] == folder_manifest(folder))
