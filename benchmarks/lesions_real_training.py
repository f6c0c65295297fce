"""Train a preset for a number of CPU minutes, and make cohorts from what was kept."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from skimage.io import imsave
from torch import Tensor

from benchmarks.lesions_real_data import open_set
from pipeline.files import read_json
from pipeline.intensity import from_int16
from pipeline.settings_loading import find_preset, load
from pipeline.train.lesion_training import LesionTraining
from pipeline.train.pictures import tile
from pipeline.trained_models import load_lesion_generator

Cohort = tuple[Tensor, Tensor]


def train_for(
    work: Path, set_name: str, run: str, preset: str, changes: Sequence[str], minutes: float, parts: int, seed: int
) -> dict[str, Any]:
    """Train until the process has spent its time; a model and a grid are kept after each part of it."""
    overrides = [f"train.lesions.{change}" for change in changes]
    settings = load(find_preset(preset), overrides).train.lesions
    training = LesionTraining(open_set(work, set_name), settings, seed, torch.device("cpu"))
    folder = work / "runs" / run
    folder.mkdir(parents=True, exist_ok=True)
    start, shown, kept = time.process_time(), 0, []
    while len(kept) < parts:
        done = (time.process_time() - start) / (60 * minutes)
        training.step.set_learning_rate_factor(training.learning_rate_factor(min(done, 1.0)))
        training.train_batch()
        shown += training.batch_size
        spent = time.process_time() - start
        if spent >= 60 * minutes * (len(kept) + 1) / parts:
            kept.append({"images": shown, "cpu_s": round(spent)})
            part = folder / f"part{len(kept)}"
            training.save(part, shown)
            imsave(folder / f"part{len(kept)}.png", training.grid(), check_contrast=False)
    facts = {"preset": preset, "changes": list(changes), "seed": seed, "minutes": minutes, "parts": kept}
    (folder / "facts.json").write_text(json.dumps(facts))
    return facts


def part_of(work: Path, run: str, part: int) -> Path:
    """Folder of one of the models that a run kept; part 0 is the last."""
    folder = work / "runs" / run
    return folder / f"part{part or len(read_json(folder / 'facts.json')['parts'])}"


@torch.inference_mode()
def make_images(model: Path, per_class: Sequence[int], seed: int, truncation: float = 1.0) -> Cohort:
    """Images (N, C, H, W) in [-1, 1] and their classes (N,)."""
    generator, settings = load_lesion_generator(model, torch.device("cpu"))
    classes = torch.arange(len(settings.classes)).repeat_interleave(torch.tensor(per_class))
    rng = torch.Generator().manual_seed(seed)
    latent = torch.randn(len(classes), settings.latent_size, generator=rng) * truncation
    made = [generator(z, c) for z, c in zip(latent.split(128), classes.split(128), strict=True)]
    return torch.cat(made).contiguous().clone(), classes


def real_above_synthetic(
    work: Path, set_name: str, run: str, part: int, rows: int = 4, columns: int = 12
) -> npt.NDArray[np.uint8]:
    """Rows of real training images of a class, drawn at random, above as many of synthetic ones; class by class."""
    images = open_set(work, set_name)
    classes, draw = images.class_indices(), np.random.default_rng(0)
    made, labels = make_images(part_of(work, run, part), [rows * columns] * len(images.classes), seed=1)
    shown = []
    for index in range(len(images.classes)):
        members = [row for row in images.rows("train") if classes[row] == index]
        chosen = draw.choice(members, rows * columns, replace=len(members) < rows * columns)
        shown += [from_int16(np.asarray(images.images[chosen, 0])), made[labels == index, 0].numpy()]
    return tile(np.concatenate(shown), columns)
