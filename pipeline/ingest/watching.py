"""Looking at an input folder from time to time: whether it holds still, and the hash of what it holds then.

A look costs a walk through the folder. Contents are hashed only when two looks found the same names, sizes and times,
into an index of its own, so that a run at work is not disturbed.
"""

from dataclasses import dataclass
from pathlib import Path

from pipeline.deidentify import Pseudonymizer
from pipeline.errors import InputError
from pipeline.files import sha256_json
from pipeline.ingest.file_index import FileIndex, contents, fingerprint
from pipeline.ingest.source_tree import walk
from pipeline.workspace import Workspace

WATCH_INDEX = "watched.sqlite"
"""Name of the index in ``identity/``."""


@dataclass(frozen=True)
class Look:
    """What a look found.

    Attributes:
        state: hash of names, sizes and times.
        fingerprint: the hash of the content that an ingest's key holds as ``input``; None where the folder is empty or
            changed since the look before.
    """

    state: str
    fingerprint: str | None


def look(workspace: Workspace, folder: Path, before: Look | None) -> Look:
    """Look at an input folder.

    Args:
        workspace: its key and index are used.
        folder: the input.
        before: what the look before found; None for a first look.
    """
    try:
        tree = walk(folder, leave_out=workspace.root)
    except InputError:  # nothing there yet
        return Look("", None)
    state = sha256_json([[file.name.encode("utf-8", "replace").decode(), *file[2:]] for file in tree.files])
    if before is None or before.state != state:
        return Look(state, None)
    if before.fingerprint is not None:
        return before
    indexed = FileIndex(workspace.identity / WATCH_INDEX).update(tree)
    return Look(state, fingerprint(contents(tree, indexed), Pseudonymizer(workspace.identity_key())))
