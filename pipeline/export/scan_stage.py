"""The export_scans stage: catalog, splits and translation in; whole scans in a format of other tools out."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, JsonValue

from pipeline.catalog import read_catalog
from pipeline.errors import InputError
from pipeline.export.bids import write_bids
from pipeline.export.data_card import INTENDED_USE
from pipeline.export.metadata import DATASET_FOLDER
from pipeline.export.scan_cases import ScanCase, placed_cases, pseudo_ct_cases, real_cases
from pipeline.export.segmentation_sets import write_decathlon, write_nnunet
from pipeline.files import read_json, sha256_file, write_json, write_text
from pipeline.records import ProgressCallback, StageRecord, silent
from pipeline.settings import RunSettings
from pipeline.stage_runner import Stage, StageContext, run_stage
from pipeline.workspace import Workspace

ScanFormat = Literal["nnunet", "decathlon", "bids"]
SCAN_EXPORTS: Mapping[ScanFormat, Callable[[Path, Sequence[ScanCase], ProgressCallback], dict[str, Any]]] = {
    "nnunet": write_nnunet,
    "decathlon": write_decathlon,
    "bids": write_bids,
}
"""Every format of whole scans by name."""


class ScanChoice(BaseModel, frozen=True):
    """What an export of scans depends on beside its inputs."""

    format: ScanFormat
    modality: Literal["MR", "CT"]


def export_scans(
    workspace: Workspace,
    settings: RunSettings,
    form: ScanFormat,
    catalog: StageRecord,
    translation: StageRecord | None = None,
    placed: StageRecord | None = None,
    *,
    progress: ProgressCallback = silent,
) -> StageRecord:
    """Write the scans of a catalog, and the pseudo-CT made from them, in a format of other tools.

    Args:
        workspace: where the output goes; its subjects must have been split, as every prepare step does.
        settings: ``prepare.lesions.modality`` chooses the scans of a segmentation set.
        form: nnunet, decathlon or bids.
        catalog: record of ingest.
        translation: record of translate_mr_to_ct; its pseudo-CT go into BIDS derivatives.
        placed: record of place_lesions; its hosts go into the training part of segmentation sets.
        progress: where to report progress.

    Returns:
        A record with facts ``format``, ``written``, ``real``, ``synthetic``, ``classes``, ``splits``.

    Raises:
        InputError: subjects were not split yet, or the format cannot hold these scans.
    """
    if not workspace.splits_path.exists():
        raise InputError(
            "Scans are exported with the split of their subjects.",
            found="no split in this workspace",
            allowed="subjects that were split",
            change="Run `scanloom prepare` first.",
        )
    choice = ScanChoice(format=form, modality=settings.prepare.lesions.modality)

    def body(context: StageContext) -> dict[str, JsonValue]:
        cases = _cases(context, choice)
        target = context.folder / DATASET_FOLDER
        target.mkdir()
        facts = SCAN_EXPORTS[choice.format](target, cases, context.progress)
        written = {origin: _by_split(cases, origin) for origin in ("real", "synthetic")}
        card = {"intended_use": INTENDED_USE, "format": choice.format, "considered": written, **facts}
        card["inputs"] = {"catalog": catalog.content_sha256}
        card["deidentification"] = "Voxels, geometry, defined terms and keyed pseudonyms alone."
        write_json(target / "data_card.json", card)
        write_text(target / "data_card.md", _markdown(card))
        return {"format": choice.format, **facts}

    given = {"catalog": catalog, "translation": translation, "placed": placed}
    records = {name: record for name, record in given.items() if record is not None}
    hashes = {"splits": sha256_file(workspace.splits_path)}
    stage = Stage("export_scans", "pipeline.export.scan_stage", body)
    return run_stage(workspace, stage, choice, records=records, hashes=hashes, progress=progress)


def _cases(context: StageContext, choice: ScanChoice) -> list[ScanCase]:
    catalog = read_catalog(context.inputs["catalog"])
    subjects = read_json(context.workspace.splits_path)["subjects"]
    modalities = ("MR", "CT") if choice.format == "bids" else (choice.modality,)
    cases = real_cases(catalog, subjects, modalities)
    if choice.format == "bids" and "translation" in context.inputs:
        cases += pseudo_ct_cases(context.inputs["translation"], str(context.facts["translation"]["model_sha256"]))
    if choice.format != "bids" and "placed" in context.inputs:
        cases += placed_cases(context.inputs["placed"], subjects, catalog)
    return cases


def _by_split(cases: Sequence[ScanCase], origin: str) -> dict[str, int]:
    of_origin = [case.split for case in cases if case.origin == origin]
    return {split: of_origin.count(split) for split in sorted(set(of_origin))}


def _markdown(card: Mapping[str, Any]) -> str:
    lines = ["# Data card", "", f"**{card['intended_use']}**", "", f"Format: {card['format']}.", ""]
    lines += ["| origin | split | scans looked at |", "|---|---|---:|"]
    for origin, splits in card["considered"].items():
        lines += [f"| {origin} | {split} | {number} |" for split, number in splits.items()]
    lines += [
        "",
        f"{card['written']} scans were written; a segmentation set leaves out scans without a drawn lesion.",
        f"Voxels in several lesions, given to the last of them: {card['voxels_in_several_lesions']}.",
        card["deidentification"],
        "",
        "`metadata.csv` has one row a scan: origin, split, subject, series, classes, weights and condition.",
    ]
    return "\n".join(lines) + "\n"
