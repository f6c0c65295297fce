"""The one training loop: progress in images, log, grids, checkpoints, exact resume, a loud stop on non-finite losses.

A CPU run that resumes from any checkpoint is bit-identical to an uninterrupted one: networks, optimizers, averages,
image pools, log and the state of every random generator are in the checkpoint, and batches are drawn from those
generators alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skimage.io import imsave
from torch import Tensor

from models.losses import NonFiniteLossError
from pipeline.checkpoints import (
    Checkpoint,
    flatten_optimizer,
    load_newest,
    restore_optimizer,
    save_checkpoint,
)
from pipeline.errors import TrainingError
from pipeline.records import ProgressCallback
from pipeline.settings import LoopSettings
from pipeline.train.trainee import Trainee
from pipeline.train.training_log import TrainingLog


def train(
    trainee: Trainee, settings: LoopSettings, folder: Path, what: str, progress: ProgressCallback
) -> dict[str, Any]:
    """Train to ``settings.images``, going on from the newest checkpoint in ``folder`` where there is one.

    Args:
        trainee: networks and data.
        settings: lengths, in images.
        folder: output; holds ``checkpoints/``, ``grids/``, ``tensorboard/``, ``log.parquet``, ``model/``.
        what: unit for the progress, e.g. ``lesion training images``.
        progress: told after every step.

    Returns:
        Facts: images, final terms, and what the trainee adds.

    Raises:
        TrainingError: a loss is not finite; checkpoints before it stay.
    """
    checkpoints = folder / "checkpoints"
    images, rows = _resume(trainee, checkpoints)
    log = TrainingLog(folder, rows)
    resumed_at = images
    while images < settings.images:
        # --- one step
        trainee.step.set_learning_rate_factor(trainee.learning_rate_factor(images / settings.images))
        terms = _step(trainee, images)
        before, images = images, images + trainee.batch_size
        last = images >= settings.images
        log.add(terms, trainee.batch_size)
        progress(what, min(images, settings.images), settings.images)
        # --- what is due after it
        checkpoint_due = last or _crossed(settings.checkpoint_every_images, before, images)
        if checkpoint_due or _crossed(settings.log_every_images, before, images):
            log.close_interval(images)  # at a checkpoint too, so that a resumed log has the same rows
        if last or _crossed(settings.grid_every_images, before, images):
            _write_grid(trainee, log, folder, images)
        if checkpoint_due:
            save_checkpoint(checkpoints, images, _checkpoint(trainee, images, log.rows))
    log.write(folder / "log.parquet")
    facts = trainee.save(folder / "model", images)
    final = {name: value for name, value in log.last.items() if name != "images"}
    return {"images": images, "resumed_at_images": resumed_at, "final": final} | facts


def _crossed(every: int, before: int, after: int) -> bool:
    return before // every < after // every


def _step(trainee: Trainee, images: int) -> dict[str, Tensor]:
    try:
        return trainee.train_batch()
    except NonFiniteLossError as error:
        raise TrainingError(
            "Every loss must stay finite.",
            found=f"{error.term} = {error.value} after {images} images",
            allowed="finite numbers",
            change="Lower the learning rates, or choose another objective; the last good checkpoint is kept.",
        ) from None


def _write_grid(trainee: Trainee, log: TrainingLog, folder: Path, images: int) -> None:
    picture = trainee.grid()
    (folder / "grids").mkdir(exist_ok=True)
    imsave(folder / "grids" / f"{images:010d}.png", picture, check_contrast=False)
    log.add_picture(picture, images)


def _checkpoint(trainee: Trainee, images: int, rows: list[dict[str, Any]]) -> Checkpoint:
    tensors: dict[str, Tensor] = {}
    optimizers = {}
    for name, network in trainee.step.networks().items():
        tensors |= {f"network/{name}/{key}": value for key, value in network.state_dict().items()}
    for name, optimizer in trainee.step.optimizers().items():
        flat, optimizers[name] = flatten_optimizer(f"optimizer/{name}", optimizer)
        tensors |= flat
    tensors |= {f"extra/{name}": value for name, value in trainee.step.extra_state().items()}
    tensors |= {f"generator/{name}": rng.get_state() for name, rng in trainee.generators.items()}
    return Checkpoint(tensors, {"images": images, "rows": rows, "optimizers": optimizers})


def _resume(trainee: Trainee, checkpoints: Path) -> tuple[int, list[dict[str, Any]]]:
    """Restore the newest checkpoint; returns the images shown so far and the log rows."""
    found = load_newest(checkpoints)
    if found is None:
        return 0, []
    for name, network in trainee.step.networks().items():
        network.load_state_dict(_part(found.tensors, f"network/{name}/"))
    for name, optimizer in trainee.step.optimizers().items():
        restore_optimizer(f"optimizer/{name}", optimizer, found.tensors, found.state["optimizers"][name])
    device = next(iter(trainee.step.networks().values())).parameters().__next__().device
    trainee.step.load_extra_state({name: value.to(device) for name, value in _part(found.tensors, "extra/").items()})
    for name, rng in trainee.generators.items():
        rng.set_state(found.tensors[f"generator/{name}"])
    return int(found.state["images"]), list(found.state["rows"])


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
