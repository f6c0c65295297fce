"""Runs one stage: key, verified cache hit, partial folder, manifest, ledger.

The key of a stage is a hash of the content of its inputs, of its settings and of its own sources. An output folder
found under its key is verified against its manifest before it is used; a damaged one is set aside and made again.
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, JsonValue

from pipeline.device_turn import DeviceTurn, device_turn
from pipeline.disk_errors import disk_error
from pipeline.errors import ScanloomError
from pipeline.files import (
    PARTIAL_SUFFIX,
    folder_manifest,
    manifest_hash,
    promote_folder,
    read_json,
    remove_partial,
    sha256_json,
    write_json,
)
from pipeline.lease import require_lease
from pipeline.ledger import Ledger
from pipeline.records import ProgressCallback, StageRecord, silent
from pipeline.source_hash import source_hash, source_hashes
from pipeline.workspace import Workspace

RECORD_FILE = "record.json"
_RECORDED_PACKAGES = ("torch", "monai", "nibabel", "pydicom", "scikit-image", "simpleitk", "numpy", "prefect")
VOLATILE_FACTS = frozenset({"seconds", "images_per_s", "resumed_at_images"})
"""Facts that differ between equal runs; they go to ``runtime.json``, not into the record."""
VOLATILE = frozenset({"runtime.json", RECORD_FILE, "tensorboard"})
"""Names inside an output that hold times or hosts and are no part of its content."""


@dataclass(frozen=True)
class StageContext:
    """What a stage's body is given.

    Attributes:
        workspace: the workspace.
        folder: the folder to fill; it gets its final name when the body returns.
        inputs: absolute folders of the input records, by name.
        facts: facts of the input records, by name.
        progress: where to report progress.
    """

    workspace: Workspace
    folder: Path
    inputs: Mapping[str, Path]
    facts: Mapping[str, Mapping[str, JsonValue]]
    progress: ProgressCallback


StageBody = Callable[[StageContext], dict[str, JsonValue]]
"""Fills ``context.folder`` and returns facts for the record."""


@dataclass(frozen=True)
class Stage:
    """Description of one stage.

    Attributes:
        name: e.g. ``train_lesions``; also the folder in the workspace.
        module: dotted name of the module whose sources enter the key.
        body: the work.
        resumable: keep the partial folder of a killed or failed run, so that the next one goes on from it.
        turn: the device that the body computes on, where runs share it; the body waits for it.
    """

    name: str
    module: str
    body: StageBody
    resumable: bool = False
    turn: DeviceTurn | None = None


def stage_key(stage: Stage, inputs: Mapping[str, str], settings: BaseModel) -> str:
    """Content-hash key from input hashes, settings and the stage's own sources."""
    return sha256_json(
        {
            "stage": stage.name,
            "inputs": dict(inputs),
            "settings": settings.model_dump(mode="json"),
            "sources": source_hash(stage.module),
        }
    )


class WouldRun(Exception):  # noqa: N818 - an answer, not a failure
    """A stage of a workspace for planning would make its output.

    Attributes:
        stage, key: what would be made.
        inputs: content hashes of what it reads, by name.
        settings: what it reads of the settings.
        sources, modules: hash of its sources, and of each.
        resumable: whether a partial output is gone on with.
    """

    def __init__(self, stage: Stage, key: str, inputs: Mapping[str, str], settings: BaseModel) -> None:
        self.stage, self.key, self.inputs, self.resumable = stage.name, key, dict(inputs), stage.resumable
        self.settings: dict[str, Any] = settings.model_dump(mode="json")
        self.sources, self.modules = source_hash(stage.module), source_hashes(stage.module)
        super().__init__(stage.name)


def run_stage(
    workspace: Workspace,
    stage: Stage,
    settings: BaseModel,
    *,
    records: Mapping[str, StageRecord],
    hashes: Mapping[str, str] | None = None,
    progress: ProgressCallback = silent,
    fresh: bool = False,
) -> StageRecord:
    """Make a stage's output, or find it made.

    Args:
        workspace: where the output goes.
        stage: what to run.
        settings: the settings that the stage reads; they enter the key and are stored beside the output.
        records: earlier stages' records that the stage reads.
        hashes: further content hashes that enter the key, by name.
        progress: where to report progress.
        fresh: throw a partial output away instead of resuming from it.

    Raises:
        ScanloomError: whatever the body raises; the ledger keeps its message.
        WouldRun: the workspace is one for planning, and the output is not there.
    """
    inputs = {name: record.content_sha256 for name, record in records.items()} | dict(hashes or {})
    key = stage_key(stage, inputs, settings)
    final = workspace.stage_folder(stage.name, key)
    found = verified_record(final, set_aside=not workspace.planning)
    if workspace.planning:
        if found is None:
            raise WouldRun(stage, key, inputs, settings)
        return found.model_copy(update={"cached": True})
    ledger = Ledger(workspace.ledger_path)
    if found is not None:
        ledger.hit(stage.name, key, found.content_sha256, found.folder)
        return found.model_copy(update={"cached": True})
    partial = final.with_name(final.name + PARTIAL_SUFFIX)
    if fresh or not stage.resumable:
        shutil.rmtree(partial, ignore_errors=True)
    row = ledger.start(stage.name, key, inputs, final.relative_to(workspace.root).as_posix())
    wall, cpu = time.monotonic(), time.process_time()
    try:
        partial.mkdir(parents=True, exist_ok=True)
        context = StageContext(
            workspace,
            partial,
            {name: record.path(workspace.root) for name, record in records.items()},
            {name: record.facts for name, record in records.items()},
            progress,
        )
        with device_turn(stage.turn, progress):
            facts = stage.body(context)
        require_lease(ledger)
        record = _seal(workspace, stage, key, partial, final, settings, inputs, facts, time.monotonic() - wall)
    except BaseException as error:
        ledger.fail(row, failure_message(error), time.monotonic() - wall)
        broken = disk_error(error)
        if broken is not None:
            raise broken from error
        raise
    ledger.complete(row, record.content_sha256, time.monotonic() - wall, time.process_time() - cpu)
    return record


def failure_message(error: BaseException) -> str:
    """A message that holds no patient data: our own errors speak for themselves, of others only the type is kept."""
    return str(error) if isinstance(error, ScanloomError) else type(error).__name__


def verified_record(folder: Path, *, set_aside: bool = True) -> StageRecord | None:
    """The record of a finished output whose files equal its manifest, else None.

    Args:
        folder: the output.
        set_aside: give a damaged output another name, so that it can be made again.
    """
    path = folder / RECORD_FILE
    if not path.is_file():
        return None
    try:
        stored = read_json(path)
        record = StageRecord.model_validate(stored["record"])
    except (ValueError, KeyError):
        record = None
    if record is not None and stored["manifest"] == folder_manifest(folder, VOLATILE):
        return record
    if not set_aside:
        return None
    damaged = folder.with_name(folder.name + ".damaged")
    shutil.rmtree(damaged, ignore_errors=True)
    folder.rename(damaged)
    return None


def _seal(
    workspace: Workspace,
    stage: Stage,
    key: str,
    partial: Path,
    final: Path,
    settings: BaseModel,
    inputs: Mapping[str, str],
    facts: dict[str, JsonValue],
    seconds: float,
) -> StageRecord:
    """Write settings, versions, manifest and record, then give the folder its final name."""
    remove_partial(partial)
    write_json(partial / "settings.json", settings.model_dump(mode="json"))
    passing = {name: value for name, value in facts.items() if name in VOLATILE_FACTS}
    write_json(partial / "runtime.json", passing | {"seconds": round(seconds, 3), "finished_at": time.time()})
    manifest = folder_manifest(partial, VOLATILE)
    record = StageRecord(
        stage=stage.name,
        key=key,
        folder=final.relative_to(workspace.root).as_posix(),
        content_sha256=manifest_hash(manifest),
        facts={name: value for name, value in facts.items() if name not in VOLATILE_FACTS},
    )
    provenance = {
        "record": record.model_dump(mode="json"),
        "manifest": manifest,
        "inputs": dict(inputs),
        "sources": source_hash(stage.module),
        "modules": dict(source_hashes(stage.module)),
        "versions": {name: version(name) for name in _RECORDED_PACKAGES},
    }
    write_json(partial / RECORD_FILE, provenance)
    promote_folder(partial, final)
    # As they are read again: a page that lists facts in order must not tell a made output from a found one.
    return record.model_copy(update={"facts": json.loads(json.dumps(facts, sort_keys=True))})
