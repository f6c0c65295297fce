"""The train stage: one training for each track."""

from typing import Literal

import torch
from pydantic import BaseModel, JsonValue

from models.optimization import in_bfloat16
from pipeline.device import choose_device, describe_device, turn_on
from pipeline.records import ProgressCallback, StageRecord, silent
from pipeline.settings import LoopSettings, RunSettings, TrainLesionsSettings, TrainMRToCTSettings
from pipeline.stage_runner import Stage, StageContext, run_stage
from pipeline.train.assignment import Assignment
from pipeline.train.crew import NO_CREW, Crew
from pipeline.train.loop import train
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
    crew: Crew = NO_CREW,
) -> StageRecord:
    """Train the lesion GAN; a killed training goes on from its last checkpoint unless ``fresh``.

    Raises:
        SettingsError: the crew cannot share the batch.
        TrainingError: a loss was not finite, no checkpoint is intact, or a process of the crew is gone.
    """
    seeded = SeededLesionsSettings(
        seed=settings.seed, device=choose_device(settings.device).type, lesions=settings.train.lesions
    )
    return _run("lesions", settings.train.lesions, workspace, settings, seeded, prepared, progress, fresh, crew)


def train_mr_to_ct(
    workspace: Workspace,
    settings: RunSettings,
    prepared: StageRecord,
    *,
    progress: ProgressCallback = silent,
    fresh: bool = False,
    crew: Crew = NO_CREW,
) -> StageRecord:
    """Train the MR-to-CT CycleGAN; a killed training goes on from its last checkpoint unless ``fresh``.

    Raises:
        InputError: the training split lacks what the supervision needs.
        SettingsError: the crew cannot share the batch.
        TrainingError: a loss was not finite, no checkpoint is intact, or a process of the crew is gone.
    """
    seeded = SeededMRToCTSettings(
        seed=settings.seed, device=choose_device(settings.device).type, mr_to_ct=settings.train.mr_to_ct
    )
    return _run("mr_to_ct", settings.train.mr_to_ct, workspace, settings, seeded, prepared, progress, fresh, crew)


_WHAT = {"lesions": "lesion training images", "mr_to_ct": "MR-to-CT training images"}


def _run(
    track: Literal["lesions", "mr_to_ct"],
    own: LoopSettings,
    workspace: Workspace,
    settings: RunSettings,
    seeded: SeededLesionsSettings | SeededMRToCTSettings,
    prepared: StageRecord,
    progress: ProgressCallback,
    fresh: bool,
    crew: Crew,
) -> StageRecord:
    crew.require_share(own.batch_size)

    def body(context: StageContext) -> dict[str, JsonValue]:
        assignment = Assignment(
            track=track,
            settings=own.model_dump_json(),
            seed=seeded.seed,
            prepared=context.inputs["prepared"],
            device=seeded.device,
            device_turns=settings.device_turns,
        )
        device = crew.device or torch.device(seeded.device)
        with crew.together():
            training = assignment.build(device, crew.ranks)
            crew.assign(assignment)
            facts = train(training, own, context.folder, _WHAT[track], context.progress, crew)
            crew.finish()
        processes = {"processes": crew.ranks.count} if crew.shared else {}
        precision = "bfloat16" if in_bfloat16(own.precision, device) else "float32"
        return facts | processes | {"device": describe_device(device), "precision": precision}

    turn = turn_on(crew.device or choose_device(settings.device), settings.device_turns)
    stage = Stage(f"train_{track}", _MODULE, body, resumable=True, turn=turn)
    return run_stage(workspace, stage, seeded, records={"prepared": prepared}, progress=progress, fresh=fresh)
