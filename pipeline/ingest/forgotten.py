"""Subjects that were forgotten: their pseudonyms, so that no later ingest takes them in again."""

from collections.abc import Collection
from pathlib import Path

from pipeline.errors import QuarantineError
from pipeline.files import read_json, write_json

FORGOTTEN_FILE = "forgotten.json"

FORGOTTEN = QuarantineError(
    "FORGOTTEN",
    "a subject that was forgotten in this workspace",
    "Take the subject's files out of the input; a subject that may come back needs a new workspace.",
)


def forgotten_subjects(identity: Path) -> frozenset[str]:
    """Pseudonyms of the forgotten subjects of a workspace."""
    path = identity / FORGOTTEN_FILE
    return frozenset(read_json(path)["subjects"]) if path.exists() else frozenset()


def remember_forgotten(identity: Path, subjects: Collection[str]) -> None:
    """Add pseudonyms to the list; readable by the owner only."""
    path = identity / FORGOTTEN_FILE
    write_json(path, {"subjects": sorted({*forgotten_subjects(identity), *subjects})})
    path.chmod(0o600)
