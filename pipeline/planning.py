"""What a stage would do and why, told without doing it.

A workspace opened by `Workspace.for_planning` makes `run_stage` raise `WouldRun` where it would make an output, and
leaves the ledger alone. The reason is found by comparing the key's parts with those of the stage's last output.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.files import PARTIAL_SUFFIX, read_json
from pipeline.ledger import Ledger
from pipeline.stage_runner import RECORD_FILE, WouldRun
from pipeline.workspace import Workspace

_MOST_NAMED = 4


@dataclass(frozen=True)
class Reason:
    """Why a stage would run.

    Attributes:
        kind: never ran, setting, input, source, gone, damaged or resume.
        text: in words; names settings, inputs and modules, never paths of scans.
    """

    kind: str
    text: str


def reasons(workspace: Workspace, would: WouldRun) -> list[Reason]:
    """Why a stage would run: what of its key differs from the key of its last output."""
    found = [*_partial(workspace, would)]
    last = _last_record(workspace, would.stage)
    if last is None:
        return [Reason("never ran", "never ran in this workspace"), *found]
    folder, stored, key = last
    if key == would.key:
        gone = not folder.exists()
        kind, text = ("gone", "its output was deleted") if gone else ("damaged", "its files are not what was written")
        return [Reason(kind, text), *found]
    if stored is None:
        return [Reason("gone", "its key is another than last time, and its last output was deleted"), *found]
    settings = read_json(folder / "settings.json")
    changed = [
        *_settings_reasons(settings, would.settings),
        *_input_reasons(stored.get("inputs", {}), would.inputs),
        *_source_reasons(stored.get("modules", {}), would.modules, stored.get("sources"), would.sources),
    ]
    return [*(changed or [Reason("key", "its key is another than last time")]), *found]


def _partial(workspace: Workspace, would: WouldRun) -> list[Reason]:
    final = workspace.stage_folder(would.stage, would.key)
    if would.resumable and final.with_name(final.name + PARTIAL_SUFFIX).is_dir():
        return [Reason("resume", "goes on where it was stopped")]
    return []


def _last_record(workspace: Workspace, stage: str) -> tuple[Path, dict[str, Any] | None, str] | None:
    """Folder, record and key of the stage's last finished output; the record is None where it is gone."""
    for row in reversed(Ledger(workspace.ledger_path).rows(stage)):
        if row.state in {"completed", "cached"}:
            folder = workspace.stage_folder(stage, row.key)
            try:
                return folder, read_json(folder / RECORD_FILE), row.key
            except (OSError, ValueError):
                return folder, None, row.key
    return None


def _settings_reasons(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Reason]:
    old, new = dict(_leaves("", before)), dict(_leaves("", after))
    changed = [
        f"{name}: {_short(old.get(name))} -> {_short(new.get(name))}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    return [Reason("setting", f"settings changed: {_listed(changed)}")] if changed else []


def _leaves(prefix: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        return [leaf for name, item in value.items() for leaf in _leaves(f"{prefix}.{name}" if prefix else name, item)]
    return [(prefix, value)]


def _input_reasons(before: Mapping[str, str], after: Mapping[str, str]) -> list[Reason]:
    changed = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
    return [Reason("input", f"inputs changed: {_listed(changed)}")] if changed else []


def _source_reasons(before: Mapping[str, str], after: Mapping[str, str], old: str | None, new: str) -> list[Reason]:
    if old == new:
        return []
    changed = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
    return [Reason("source", f"sources changed: {_listed(changed) if before else 'another version of scanloom'}")]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def _short(value: Any) -> str:
    text = "unset" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
