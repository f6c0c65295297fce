"""What may go from a workspace: half outputs that nothing goes on with, and outputs that nothing current needs.

Kept are, for every stage, its newest outputs and all that they were made from, in however many steps; the models that
were imported and what was exported or placed, with what they were made from; partial outputs that a stopped stage goes
on with. The order is that of the ledger, never of the clock.
"""

import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.files import PARTIAL_SUFFIX, read_json
from pipeline.ledger import Ledger
from pipeline.lineage import LEFTOVERS
from pipeline.promotions import promoted_models
from pipeline.stage_runner import RECORD_FILE
from pipeline.workspace import Workspace

_NO_STAGES = frozenset({"identity", "logs"})


@dataclass(frozen=True)
class Removal:
    """Something that may go.

    Attributes:
        path: folder or file.
        why: in words.
        bytes: its size.
    """

    path: Path
    why: str
    bytes: int


def half_outputs(workspace: Workspace, resumable: Collection[str]) -> list[Removal]:
    """What killed processes left: partial folders that nothing goes on with, retired folders, half files.

    Args:
        workspace: nobody else may write to it now.
        resumable: stages that go on with a partial folder.
    """
    found = []
    for folder in _outputs(workspace):
        if folder.suffix == ".retired":
            found.append(_removal(folder, "replaced output"))
        elif folder.suffix == PARTIAL_SUFFIX and folder.with_suffix("").exists():
            found.append(_removal(folder, "partial output of what is finished by now"))
        elif folder.suffix == PARTIAL_SUFFIX and folder.parent.name not in resumable:
            found.append(_removal(folder, "half output"))
    for place in (workspace.root, workspace.identity, workspace.root / "logs"):
        found += [_removal(path, "half file") for path in sorted(place.glob(f"*{PARTIAL_SUFFIX}")) if path.is_file()]
    return found


def superseded(workspace: Workspace, current: Collection[str], *, keep: int = 1) -> list[Removal]:
    """Outputs of ``current`` stages that nothing needs any more, and what was set aside as damaged.

    Args:
        workspace: nobody else may write to it now.
        current: stages of which only the newest outputs are kept; outputs of all others are kept.
        keep: how many outputs of each stage are kept.
    """
    folders = [folder for folder in _outputs(workspace) if folder.suffix not in LEFTOVERS]
    made_from = {folder: _contents(folder) for folder in folders}
    in_use = {workspace.root / model.folder for model in promoted_models(workspace).values()}
    needed = _newest(workspace, folders, current, keep) | (in_use & set(folders))
    waiting = list(needed)
    by_content: dict[str, list[Path]] = {}
    for folder, (content, _) in made_from.items():
        by_content.setdefault(content, []).append(folder)
    while waiting:
        _, inputs = made_from[waiting.pop()]
        for folder in (folder for content in inputs for folder in by_content.get(content, ())):
            if folder not in needed:
                needed.add(folder)
                waiting.append(folder)
    gone = [_removal(folder, "nothing current needs it") for folder in folders if folder not in needed]
    gone += [_removal(folder, "damaged") for folder in _outputs(workspace) if folder.suffix == ".damaged"]
    live = _last_partials(workspace, keep)
    partials = [folder for folder in _outputs(workspace) if folder.suffix == PARTIAL_SUFFIX]
    return gone + [_removal(folder, "stopped under settings of long ago") for folder in partials if folder not in live]


def remove(removals: Sequence[Removal]) -> int:
    """Remove; returns how many bytes were freed. A folder gets another name first, so that none is left half."""
    freed = 0
    for removal in removals:
        if removal.path.is_dir():
            doomed = removal.path if removal.path.suffix in LEFTOVERS else removal.path.with_suffix(".retired")
            if doomed != removal.path:
                shutil.rmtree(doomed, ignore_errors=True)
                removal.path.rename(doomed)
            shutil.rmtree(doomed)
        else:
            removal.path.unlink(missing_ok=True)
        freed += removal.bytes
    return freed


def _outputs(workspace: Workspace) -> list[Path]:
    return [
        folder
        for folder in sorted(workspace.root.glob("*/*"))
        if folder.is_dir() and folder.parent.name not in _NO_STAGES and not folder.parent.name.startswith(".")
    ]


def _newest(workspace: Workspace, folders: Sequence[Path], current: Collection[str], keep: int) -> set[Path]:
    """The newest outputs of current stages, every output of other stages, and outputs that the ledger does not know."""
    present, known = set(folders), set()
    newest: dict[str, list[Path]] = {}
    for row in reversed(Ledger(workspace.ledger_path).rows()):
        folder = workspace.stage_folder(row.stage, row.key)
        known.add(folder)
        chosen = newest.setdefault(row.stage, [])
        wanted = folder in present and folder not in chosen and len(chosen) < keep
        if wanted and row.state in {"completed", "cached"} and not _only_hosts(folder):
            chosen.append(folder)
    kept = {folder for chosen in newest.values() for folder in chosen}
    return kept | {folder for folder in folders if folder.parent.name not in current or folder not in known}


def _only_hosts(folder: Path) -> bool:
    """Whether a catalog is of hosts or masks, which whatever they were read for keeps."""
    if folder.parent.name != "ingest":
        return False
    try:
        return "role" in read_json(folder / RECORD_FILE)["record"]["facts"]
    except (OSError, ValueError, KeyError):
        return False


def _last_partials(workspace: Workspace, keep: int) -> set[Path]:
    """Partial folders of the keys that each stage was begun with last."""
    last: dict[str, list[Path]] = {}
    for row in reversed(Ledger(workspace.ledger_path).rows()):
        folder = workspace.stage_folder(row.stage, row.key)
        partial = folder.with_name(folder.name + PARTIAL_SUFFIX)
        chosen = last.setdefault(row.stage, [])
        if partial not in chosen and len(chosen) < keep:
            chosen.append(partial)
    return {folder for chosen in last.values() for folder in chosen}


def _contents(folder: Path) -> tuple[str, frozenset[str]]:
    """Hash of an output's content, and of what it was made from."""
    try:
        stored = read_json(folder / RECORD_FILE)
        return str(stored["record"]["content_sha256"]), frozenset(map(str, stored["inputs"].values()))
    except (OSError, ValueError, KeyError):
        return f"unknown {folder}", frozenset()


def _removal(path: Path, why: str) -> Removal:
    files = [path] if path.is_file() else [item for item in path.rglob("*") if item.is_file() and not item.is_symlink()]
    return Removal(path, why, sum(item.stat().st_size for item in files))
