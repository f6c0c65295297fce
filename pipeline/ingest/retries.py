"""Which input was ingested last, and how often its refusals were to be looked at anew; kept in ``identity/``."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pipeline.files import read_json, write_json
from pipeline.ingest.readings import forget_refusals

INPUT_FILE = "input.json"
"""Holds a path, which may name a patient."""


def remember_input(identity: Path, root: str) -> None:
    """Note the input that is ingested."""
    if _known(identity).get("input") != root:
        _write(identity, {"input": root})


def last_input(identity: Path) -> Path | None:
    """The input that was ingested last, or None."""
    root = _known(identity).get("input")
    return None if root is None else Path(root)


def forget_input(identity: Path) -> None:
    """Forget which input was ingested last."""
    if "input" in _known(identity):
        _write(identity, {"input": None})


def retries(identity: Path) -> int:
    """How often refusals of this workspace were to be looked at anew; part of what a catalog is made from."""
    return int(_known(identity).get("retries", 0))


def retry(identity: Path, names: Collection[str] | None = None) -> int:
    """Let the next ingest parse refused files anew; returns how many refusals were forgotten.

    Args:
        identity: the workspace's ``identity/``.
        names: files to look at anew; None for all that were refused.
    """
    forgotten = forget_refusals(identity, names)
    _write(identity, {"retries": retries(identity) + 1})
    return forgotten


def _known(identity: Path) -> dict[str, Any]:
    try:
        known = read_json(identity / INPUT_FILE)
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(identity: Path, changes: dict[str, Any]) -> None:
    path = identity / INPUT_FILE
    write_json(path, _known(identity) | changes)
    path.chmod(0o600)
