import json

import numpy as np
import polars as pl
import pytest
import torch

from pipeline.errors import InputError
from pipeline.generate import cohort as cohort_module
from pipeline.generate.cohort import make_cohort
from pipeline.generate.ensemble import Member
from pipeline.intensity import to_int16
from pipeline.lesion_attributes import LesionAttribute
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
    settings = GenerateLesionsSettings.model_validate(changes if "lines" in changes else {"per_class": 3} | changes)
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


class Judge:
    """Rejects by the parity of images made so far, and remembers what it was shown."""

    def __init__(self, accept):
        self.accept, self.shown = accept, []

    def judge(self, images, lesion_class):
        first = len(self.shown)
        self.shown += [lesion_class] * len(images)
        return ["accepted" if self.accept(first + i) else "memorized" for i in range(len(images))]

    def facts(self, classes):
        return {"limit": 1}


def filtered(model, folder, monkeypatch, judge, **changes):
    folder.mkdir(exist_ok=True)
    monkeypatch.setattr(cohort_module.CohortFilter, "fit", lambda prepared, settings: judge)
    recipe = {} if "lines" in changes else {"per_class": {"a": 6}}
    settings = GenerateLesionsSettings.model_validate(recipe | {"filter": {"memorized": True}} | changes)
    facts = make_cohort([Member(model, "d" * 64)], settings, 1, CPU, folder, silent, prepared=object())
    return facts, np.load(folder / "images.npy"), pl.read_parquet(folder / "cohort.parquet")


def test_rejected_candidates_are_counted_and_replaced_by_the_next_seeds(model, tmp_path, monkeypatch):
    facts, images, table = filtered(model, tmp_path / "c", monkeypatch, Judge(lambda i: i % 3 == 0))
    assert facts["images"] == len(images) == 6
    assert facts["candidates"] == 16
    assert facts["rejected"] == {"out_of_manifold": 0, "memorized": 10}
    assert [seed - (1 << 20) for seed in table["seed"]] == [0, 3, 6, 9, 12, 15]
    _, whole, _ = made(model, tmp_path / "whole", per_class={"a": 16})
    assert np.abs(images.astype(int) - whole[::3]).max() <= 1, "an image is that of its seed, whatever was rejected"
    stored = json.loads((tmp_path / "c" / "cohort.json").read_text())["filter"]
    assert stored["limit"] == 1
    assert stored["lines"] == [{"lesion_class": "a", "out_of_manifold": 0, "memorized": 10}]


def test_lines_draw_from_seeds_of_their_own(model, tmp_path, monkeypatch):
    lines = [{"lesion_class": "a", "count": 3}, {"lesion_class": "b", "count": 3}]
    for number, judge in enumerate((Judge(lambda i: True), Judge(lambda i: i % 2 == 1))):
        _, _, table = filtered(model, tmp_path / str(number), monkeypatch, judge, lines=lines)
        assert min(table.filter(pl.col("lesion_class") == "b")["seed"]) - (1 << 20) in (12, 13)
        assert table["seed"].n_unique() == 6


def test_a_recipe_that_the_filter_starves_is_refused_with_counts_and_leaves_nothing(model, tmp_path, monkeypatch):
    with pytest.raises(InputError) as caught:
        filtered(model, tmp_path / "c", monkeypatch, Judge(lambda i: i < 2), filter={"memorized": True, "attempts": 3})
    assert caught.value.found == "a: 2 of 6 images; rejected: 0 out of manifold, 16 memorized"
    assert "18 candidates" in caught.value.allowed
    assert not list((tmp_path / "c").rglob("*"))


def test_a_stopped_cohort_goes_on_and_equals_an_uninterrupted_one(model, tmp_path, monkeypatch):
    monkeypatch.setattr(cohort_module, "_BATCH", 2)
    accept = Judge(lambda i: i % 2 == 0)
    _, whole, whole_table = filtered(model, tmp_path / "whole", monkeypatch, accept)

    class Stopped(Judge):
        def judge(self, images, lesion_class):
            if len(self.shown) == 6:
                raise KeyboardInterrupt
            return super().judge(images, lesion_class)

    with pytest.raises(KeyboardInterrupt):
        filtered(model, tmp_path / "c", monkeypatch, Stopped(lambda i: i % 2 == 0))
    assert len(list((tmp_path / "c" / "parts").iterdir())) == 3
    rest = Judge(lambda i: i % 2 == 0)
    _, images, table = filtered(model, tmp_path / "c", monkeypatch, rest)
    assert len(rest.shown) == len(accept.shown) - 6, "what was made is not made again"
    assert np.array_equal(images, whole)
    assert table.equals(whole_table)
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["cohort.json", "cohort.parquet", "images.npy"]


def test_the_recipe_has_a_seed_and_truncations_of_its_own(model, tmp_path):
    (tmp_path / "c").mkdir()
    lines = [{"lesion_class": "a", "count": 1}, {"lesion_class": "a", "count": 1, "truncation": 0.5}]
    settings = GenerateLesionsSettings.model_validate({"lines": lines, "seed": 1})
    make_cohort([Member(model, "d" * 64)], settings, 99, CPU, tmp_path / "c", silent)
    _, images, table = made(model, tmp_path / "run", seed=1, per_class={"a": 2})
    own = pl.read_parquet(tmp_path / "c" / "cohort.parquet")
    assert own["truncation"].to_list() == [1.0, 0.5]
    assert own["seed"].to_list() == table["seed"].to_list()
    assert np.array_equal(np.load(tmp_path / "c" / "images.npy")[0], images[0])


def trained(folder, seed, settings=MODEL):
    rng = torch.Generator().manual_seed(seed)
    network = build_lesion_generator(settings, rng)
    with torch.no_grad():
        for value in [*network.parameters(), *network.buffers()]:
            if value.is_floating_point():
                value.add_(torch.rand(value.shape, generator=rng) * 0.3)
    save_model(folder, settings, {LESION_GENERATOR: network}, {})
    return folder


def test_members_of_an_ensemble_take_turns_and_images_name_theirs(model, tmp_path):
    other = Member(trained(tmp_path / "other", 8), "e" * 64)
    (tmp_path / "c").mkdir()
    settings = GenerateLesionsSettings(per_class={"a": 5})
    facts = make_cohort([Member(model, "d" * 64), other], settings, 1, CPU, tmp_path / "c", silent)
    images, table = np.load(tmp_path / "c" / "images.npy"), pl.read_parquet(tmp_path / "c" / "cohort.parquet")
    assert facts["models"] == 2
    assert [digest[0] for digest in table["model_sha256"]] == ["d", "e", "d", "e", "d"]
    for member, rows in ((Member(model, ""), slice(0, None, 2)), (other, slice(1, None, 2))):
        folder = tmp_path / f"alone-{rows.start}"
        folder.mkdir()
        make_cohort([member], settings, 1, CPU, folder, silent)
        assert np.abs(np.load(folder / "images.npy")[rows].astype(int) - images[rows]).max() <= 1
    stored = json.loads((tmp_path / "c" / "cohort.json").read_text())
    assert stored["models"] == ["d" * 64, "e" * 64]
    assert stored["model_sha256"] not in stored["models"]


def test_generators_of_other_classes_make_no_ensemble(model, tmp_path):
    other = trained(tmp_path / "other", 8, MODEL.model_copy(update={"classes": ("a", "b")}))
    with pytest.raises(InputError, match="ensemble"):
        make_cohort(
            [Member(model, "d"), Member(other, "e")], GenerateLesionsSettings(per_class=1), 1, CPU, tmp_path, silent
        )


ATTRIBUTES = (
    LesionAttribute(name="size_mm", low=4, high=20, thirds=(8, 12)),
    LesionAttribute(name="sequence", levels=("T1", "T2")),
)


@pytest.fixture(scope="module")
def conditioned(tmp_path_factory):
    return trained(
        tmp_path_factory.mktemp("conditioned") / "model", 5, MODEL.model_copy(update={"attributes": ATTRIBUTES})
    )


def test_attributes_are_drawn_recorded_and_make_the_image(conditioned, tmp_path):
    lines = [
        {"lesion_class": "a", "count": 8, "attributes": {"size_mm": "small"}},
        {"lesion_class": "a", "count": 2, "attributes": {"size_mm": [15, 16], "sequence": "t2"}},
        {"lesion_class": "b", "count": 2},
    ]
    _, images, table = made(conditioned, tmp_path / "c", lines=lines)
    sizes, sequences = table["attribute_size_mm"].to_list(), table["attribute_sequence"].to_list()
    assert all(4 <= size <= 8 for size in sizes[:8])
    assert max(sizes[:8]) - min(sizes[:8]) > 1, "a range is drawn from"
    assert all(15 <= size <= 16 for size in sizes[8:10])
    assert sizes[10:] == [None, None]
    assert sequences == [None] * 8 + ["T2"] * 2 + [None] * 2
    generator, settings = load_lesion_generator(conditioned, CPU)
    for row in table.to_dicts():
        latent = torch.randn(settings.latent_size, generator=torch.Generator().manual_seed(row["seed"]))
        size, sequence = (row[f"attribute_{attribute.name}"] for attribute in ATTRIBUTES)
        told = [1.0 if row["lesion_class"] == "a" else 0.0, ATTRIBUTES[0].encode(size), ATTRIBUTES[1].encode(sequence)]
        with torch.no_grad():
            again = generator(latent[None], torch.tensor([told]))
        assert np.abs(to_int16(again.numpy())[0].astype(int) - images[row["image"]]).max() <= 1
