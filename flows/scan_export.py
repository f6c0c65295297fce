"""What `scanloom export --format` does for the formats of whole scans."""

from functools import partial
from pathlib import Path
from typing import cast

from rich.console import Console

from flows.requests import Options, load_settings
from flows.showing import displayed, show, show_facts
from flows.stage_commands import run_steps
from pipeline.files import read_json
from pipeline.lease import held
from pipeline.ledger import Ledger
from pipeline.records import StageRecord
from pipeline.settings import Track
from pipeline.stage_runner import RECORD_FILE, verified_record
from pipeline.workspace import Workspace


def export_scans_as(options: Options, console: Console, form: str, input_folder: Path | None) -> None:
    """Write the scans of the last ingest, with what was made from them.

    BIDS has pseudo-CT too where the settings name that track; a segmentation set has the hosts of the last
    `scanloom place-lesions` that used the same prepared lesions.

    Raises:
        ScanloomError: a step cannot go on, or the format cannot hold these scans.
    """
    from pipeline.export.metadata import DATASET_FOLDER
    from pipeline.export.scan_stage import ScanFormat, export_scans

    settings, _ = load_settings(options)
    records = run_steps(options, _targets(form, settings.tracks), console, input_folder=input_folder)
    workspace = Workspace.open(options.workspace)
    placed = _placed(workspace, records.get("prepare_lesions"))
    needed = (cast(ScanFormat, form), records["ingest"], records.get("translate_mr_to_ct"), placed)
    with held(workspace, "export scans"):
        record = displayed(console, "export scans", partial(export_scans, workspace, settings, *needed))
    show(console, "dataset", record.path(workspace.root) / DATASET_FOLDER)
    show_facts(console, record, ("format", "written", "classes"))


def _targets(form: str, tracks: tuple[Track, ...]) -> tuple[str, ...]:
    """Steps that a format needs: any that splits the subjects, and pseudo-CT for BIDS."""
    if form == "bids" and "mr_to_ct" in tracks:
        return ("prepare_lesions", "translate_mr_to_ct") if "lesions" in tracks else ("translate_mr_to_ct",)
    return ("prepare_lesions",) if "lesions" in tracks else ("prepare_mr_to_ct",)


def _placed(workspace: Workspace, prepared: StageRecord | None) -> StageRecord | None:
    """The newest hosts with lesions of a generator that learned from this prepared set."""
    for row in reversed(Ledger(workspace.ledger_path).rows("place_lesions")):
        if row.state not in {"completed", "cached"} or prepared is None:
            continue
        folder = workspace.stage_folder("place_lesions", row.key)
        record = verified_record(folder)
        if record is not None and prepared.content_sha256 in read_json(folder / RECORD_FILE)["inputs"].values():
            return record
    return None
