"""A synthetic lesion cohort by recipe: n images of each class, each from its own seed.

Truncation scales the latent: below 1 images are nearer the mean, safer and less varied (Brock 2019, section 3.1).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch

from pipeline.errors import InputError
from pipeline.files import write_json
from pipeline.intensity import to_int16
from pipeline.records import ProgressCallback
from pipeline.settings import GenerateLesionsSettings
from pipeline.trained_models import load_lesion_generator

_BATCH = 64


def resolve_recipe(per_class: int | Mapping[str, int], classes: Sequence[str]) -> dict[str, int]:
    """Number of images for every class of the model.

    Raises:
        InputError: the recipe names a class that the model does not know, or asks for nothing.
    """
    if isinstance(per_class, int):
        return dict.fromkeys(classes, per_class)
    unknown = sorted(set(per_class) - set(classes))
    if unknown or not any(per_class.values()):
        raise InputError(
            "A recipe names classes that the model was trained on, and asks for at least one image.",
            found=", ".join(unknown) or "no image",
            allowed=", ".join(classes),
            change="Correct generate.lesions.per_class.",
        )
    return {name: per_class.get(name, 0) for name in classes}


def make_cohort(
    model: Path,
    model_sha256: str,
    settings: GenerateLesionsSettings,
    seed: int,
    device: torch.device,
    folder: Path,
    progress: ProgressCallback,
) -> dict[str, int]:
    """Write ``images.npy``, ``cohort.parquet`` and ``cohort.json``; returns the number of images per class.

    Image i is made from the latent drawn with seed ``seed * 2**20 + i`` alone, so that any image can be made again.
    """
    generator, model_settings = load_lesion_generator(model, device)
    recipe = resolve_recipe(settings.per_class, model_settings.classes)
    names = [name for name, count in recipe.items() for _ in range(count)]
    seeds = [(seed << 20) + number for number in range(len(names))]
    made = []
    for start in range(0, len(names), _BATCH):
        part = slice(start, start + _BATCH)
        latent = torch.stack([_latent(s, model_settings.latent_size) for s in seeds[part]]) * settings.truncation
        classes = torch.tensor([model_settings.classes.index(name) for name in names[part]])
        with torch.inference_mode():
            images = generator(latent.to(device), classes.to(device))
        made.append(to_int16(images.float().cpu().numpy()))
        progress("synthetic images", min(start + _BATCH, len(names)), len(names))
    np.save(folder / "images.npy", np.concatenate(made))
    table = {"image": list(range(len(names))), "lesion_class": names, "seed": seeds}
    pl.DataFrame(table).with_columns(truncation=pl.lit(settings.truncation)).write_parquet(folder / "cohort.parquet")
    write_json(
        folder / "cohort.json",
        {"classes": list(model_settings.classes), "recipe": recipe, "model_sha256": model_sha256},
    )
    return recipe


def _latent(seed: int, size: int) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))
