"""Gratings of two classes that differ in their angle: easy to draw, hard to learn from two examples."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pytest
import torch

from models.lesion_gan.discriminator import DCGANDiscriminator
from pipeline.evaluate.cohorts import Cohort, Study
from pipeline.intensity import to_int16
from pipeline.prepared_set import ImageSet, read_image_set, write_image_set
from pipeline.trained_models import LesionGeneratorSettings, save_model

NAMES = ("flat", "steep | odd")
ANGLES = {"flat": 0.5, "steep | odd": 0.85}


class Draws:
    """Images and sets of them."""

    names = NAMES

    def images(self, name: str, count: int, seed: int, angle: float | None = None) -> np.ndarray:
        """(count, 1, 32, 32) in [-1, 1] of one class; ``angle`` replaces the mean angle of the class."""
        rng = np.random.default_rng([seed, NAMES.index(name)])
        rows, columns = np.mgrid[:32, :32] / 32
        made = []
        for _ in range(count):
            turn = (ANGLES[name] if angle is None else angle) + rng.normal(0, 0.12)
            phase = 2 * np.pi * rng.uniform(3, 5) * (np.cos(turn) * rows + np.sin(turn) * columns)
            wave = rng.uniform(0.3, 0.6) * np.cos(phase + rng.uniform(0, 2 * np.pi))
            made.append(np.clip(wave + rng.normal(0, 0.45, wave.shape) + rng.uniform(-0.2, 0.2), -1, 1))
        return np.stack(made)[:, None].astype(np.float32)

    def cohort(self, per_class: Sequence[int], seed: int, *, per_subject: int = 1) -> Cohort:
        """A cohort with the given number of images of each class."""
        images = np.concatenate([self.images(name, n, seed) for name, n in zip(NAMES, per_class, strict=True) if n])
        classes = np.repeat([0, 1], per_class)
        subjects = tuple(f"{seed}-{number // per_subject}" for number in range(len(images)))
        return Cohort(torch.from_numpy(images), torch.from_numpy(classes), subjects)

    def study(self, *, train: Cohort, held_out: Cohort, synthetic: Cohort) -> Study:
        return Study(NAMES, train, held_out, held_out, synthetic)

    def prepared(
        self, folder: Path, train: Sequence[np.ndarray], test: Sequence[np.ndarray], *, subjects: int | None = None
    ) -> ImageSet:
        """An image set from training and test images of each class; test images of ``subjects`` subjects."""
        rows, images = [], []
        for split, sides in (("train", train), ("test", test)):
            for name, side in zip(NAMES, sides, strict=True):
                for number, image in enumerate(side):
                    own = f"{split}-{name}-{number}"
                    subject = own if split == "train" or subjects is None else f"test-{number % subjects}"
                    rows.append(
                        {"image": len(rows), "subject_id": subject, "series_id": own, "lesion_id": own,
                         "lesion_class": name, "split": split, "slice_index": -1}
                    )  # fmt: skip
                    images.append(to_int16(image))
        write_image_set(folder, np.stack(images), pl.DataFrame(rows), {"classes": list(NAMES)})
        return read_image_set(folder)

    def synthetic(self, folder: Path, images: np.ndarray, classes: Sequence[str]) -> Path:
        """A cohort folder as `synthesize_lesions` leaves it."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "images.npy", to_int16(images))
        table = {"image": list(range(len(classes))), "lesion_class": list(classes), "seed": list(range(len(classes)))}
        pl.DataFrame(table).with_columns(truncation=pl.lit(1.0)).write_parquet(folder / "cohort.parquet")
        return folder

    def model(self, folder: Path, family: Literal["dcgan", "dcgan_classic"] = "dcgan") -> Path:
        """A model folder with an untrained discriminator for the images."""
        settings = LesionGeneratorSettings(family=family, size_px=32, channels=1, classes=NAMES, latent_size=8, width=8)
        discriminator = DCGANDiscriminator(32, torch.Generator().manual_seed(0), num_classes=2, width=8)
        save_model(folder, settings, {"discriminator": discriminator}, {})
        return folder

    def catalog(self, folder: Path, prepared: ImageSet, columns: Mapping[str, Sequence[str | None]]) -> Path:
        """A catalog folder that knows ``columns`` of the series of every image, and lesions of 1, 2, 3 ... cm³."""
        folder.mkdir(parents=True, exist_ok=True)
        unknown = dict.fromkeys(("study_uid", "modality", "body_part", "sequence", "source"), None)
        known = {name: pl.Series(list(values), dtype=pl.String) for name, values in columns.items()}
        series = prepared.table.select("series_id").with_columns(**(unknown | known))
        volumes = [1000.0 * (number + 1) for number in range(prepared.table.height)]
        series.write_parquet(folder / "series.parquet")
        lesions = prepared.table.select("lesion_id").with_columns(volume_mm3=pl.Series(volumes))
        lesions.write_parquet(folder / "lesions.parquet")
        return folder


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def draws() -> Draws:
    return Draws()
