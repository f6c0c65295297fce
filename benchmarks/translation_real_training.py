"""Train a preset for a number of CPU minutes on real pairs, translate the test cases, score and show them."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from skimage.io import imsave
from torch import Tensor

from benchmarks.translation_real_data import SIZE_PX, Case, PairSet, Volume, mr_units, write_training_set
from benchmarks.translation_real_scores import scores_of
from pipeline.files import write_json
from pipeline.intensity import CT_MAP, GREY_MAP
from pipeline.settings_loading import find_preset, load
from pipeline.slice_stacks import BodyFrame, middle_inside, neighbors
from pipeline.train.mr_to_ct_training import MRToCTTraining
from pipeline.trained_models import TranslatorSettings, load_translator

_SLICES_AT_ONCE, _SHOWN = 8, 6


def train_for(
    folder: Path,
    pairs: PairSet,
    rotation: int,
    preset: str,
    changes: Sequence[str],
    minutes: float,
    parts: int,
    seed: int,
    moved: Mapping[str, Volume] | None = None,
) -> dict[str, Any]:
    """Train until the process has spent its time; scored, and a montage kept, after each part of it."""
    train, test = pairs.split(rotation)
    settings = load(find_preset(preset), [f"train.mr_to_ct.{change}" for change in changes]).train.mr_to_ct
    folder.mkdir(parents=True, exist_ok=True)
    volumes = write_training_set(folder / "set", pairs, train, moved)
    start, shown, kept, scoring = time.process_time(), 0, [], 0.0
    training = MRToCTTraining(volumes, settings, seed, torch.device("cpu"))
    translate = partial(translate_case, [training.step.translate], training.model_settings, pairs)
    while len(kept) < parts:
        spent = time.process_time() - start - scoring
        done = min(spent / (60 * minutes), 1.0)
        training.step.set_learning_rate_factor(training.learning_rate_factor(done))
        if done * parts >= len(kept) + 1:
            before = time.process_time()
            made = {case.name: translate(case) for case in test}
            scores = scores_of(pairs, test, lambda case, made=made: made[case.name])  # type: ignore[misc]
            mirrored = {"with_mirror_images": scores_of(pairs, test, partial(translate, mirrored=True))}
            kept.append({"images": shown, "cpu_s": round(spent)} | scores | mirrored)
            imsave(folder / f"part{len(kept)}.png", montage(pairs, test, made), check_contrast=False)
            write_json(folder / "parts.json", {"parts": kept})
            print(folder.name, {k: kept[-1][k] for k in ("images", "cpu_s", "mae", "bone_dice")}, flush=True)
            scoring += time.process_time() - before
            continue
        terms = training.train_batch()
        shown += training.batch_size
    training.save(folder / "model", shown)
    final = {name: round(float(value), 4) for name, value in terms.items()}
    return {"preset": preset, "changes": list(changes), "minutes": minutes, "parts": kept, "final": final}


def ensemble_of(folders: Sequence[Path], pairs: PairSet, rotation: int) -> dict[str, Any]:
    """Scores of the mean of several trained networks, each of which also sees the mirror images."""
    loaded = [load_translator(folder / "model", torch.device("cpu")) for folder in folders]
    networks, shape = [network for network, _ in loaded], loaded[0][1]
    return scores_of(
        pairs, pairs.split(rotation)[1], lambda case: translate_case(networks, shape, pairs, case, mirrored=True)
    )


@torch.inference_mode()
def translate_case(
    networks: Sequence[Callable[[Tensor], Tensor]],
    settings: TranslatorSettings,
    pairs: PairSet,
    case: Case,
    *,
    mirrored: bool = False,
) -> Volume:
    """Pseudo-CT (K, H, W) of whole slices, in HU or grey levels: the mean of the networks, and of mirror images."""
    units, mask = mr_units(case)
    frame, depth = BodyFrame.of(mask), len(units)
    places = np.arange(SIZE_PX)
    stacks, kept = [], []
    for index in range(depth):
        middle = middle_inside(index, settings.slices, depth) if settings.dimensions == 3 else index
        stack = units[neighbors(middle, settings.slices, depth)]
        if settings.coordinates:
            stack = np.concatenate([stack, frame.coordinates(middle, places, places)])
        stacks.append(torch.from_numpy(stack))
        kept.append(index - middle + settings.slices // 2)
    seen = torch.stack(stacks)
    answers = [_answers(network, seen) for network in networks]
    if mirrored:
        turned = seen.flip(-1)
        if settings.coordinates:
            turned[:, -1] *= -1
        answers += [_answers(network, turned).flip(-1) for network in networks]
    made = torch.stack(answers).mean(dim=0)[torch.arange(depth), torch.tensor(kept)]
    return (CT_MAP if pairs.unit == "HU" else GREY_MAP).decode(made.numpy())


def _answers(network: Callable[[Tensor], Tensor], stacks: Tensor) -> Tensor:
    return torch.cat([network(batch) for batch in stacks.split(_SLICES_AT_ONCE)])


def montage(pairs: PairSet, test: Sequence[Case], made: Mapping[str, Volume]) -> npt.NDArray[np.uint8]:
    """For every test case three rows, MR, pseudo-CT and CT, of evenly spaced slices and two neighbors at the end."""
    low, high = (-300.0, 1000.0) if pairs.unit == "HU" else (0.0, 255.0)
    rows = []
    for case in test:
        middle = len(case.mr) // 2
        shown = [*np.linspace(1, len(case.mr) - 2, _SHOWN).astype(int), middle, middle + 1]
        for volume, bottom, top in ((case.mr, 0.0, 255.0), (made[case.name], low, high), (case.ct, low, high)):
            grey = np.clip((volume[shown] - bottom) / (top - bottom), 0, 1) * 255
            rows.append(np.hstack(list(grey.astype(np.uint8))))
    return np.vstack(rows)
