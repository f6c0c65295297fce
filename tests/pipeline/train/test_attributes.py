"""Training on attributes: what networks are told, what is left out, what the model remembers."""

import numpy as np
import polars as pl
import pytest
import torch

from pipeline.errors import InputError
from pipeline.intensity import to_int16
from pipeline.lesion_attributes import attributes_of
from pipeline.prepared_set import IMAGE_SCHEMA, ImageSet
from pipeline.settings import TrainLesionsSettings
from pipeline.train.lesion_training import LesionTraining
from pipeline.trained_models import lesion_generator_settings, load_backbone, load_lesion_generator

SIDE, COUNT = 32, 80
CPU = torch.device("cpu")
SETTINGS = TrainLesionsSettings(width=4, latent_size=8, batch_size=16, images=32)


def disk_set(count: int = COUNT) -> ImageSet:
    """Bright and dark disks of known diameters; every fourth diameter is not known."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    sizes, kinds = rng.uniform(4, 20, count), np.arange(count) % 2
    images = []
    for size, kind in zip(sizes, kinds, strict=True):
        center = rng.normal(15.5, 1, 2)
        disk = 1 / (1 + np.exp(2 * (np.hypot(rows - center[0], columns - center[1]) - size / 2)))
        images.append(-0.3 + (-0.6 if kind else 0.7) * disk + rng.normal(0, 0.03, disk.shape))
    table = pl.DataFrame(
        {
            "image": np.arange(count),
            "lesion_class": [("bright", "dark")[kind] for kind in kinds],
            "split": ["train" if index % 10 else "validation" for index in range(count)],
            "attribute_size_mm": [float(size) if index % 4 else None for index, size in enumerate(sizes)],
        }
    )
    table = table.with_columns(pl.lit("x").alias(name) for name in IMAGE_SCHEMA if name not in table.columns)
    described = attributes_of(table.select(pl.col("attribute_size_mm").alias("size_mm")), ["size_mm"])
    facts = {
        "classes": ["bright", "dark"],
        "attributes": [attribute.model_dump(mode="json") for attribute in described],
        "counts": {"train": {}}, "modality": "MR", "size_px": SIDE, "pixel_mm": 1.0,
    }  # fmt: skip
    return ImageSet(to_int16(np.clip(np.stack(images)[:, None], -1, 1)), table, facts)


class Watched(LesionTraining):
    """Keeps the conditions that the networks were told."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.told = []
        step = self.step.step

        def watched(images, conditions):
            self.told.append((images, conditions))
            return step(images, conditions)

        self.step.step = watched  # type: ignore[method-assign]


def test_networks_are_told_the_attributes_of_the_images_they_see():
    images = disk_set()
    training = Watched(images, SETTINGS, 1, CPU)
    for _ in range(5):
        training.train_batch()
    pixels = np.asarray(images.images, np.float32) / 16384
    values, classes = images.attribute_values()[:, 0], images.class_indices()
    known = missing = 0
    for batch, conditions in training.told:
        for image, (kind, size) in zip(batch.numpy(), conditions.tolist(), strict=True):
            row = int(np.abs(pixels - image).sum(axis=(1, 2, 3)).argmin())
            assert classes[row] == kind
            if np.isnan(size):
                missing += 1
            else:
                known += 1
                assert size == pytest.approx(values[row])
    assert 0.15 < missing / (known + missing) < 0.55, "a quarter is unknown, a tenth of the rest is left out"


def test_the_model_remembers_what_it_was_conditioned_on(tmp_path):
    training = LesionTraining(disk_set(), SETTINGS, 1, CPU)
    training.train_batch()
    training.save(tmp_path / "model", 16)
    known = lesion_generator_settings(tmp_path / "model")
    assert [attribute.name for attribute in known.attributes] == ["size_mm"]
    generator, _ = load_lesion_generator(tmp_path / "model", CPU)
    with torch.no_grad():
        images = generator(torch.zeros(2, 8), torch.tensor([[0.0, -1.0], [1.0, float("nan")]]))
    assert images.shape == (2, 1, SIDE, SIDE)
    assert load_backbone(tmp_path / "model")(images).shape[0] == 2


def test_equal_seeds_train_equal_networks():
    weights = []
    for _ in range(2):
        training = LesionTraining(disk_set(), SETTINGS, 4, CPU)
        for _ in range(3):
            training.train_batch()
        weights.append(training.step.networks()["generator"].state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_classic_family_has_no_attributes():
    with pytest.raises(InputError, match="dcgan_classic with size_mm"):
        LesionTraining(disk_set(), SETTINGS.model_copy(update={"family": "dcgan_classic"}), 1, CPU)
