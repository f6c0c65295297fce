"""The generate stage: `synthesize_lesions` and `translate_mr_to_ct`."""

from collections.abc import Sequence

import torch
from pydantic import BaseModel, JsonValue

from pipeline.device import choose_device, turn_on
from pipeline.errors import InputError
from pipeline.generate.cohort import make_cohort
from pipeline.generate.ensemble import Member
from pipeline.generate.recipe import resolve_recipe
from pipeline.generate.translation import translate_cases
from pipeline.prepared_set import read_image_set
from pipeline.records import ProgressCallback, StageRecord, silent
from pipeline.settings import GenerateLesionsSettings, GenerateMRToCTSettings, RunSettings
from pipeline.spreading import Spread, here
from pipeline.stage_runner import Stage, StageContext, run_stage
from pipeline.trained_models import lesion_generator_settings, model_hash
from pipeline.workspace import Workspace

_MODULE = "pipeline.generate.stage"


class SeededLesionsSettings(BaseModel, frozen=True):
    """What enters the key of a cohort."""

    seed: int
    device: str
    lesions: GenerateLesionsSettings


class TranslationSettings(BaseModel, frozen=True):
    """What enters the key of a translation."""

    device: str
    mr_to_ct: GenerateMRToCTSettings


def synthesize_lesions(
    workspace: Workspace,
    settings: RunSettings,
    prepared: StageRecord | None,
    trained: StageRecord,
    *,
    others: Sequence[StageRecord] = (),
    progress: ProgressCallback = silent,
    spread: Spread = here,
) -> StageRecord:
    """Make the synthetic cohort that the recipe asks for; a killed one goes on from its last batch.

    Args:
        workspace: where the output goes.
        settings: ``generate.lesions``.
        prepared: the set that the models were trained on; None for a model from elsewhere, without a filter.
        trained: the run's own training.
        others: further trainings of an ensemble, in the order of ``generate.lesions.ensemble``.
        progress: counted in images.
        spread: where candidates are made, if that is on a CPU.

    Raises:
        InputError: the recipe asks for what the model does not know, or its filter rejects too much.
    """
    seeded = SeededLesionsSettings(
        seed=settings.seed, device=choose_device(settings.device).type, lesions=settings.generate.lesions
    )
    known = lesion_generator_settings(trained.path(workspace.root) / "model")
    resolve_recipe(seeded.lesions, known.classes, known.attributes)  # before anything is written
    if prepared is None and seeded.lesions.filter.active:
        raise InputError(
            "The filter of a cohort is calibrated on real images.",
            found="a model from elsewhere, and no prepared set",
            allowed="scans of the same classes in the workspace, or no filter",
            change="Ingest your own scans first, or switch off generate.lesions.filter.",
        )
    records = ({} if prepared is None else {"prepared": prepared}) | {"trained": trained}
    records |= {f"trained_{number}": record for number, record in enumerate(others, 1)}

    def body(context: StageContext) -> dict[str, JsonValue]:
        folders = [context.inputs[name] / "model" for name in records if name != "prepared"]
        members = [Member(folder, model_hash(folder)) for folder in folders]
        device = torch.device(seeded.device)
        real = None if prepared is None else read_image_set(context.inputs["prepared"])
        facts = make_cohort(
            members,
            seeded.lesions,
            seeded.seed,
            device,
            context.folder,
            context.progress,
            real,
            spread,
            context.inputs.get("prepared"),
        )
        return facts | {"model_sha256": members[0].sha256}

    turn = turn_on(choose_device(settings.device), settings.device_turns)
    stage = Stage("synthesize_lesions", _MODULE, body, resumable=True, turn=turn)
    return run_stage(workspace, stage, seeded, records=records, progress=progress)


def translate_mr_to_ct(
    workspace: Workspace,
    settings: RunSettings,
    catalog: StageRecord,
    prepared: StageRecord,
    trained: StageRecord,
    *,
    others: Sequence[StageRecord] = (),
    progress: ProgressCallback = silent,
) -> StageRecord:
    """Translate every MR of the chosen splits that the model knows; NIfTI and DICOM where there is geometry.

    A killed translation goes on after the last case that it finished.

    Args:
        workspace: where the output goes.
        settings: ``generate.mr_to_ct``.
        catalog: the scans.
        prepared: their prepared set.
        trained: the run's own training, or an imported model.
        others: further models of an ensemble, in the order of ``generate.mr_to_ct.ensemble``.
        progress: counted in slices.

    Raises:
        InputError: no MR in the chosen splits, or none that is in the model's scope.
    """
    own = TranslationSettings(device=choose_device(settings.device).type, mr_to_ct=settings.generate.mr_to_ct)
    models = {"trained": trained} | {f"trained_{number}": record for number, record in enumerate(others, 1)}

    def body(context: StageContext) -> dict[str, JsonValue]:
        return translate_cases(context, own.mr_to_ct, torch.device(own.device), list(models))

    records = {"catalog": catalog, "prepared": prepared} | models
    turn = turn_on(choose_device(settings.device), settings.device_turns)
    stage = Stage("translate_mr_to_ct", _MODULE, body, resumable=True, turn=turn)
    return run_stage(workspace, stage, own, records=records, progress=progress)
