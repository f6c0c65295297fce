"""Does the flight recorder raise its alarms when a training is provoked, and stay silent when it is healthy?

Small trainings at 32 pixels on drawn discs and rings, whose position, size, brightness and background vary:

- *fast_discriminator*: the learning rate of D is 100 times its own, without the spectral normalization that lets D
  survive that (with it, some such runs train about as well as healthy ones, and then nothing is there to be found).
- *constant_generator*: G's last layer is zero and stays so.
- *single_image*: every class holds copies of one image under faint noise.
- *nan*: a batch holds one NaN; the alarm is followed by going back, and the training goes on to its end.
- *healthy*: nothing is wrong. Objectives take turns.

The first three end the training at the alarm. A provoked run counts as found when the alarm is one of those expected.

    python -m benchmarks.flight_recorder --seeds 10 --healthy 20 --out bench-out
"""

import argparse
import json
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from pipeline.errors import TrainingError
from pipeline.files import write_json
from pipeline.intensity import to_int16
from pipeline.prepared_set import ImageSet, read_image_set, write_image_set
from pipeline.records import silent
from pipeline.settings import TrainLesionsSettings
from pipeline.train.lesion_training import LesionTraining
from pipeline.train.loop import train
from pipeline.training_alarms import read_alarms

SIDE_PX, BATCH = 32, 16
HEALTHY_IMAGES, PROVOKED_IMAGES, LOG_EVERY, GRACE_IMAGES = 2048, 6144, 128, 768
OBJECTIVES: tuple[dict[str, Any], ...] = (
    {"objective": "non_saturating"},
    {"objective": "hinge"},
    {"objective": "minimax"},
    {"objective": "least_squares"},
    {"objective": "relativistic", "r1_gamma": 1.0, "r2_gamma": 1.0},
    {"objective": "wasserstein", "spectral_norm": False, "gradient_penalty": 10.0},
)
"""A healthy run takes the one whose turn it is."""
BOUNDED = OBJECTIVES[:3]
"""Those with rules about D's loss."""
EXPECTED = {
    "fast_discriminator": {"discriminator_won", "discriminator_lost", "discriminator_at_chance", "diversity_lost"},
    "constant_generator": {"diversity_lost"},
    "single_image": {"data_without_variety"},
    "nan": {"non_finite"},
}


def drawn_images(count: int, rng: np.random.Generator, *, ring: bool) -> npt.NDArray[np.float64]:
    """Discs or rings, (count, 1, 32, 32) in units."""
    rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX]
    images = np.empty((count, 1, SIDE_PX, SIDE_PX))
    for image in images:
        center, radius = rng.uniform(11, 21, 2), rng.uniform(4, 9)
        distance = np.hypot(rows - center[0], columns - center[1])
        inside = 1 / (1 + np.exp(2 * (distance - radius)))
        if ring:
            inside -= 1 / (1 + np.exp(2 * (distance - 0.55 * radius)))
        ground = -0.6 + 0.2 * np.sin(rng.uniform(0, 6) + rows * rng.uniform(0.05, 0.3)) * np.cos(
            columns * rng.uniform(0, 0.3)
        )
        image[0] = ground + rng.uniform(0.6, 1.3) * inside + rng.normal(0, 0.03, (SIDE_PX, SIDE_PX))
    return images.clip(-1, 1)


def drawn_set(folder: Path, seed: int, *, single: bool = False) -> ImageSet:
    """Two classes with 150 training, 40 validation and 10 test images each."""
    rng = np.random.default_rng([seed, 17])
    splits = ["train"] * 150 + ["validation"] * 40 + ["test"] * 10
    table, images = [], []
    for name in ("disc", "ring"):
        drawn = drawn_images(1 if single else len(splits), rng, ring=name == "ring")
        if single:
            drawn = drawn + rng.normal(0, 0.01, (len(splits), 1, SIDE_PX, SIDE_PX))
        images.append(to_int16(drawn.clip(-1, 1)))
        for number, split in enumerate(splits):
            key = f"{name}-{number}"
            table.append(
                {"image": len(table), "subject_id": key, "series_id": key, "lesion_id": key, "slice_index": -1,
                 "lesion_class": name, "split": split}
            )  # fmt: skip
    facts = {"classes": ["disc", "ring"], "counts": {"train": {"disc": 150, "ring": 150}}, "modality": "MR",
             "size_px": SIDE_PX, "pixel_mm": 1.0, "channels": 1}  # fmt: skip
    write_image_set(folder, np.concatenate(images), pl.DataFrame(table), facts)
    return read_image_set(folder)


def settings_for(game: dict[str, Any], *, images: int, action: str) -> TrainLesionsSettings:
    return TrainLesionsSettings(
        **{
            "images": images,
            "batch_size": BATCH,
            "width": 6,
            "latent_size": 16,
            "ema_decay": 0.99,
            "log_every_images": LOG_EVERY,
            "checkpoint_every_images": 512,
            "grid_every_images": 65536,
            "alarms": {"action": action, "probe_images": 32, "grace_images": GRACE_IMAGES},
        }
        | game
    )


def constant(training: LesionTraining) -> None:
    """Keep G's last layer at zero: every image is grey."""
    for parameter in training.step.generator.to_image.parameters():
        with torch.no_grad():
            parameter.zero_()
        parameter.register_hook(torch.zeros_like)
    for average in training.step.ema.average.to_image.parameters():
        average.zero_()


def poison(training: LesionTraining, at_step: int) -> None:
    """Put one NaN into the batch of one step."""
    whole, calls = training.step.step, Counter[str]()

    def step(images: torch.Tensor, classes: torch.Tensor) -> dict[str, torch.Tensor]:
        calls["steps"] += 1
        if calls["steps"] == at_step:
            images = images.clone()
            images[0, 0, 0, 0] = float("nan")
        return whole(images, classes)

    training.step.step = step  # type: ignore[method-assign]


def outcome(kind: str, seed: int, folder: Path) -> dict[str, Any]:
    """One run: its alarms, images shown, rows, CPU seconds."""
    game = (OBJECTIVES if kind == "healthy" else BOUNDED)[
        seed % (len(OBJECTIVES) if kind == "healthy" else len(BOUNDED))
    ]
    if kind == "fast_discriminator":
        game = game | {"learning_rate_discriminator": 0.1, "spectral_norm": False}
    action = {"healthy": "warn", "nan": "roll_back"}.get(kind, "stop")
    images = {"healthy": HEALTHY_IMAGES, "nan": 256}.get(kind, PROVOKED_IMAGES)
    settings = settings_for(game, images=images, action=action)
    start = time.process_time()
    training = LesionTraining(
        drawn_set(folder / "set", seed, single=kind == "single_image"), settings, seed, torch.device("cpu")
    )
    change: dict[str, Callable[[], None]] = {
        "constant_generator": lambda: constant(training),
        "nan": lambda: poison(training, 4 + seed),
    }
    change.get(kind, lambda: None)()
    ended = True
    try:
        train(training, settings, folder / "run", "images", silent)
    except TrainingError:
        ended = False
    alarms = read_alarms(folder / "run")
    log = folder / "run" / "log.parquet"
    last = pl.read_parquet(log).drop("alarm", strict=False).row(-1, named=True) if log.exists() else {}
    return {
        "kind": kind,
        "seed": seed,
        "objective": settings.objective,
        "alarms": [alarm.alarm for alarm in alarms],
        "after_images": [alarm.images for alarm in alarms],
        "found": bool(EXPECTED.get(kind, set()) & {alarm.alarm for alarm in alarms}),
        "went_on_to_its_end": ended,
        "cpu_seconds": round(time.process_time() - start, 1),
        "last": {name: value if value is None else round(float(value), 4) for name, value in last.items()},
    }


def run(kinds: dict[str, int], lines: Path) -> dict[str, Any]:
    """Every run of every kind, and how many of each kind raised an alarm. Runs found in ``lines`` are not repeated."""
    runs = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
    done = {(each["kind"], each["seed"]) for each in runs}
    # Kinds take turns, so that a benchmark that is stopped early has some of each.
    planned = [(kind, seed) for seed in range(max(kinds.values())) for kind in kinds if seed < kinds[kind]]
    for kind, seed in planned:
        if (kind, seed) in done:
            continue
        with tempfile.TemporaryDirectory() as folder:
            runs.append(outcome(kind, seed, Path(folder)))
        with lines.open("a") as stream:
            stream.write(json.dumps(runs[-1]) + "\n")
        print(f"{kind} {seed}: {', '.join(runs[-1]['alarms']) or 'silent'}", flush=True)
    counts = {}
    for kind in kinds:
        of_kind = [each for each in runs if each["kind"] == kind]
        raised = sum(bool(each["alarms"]) if kind == "healthy" else each["found"] for each in of_kind)
        counts[kind] = {"runs": len(of_kind), "with_alarm": raised}
        print(f"{kind}: alarm in {raised} of {len(of_kind)} runs")
    return {"counts": counts, "runs": sorted(runs, key=lambda each: (each["kind"], each["seed"]))}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flight_recorder", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10, help="runs of each provoked kind")
    parser.add_argument("--healthy", type=int, default=20, help="healthy runs")
    parser.add_argument("--out", type=Path, default=Path("bench-out"), help="folder of the JSON file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    kinds = dict.fromkeys(EXPECTED, options.seeds) | {"healthy": options.healthy}
    content = {
        "benchmark": "flight_recorder",
        "command": f"python -m benchmarks.flight_recorder --seeds {options.seeds} --healthy {options.healthy}",
        **run(kinds, options.out / "flight_recorder.jsonl"),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    write_json(options.out / "flight_recorder.json", content)


if __name__ == "__main__":
    main()
