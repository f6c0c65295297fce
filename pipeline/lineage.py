"""Which outputs were made, in however many steps, from a catalog that holds a subject."""

import json
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pipeline.files import read_json
from pipeline.stage_runner import RECORD_FILE
from pipeline.workspace import Workspace

LEFTOVERS = (".partial", ".damaged", ".retired")
"""Endings of folders that are no finished output."""

_NO_STAGES = frozenset({"identity", "logs"})


@dataclass(frozen=True)
class _Output:
    folder: Path
    inputs: frozenset[str]
    content: str
    whole: bool

    @property
    def stage(self) -> str:
        return self.folder.parent.name


def _outputs(workspace: Workspace) -> Iterator[_Output]:
    """Every output folder of every stage but ingest, whole or not."""
    for record in sorted(workspace.root.glob("*/*")):
        stage = record.parent.name
        if not record.is_dir() or stage in _NO_STAGES or stage.startswith(".") or stage == "ingest":
            continue
        try:
            stored = read_json(record / RECORD_FILE)
            inputs = frozenset(stored["inputs"].values())
            yield _Output(record, inputs, stored["record"]["content_sha256"], record.suffix not in LEFTOVERS)
        except (OSError, ValueError, KeyError, AttributeError):
            yield _Output(record, frozenset(), "", whole=False)


def dependent_outputs(workspace: Workspace, catalogs: Collection[Path], subject: str) -> list[Path]:
    """Outputs that were made, in however many steps, from a catalog that holds the subject; unfinished ones too.

    A prepared set whose table lacks the subject, and what was made from it alone, is not among them.
    """
    if not catalogs:
        return []
    outputs, runs = list(_outputs(workspace)), _ledger_runs(workspace)
    keys = {folder.name.partition(".")[0] for folder in catalogs}
    tainted = {_content(folder) for folder in catalogs}
    tainted |= {content for stage, key, _, content in runs if stage == "ingest" and key[:16] in keys}
    found: dict[Path, None] = {}
    before = -1
    while before != len(found) + len(tainted):
        before = len(found) + len(tainted)
        for output in outputs:
            if not output.whole or (output.inputs & tainted and _may_hold(output, subject)):
                found[output.folder] = None
                tainted.add(output.content)
        free = {output.content for output in outputs if output.folder not in found}
        tainted |= {content for _, _, inputs, content in runs if inputs & tainted and content not in free}
    leftovers = [path for path in workspace.root.glob("ingest/*") if path.suffix in LEFTOVERS and path not in catalogs]
    return [*sorted(found), *sorted(leftovers)]


def _may_hold(output: _Output, subject: str) -> bool:
    """Whether an output made from tainted inputs holds the subject: prepared sets tell, all others may."""
    tables = [path for name in ("images", "volumes") for path in output.folder.glob(f"{name}.parquet")]
    if not output.stage.startswith("prepare_") or not tables:
        return True
    return any(subject in pl.read_parquet(path, columns=["subject_id"])["subject_id"] for path in tables)


def _ledger_runs(workspace: Workspace) -> list[tuple[str, str, frozenset[str], str]]:
    """Stage, key, hashes of inputs and hash of the content of every completed run; outputs may be gone since."""
    if not workspace.ledger_path.exists():
        return []
    with closing(sqlite3.connect(workspace.ledger_path)) as connection:
        rows = connection.execute(
            "SELECT stage, key, inputs, content_sha256 FROM stage_runs WHERE state = 'completed'"
        ).fetchall()
    return [(stage, key, frozenset(json.loads(inputs).values()), content) for stage, key, inputs, content in rows]


def _content(folder: Path) -> str:
    try:
        return str(read_json(folder / RECORD_FILE)["record"]["content_sha256"])
    except (OSError, ValueError, KeyError):
        return "unknown"
