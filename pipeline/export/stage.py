"""The export stage: prepared images, synthetic cohort and gate in; an augmented dataset out.

A closed gate does not fail the run: the real part is exported alone, and the record's facts, the data card and the
report say why.
"""

from collections.abc import Callable
from pathlib import Path

from pydantic import JsonValue

from pipeline.export.data_card import card_markdown, counts, data_card
from pipeline.export.dataset import AugmentedDataset, read_dataset
from pipeline.export.dicom_secondary_capture import write_dicom_secondary_capture
from pipeline.export.image_folder import write_image_folder
from pipeline.export.medmnist_npz import write_medmnist_npz
from pipeline.export.metadata import DATASET_FOLDER, Written, require_grey
from pipeline.files import write_json, write_text
from pipeline.records import ProgressCallback, StageRecord, silent
from pipeline.settings import RunSettings
from pipeline.stage_runner import Stage, StageContext, run_stage
from pipeline.workspace import Workspace

ExportFormat = Callable[[Path, AugmentedDataset, ProgressCallback], Written]
"""Writes a dataset below a folder."""

EXPORTS: dict[str, ExportFormat] = {
    "image_folder": write_image_folder,
    "medmnist_npz": write_medmnist_npz,
    "dicom_sc": write_dicom_secondary_capture,
}
"""Every format of lesion images by name."""


def export_lesions(
    workspace: Workspace,
    settings: RunSettings,
    prepared: StageRecord,
    cohort: StageRecord,
    evaluation: StageRecord,
    *,
    progress: ProgressCallback = silent,
) -> StageRecord:
    """Write the augmented dataset: real images and the synthetic ones that the gate releases.

    Args:
        workspace: where the output goes.
        settings: the run's settings, of which ``export`` is read.
        prepared: record of prepare_lesions.
        cohort: record of synthesize_lesions.
        evaluation: record of evaluate_lesions.
        progress: where to report progress.

    Returns:
        A record with facts ``released``, ``reason``, ``real``, ``synthetic``, ``left_out``, ``counts``.

    Raises:
        InputError: images of several channels, for a format of grey images.
    """
    records = {"prepared": prepared, "cohort": cohort, "evaluation": evaluation}
    choice = settings.export

    def body(context: StageContext) -> dict[str, JsonValue]:
        dataset = read_dataset(
            context.inputs["prepared"],
            context.inputs["cohort"],
            context.inputs["evaluation"],
            choice.release_override,
        )
        if choice.format != "medmnist_npz":
            require_grey(dataset)
        written = EXPORTS[choice.format](context.folder, dataset, context.progress)
        card = data_card(dataset, written, records)
        write_json(context.folder / DATASET_FOLDER / "data_card.json", card)
        write_text(context.folder / DATASET_FOLDER / "data_card.md", card_markdown(card))
        return _facts(dataset, written)

    stage = Stage("export_lesions", "pipeline.export.stage", body)
    return run_stage(workspace, stage, choice, records=records, progress=progress)


def _facts(dataset: AugmentedDataset, written: Written) -> dict[str, JsonValue]:
    return {
        "released": dataset.release.released,
        "reason": dataset.release.reason,
        "real": dataset.prepared.table.height,
        "synthetic": dataset.synthetic_count,
        "left_out": dataset.cohort.height - dataset.synthetic_count,
        "counts": {
            origin: {split: dict(classes) for split, classes in splits.items()}
            for origin, splits in counts(written.metadata).items()
        },
    }
