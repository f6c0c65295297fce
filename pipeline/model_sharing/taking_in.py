"""The import_model stage: a shared model from elsewhere in; a model folder in the workspace out.

It is checked in the parsing process, copied, and checked once more as it lies there, so that nothing can change in
between. The model folder is the exporter's byte for byte, and so is its hash.
"""

import shutil
from pathlib import Path

from pydantic import BaseModel, JsonValue

from pipeline.errors import InputError
from pipeline.files import sha256_file, sha256_json, write_json
from pipeline.ledger import Ledger
from pipeline.model_sharing.incoming import INPUTS_FILE, MANIFEST_FILE, MODEL_FOLDER, IncomingModel, read_shared_model
from pipeline.records import StageRecord
from pipeline.safe_parse import Limits, parse_all
from pipeline.settings import RunSettings, Track
from pipeline.stage_runner import Stage, StageContext, run_stage, verified_record
from pipeline.trained_models import model_hash
from pipeline.workspace import Workspace

STAGE = "import_model"
_MODULE = "pipeline.model_sharing.taking_in"


class _NoSettings(BaseModel, frozen=True):
    """An import depends on the files alone."""


def import_model(workspace: Workspace, source: Path, found: IncomingModel) -> StageRecord:
    """Take a shared model into the workspace.

    Args:
        workspace: where it goes.
        source: folder that `scanloom export-model` wrote, or the ``model`` folder of a training.
        found: what `checked` found there.

    Returns:
        A record with facts ``track``, ``model_sha256``, ``network``, ``inputs``, ``checked_against``.

    Raises:
        InputError: a file is not what was checked.
    """

    def body(context: StageContext) -> dict[str, JsonValue]:
        whole = (source / MANIFEST_FILE).is_file()
        model = context.folder / MODEL_FOLDER
        model.mkdir()
        for name, digest in found.files.items():
            shutil.copyfile((source / MODEL_FOLDER if whole else source) / name, model / name)
            if sha256_file(model / name) != digest:
                raise _refused("CHANGED", "a file that changed while it was read", "Copy the model to a quiet place.")
        write_json(context.folder / INPUTS_FILE, found.inputs)
        return {
            "track": found.track,
            "model_sha256": model_hash(model),
            "network": found.settings,
            "inputs": found.inputs,
            "checked_against": found.checked_against,
        }

    hashes = {"files": sha256_json(found.files | {INPUTS_FILE: sha256_json(found.inputs)})}
    hashes["checked_against"] = found.checked_against
    return run_stage(workspace, Stage(STAGE, _MODULE, body), _NoSettings(), records={}, hashes=hashes)


def checked(source: Path, settings: RunSettings) -> IncomingModel:
    """What a shared model holds, read in the parsing process within the limits of ingest.

    Raises:
        InputError: it is not sound.
    """
    limits = Limits(settings.ingest.timeout_s, settings.ingest.memory_limit_mb)
    outcome = next(iter(parse_all(read_shared_model, [source.expanduser().resolve()], limits)))
    if outcome.result is None:
        refusal = outcome.refusal
        reason, found, advice = (refusal.reason, refusal.found, refusal.advice) if refusal else ("UNREADABLE", "", "")
        raise _refused(reason, found, advice)
    return outcome.result


NEWEST = "newest"
"""Names the model that was imported last."""


def imported_model(workspace: Workspace, digest: str, track: Track) -> StageRecord:
    """The record of a model that was taken in, by the beginning of its hash, or `NEWEST`.

    Raises:
        InputError: none, or several, or one of the other track.
    """
    records = [
        record
        for row in Ledger(workspace.ledger_path).rows(STAGE)
        if row.state in {"completed", "cached"}
        and (record := verified_record(workspace.stage_folder(STAGE, row.key))) is not None
    ]
    known = {str(record.facts["model_sha256"]): record for record in records if record.facts["track"] == track}
    matching = [record for own, record in known.items() if own.startswith(digest)]
    if digest == NEWEST:
        matching = [record for record in records if record.facts["track"] == track][-1:]
    if len(matching) != 1:
        raise InputError(
            "An imported model is named by the beginning of its hash.",
            found=f"{digest[:64]}: {len(matching)} imported models of the track {track}",
            allowed=", ".join(own[:12] for own in known) or "none: nothing was imported into this workspace",
            change="Run `scanloom import-model FOLDER` first, and copy the hash that it prints.",
        )
    return matching[0]


def _refused(reason: str, found: str, advice: str) -> InputError:
    return InputError(
        "A model from elsewhere is taken in only if it is sound.",
        found=f"{reason}: {found}",
        allowed="safetensors and JSON that `scanloom export-model` wrote, unchanged",
        change=advice,
    )
