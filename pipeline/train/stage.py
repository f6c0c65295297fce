"""The train stage: one training for each track."""

import torch
from pydantic import BaseModel, JsonValue

from pipeline.device import choose_device, describe_device, turn_on
from pipeline.prepared_set import read_image_set, read_volume_set
from pipeline.records import ProgressCallback, StageRecord, silent
from pipeline.settings import RunSettings, TrainLesionsSettings, TrainMRToCTSettings
from pipeline.stage_runner import Stage, StageBody, StageContext, run_stage
from pipeline.train.lesion_training import LesionTraining
from pipeline.train.loop import train
from pipeline.train.mr_to_ct_training import MRToCTTraining
from pipeline.workspace import Workspace

_MODULE = "pipeline.train.stage"


class SeededLesionsSettings(BaseModel, frozen=True):
    """What enters the key of a lesion training."""

    seed: int
    device: str
    lesions: TrainLesionsSettings


class SeededMRToCTSettings(BaseModel, frozen=True):
    """What enters the key of a translation training."""

    seed: int
    device: str
    mr_to_ct: TrainMRToCTSettings


def train_lesions(
    workspace: Workspace,
    settings: RunSettings,
    prepared: StageRecord,
    *,
    progress: ProgressCallback = silent,
    fresh: bool = False,
) -> StageRecord:
    """Train the lesion GAN; a killed training goes on from its last checkpoint unless ``fresh``.

    Raises:
        TrainingError: a loss was not finite, or no checkpoint is intact.
    """
    seeded = SeededLesionsSettings(
        seed=settings.seed, device=choose_device(settings.device).type, lesions=settings.train.lesions
    )

    def body(context: StageContext) -> dict[str, JsonValue]:
        device = torch.device(seeded.device)
        training = LesionTraining(read_image_set(context.inputs["prepared"]), seeded.lesions, seeded.seed, device)
        facts = train(training, seeded.lesions, context.folder, "lesion training images", context.progress)
        return facts | {"device": describe_device(device)}

    return _run("train_lesions", body, workspace, settings, seeded, prepared, progress, fresh)


def train_mr_to_ct(
    workspace: Workspace,
    settings: RunSettings,
    prepared: StageRecord,
    *,
    progress: ProgressCallback = silent,
    fresh: bool = False,
) -> StageRecord:
    """Train the MR-to-CT CycleGAN; a killed training goes on from its last checkpoint unless ``fresh``.

    Raises:
        InputError: the training split lacks what the supervision needs.
        TrainingError: a loss was not finite, or no checkpoint is intact.
    """
    seeded = SeededMRToCTSettings(
        seed=settings.seed, device=choose_device(settings.device).type, mr_to_ct=settings.train.mr_to_ct
    )

    def body(context: StageContext) -> dict[str, JsonValue]:
        device = torch.device(seeded.device)
        training = MRToCTTraining(read_volume_set(context.inputs["prepared"]), seeded.mr_to_ct, seeded.seed, device)
        facts = train(training, seeded.mr_to_ct, context.folder, "MR-to-CT training images", context.progress)
        return facts | {"device": describe_device(device)}

    return _run("train_mr_to_ct", body, workspace, settings, seeded, prepared, progress, fresh)


def _run(
    name: str,
    body: StageBody,
    workspace: Workspace,
    settings: RunSettings,
    seeded: BaseModel,
    prepared: StageRecord,
    progress: ProgressCallback,
    fresh: bool,
) -> StageRecord:
    stage = Stage(
        name, _MODULE, body, resumable=True, turn=turn_on(choose_device(settings.device), settings.device_turns)
    )
    return run_stage(workspace, stage, seeded, records={"prepared": prepared}, progress=progress, fresh=fresh)
