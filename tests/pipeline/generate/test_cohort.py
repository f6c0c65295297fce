import json

import numpy as np
import polars as pl
import pytest
import torch

from pipeline.generate import cohort as cohort_module
from pipeline.generate.cohort import make_cohort
from pipeline.generate.ensemble import Member
from pipeline.intensity import to_int16
from pipeline.records import silent
from pipeline.settings import GenerateLesionsSettings
from pipeline.trained_models import (
    LESION_GENERATOR,
    LesionGeneratorSettings,
    build_lesion_generator,
    load_lesion_generator,
    save_model,
)

CPU = torch.device("cpu")
MODEL = LesionGeneratorSettings(family="dcgan", size_px=32, channels=1, classes=("b", "a"), latent_size=8, width=4)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A generator whose weights and batch statistics are random and far from those of a fresh one."""
    folder = tmp_path_factory.mktemp("model")
    rng = torch.Generator().manual_seed(4)
    network = build_lesion_generator(MODEL, rng)
    with torch.no_grad():
        for value in [*network.parameters(), *network.buffers()]:
            if value.is_floating_point():
                value.add_(torch.rand(value.shape, generator=rng) * 0.3)
    save_model(folder, MODEL, {LESION_GENERATOR: network}, {})
    return folder


def made(model, folder, seed=1, progress=silent, **changes):
    folder.mkdir()
    settings = GenerateLesionsSettings.model_validate({"per_class": 3} | changes)
    facts = make_cohort([Member(model, "d" * 64)], settings, seed, CPU, folder, progress)
    return facts["per_class"], np.load(folder / "images.npy"), pl.read_parquet(folder / "cohort.parquet")


def test_the_cohort_holds_what_the_recipe_says(model, tmp_path):
    recipe, images, table = made(model, tmp_path / "c", per_class={"a": 3, "b": 1}, truncation=0.7)
    assert recipe == {"b": 1, "a": 3}
    assert images.shape == (4, 1, 32, 32)
    assert images.dtype == np.int16
    assert table["lesion_class"].to_list() == ["b", "a", "a", "a"]
    assert table["image"].to_list() == [0, 1, 2, 3]
    assert set(table["truncation"]) == {0.7}
    stored = json.loads((tmp_path / "c" / "cohort.json").read_text())
    assert stored["classes"] == ["b", "a"]
    assert stored["recipe"] == {"a": 3, "b": 1}
    assert stored["model_sha256"] == "d" * 64
    assert stored["models"] == ["d" * 64]
    assert stored["filter"] is None


def test_any_image_can_be_made_again_from_its_row_alone(model, tmp_path):
    _, images, table = made(model, tmp_path / "c", truncation=0.8)
    generator, settings = load_lesion_generator(model, CPU)
    for row in table.to_dicts():
        rng = torch.Generator().manual_seed(row["seed"])
        latent = torch.randn(settings.latent_size, generator=rng) * row["truncation"]
        with torch.no_grad():
            again = generator(latent[None], torch.tensor([settings.classes.index(row["lesion_class"])]))
        assert np.abs(to_int16(again.numpy())[0].astype(int) - images[row["image"]]).max() <= 1


@pytest.mark.parametrize("batch", [1, 4])
def test_images_do_not_depend_on_the_batch_they_were_made_in(model, tmp_path, monkeypatch, batch):
    _, whole, _ = made(model, tmp_path / "whole")
    monkeypatch.setattr(cohort_module, "_BATCH", batch)
    done = []
    _, parts, _ = made(model, tmp_path / "parts", progress=lambda what, now, total: done.append((now, total)))
    assert np.abs(whole.astype(int) - parts).max() <= 1
    assert done[-1] == (6, 6)
    assert done == sorted(done)
    assert len(done) == 2 * -(-3 // batch)


def test_equal_seeds_give_equal_files_and_others_do_not(model, tmp_path):
    _, first, table = made(model, tmp_path / "one", seed=1)
    _, again, _ = made(model, tmp_path / "two", seed=1)
    _, other, other_table = made(model, tmp_path / "three", seed=2)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not set(table["seed"]) & set(other_table["seed"])
    assert (tmp_path / "one" / "cohort.parquet").read_bytes() == (tmp_path / "two" / "cohort.parquet").read_bytes()


def test_images_of_a_class_follow_the_class(model, tmp_path):
    _, images, table = made(model, tmp_path / "c")
    assert len(np.unique(images, axis=0)) == 6, "no two images are alike"
    generator, _ = load_lesion_generator(model, CPU)
    latent = torch.stack([torch.randn(8, generator=torch.Generator().manual_seed(table["seed"][3]))] * 2)
    with torch.no_grad():
        pair = to_int16(generator(latent, torch.tensor([0, 1])).numpy())
    assert np.abs(pair[1].astype(int) - images[3]).max() <= 1, "row 3 is the first of class a, index 1"
    assert not np.array_equal(pair[0], pair[1])


def test_truncation_scales_the_latent_and_with_it_the_variety(model, tmp_path):
    spread = []
    for number, truncation in enumerate((0.02, 0.1, 0.5)):
        _, images, _ = made(model, tmp_path / str(number), per_class={"a": 12}, truncation=truncation)
        spread.append(images.std(axis=0).mean())
    assert spread == sorted(spread)
    assert spread[0] < 0.3 * spread[1]
