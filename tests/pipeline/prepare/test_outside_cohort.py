from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from PIL import Image

from pipeline.errors import InputError
from pipeline.ingest.stage import ingest
from pipeline.intensity import from_int16
from pipeline.prepare.outside_cohort import Sides, eight_bits, prepare_outside_images, take_in_cohort
from pipeline.prepared_set import read_image_set
from pipeline.settings import PrepareLesionsSettings, PrepareSettings, RunSettings
from pipeline.workspace import Workspace

SETTINGS = RunSettings(
    tracks=("lesions",), prepare=PrepareSettings(lesions=PrepareLesionsSettings(size_px=32, min_images_per_class=3))
)


def picture(seed, edge=32, depth=255):
    """Blocks of random gray: alike in no two seeds."""
    blocks = np.random.default_rng(seed).integers(0, depth + 1, (8, 8))
    kind = np.uint8 if depth == 255 else np.uint16
    return np.kron(blocks, np.ones((edge // 8, edge // 8))).astype(kind)


def write(folder: Path, counts: dict[str, int], seed: int, **options):
    for number, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            Image.fromarray(picture([seed, number, index], **options)).save(folder / name / f"{index}.png")
    return folder


def taken_in(root: Path, *, test: bool = True):
    workspace = Workspace.open(root / "work")
    records = {name: ingest(workspace, SETTINGS, root / name) for name in ("real", "synthetic")}
    sides = Sides(records["real"], records["synthetic"], ingest(workspace, SETTINGS, root / "test") if test else None)
    prepared = prepare_outside_images(workspace, SETTINGS, sides)
    cohort = take_in_cohort(workspace, SETTINGS, sides, prepared)
    return SimpleNamespace(
        prepared=prepared,
        cohort=cohort,
        real=read_image_set(prepared.path(workspace.root)),
        synthetic=np.load(cohort.path(workspace.root) / "images.npy"),
        table=pl.read_parquet(cohort.path(workspace.root) / "cohort.parquet"),
    )


@pytest.mark.parametrize("depth", [1023, 4095, 16383, 65535])
def test_ends_of_a_range_keep_their_place(depth):
    assert eight_bits(np.array([0, depth // 2, depth], np.uint16), depth).tolist() == [0, 127, 255]


def test_eight_bits_stay_as_they_are():
    levels = np.arange(256, dtype=np.uint8)
    assert np.array_equal(eight_bits(levels, 4095), levels)


def test_test_images_as_given(tmp_path):
    write(tmp_path / "real", {"a": 4, "b": 5}, 1)
    write(tmp_path / "test", {"a": 2, "b": 3}, 2)
    write(tmp_path / "synthetic", {"a": 6, "b": 1}, 3)
    found = taken_in(tmp_path)
    assert found.prepared.facts["counts"]["train"] == {"a": 4, "b": 5}
    assert found.prepared.facts["counts"]["test"] == {"a": 2, "b": 3}
    assert found.prepared.facts["split_rule"] == "test images as given"
    assert found.prepared.facts["notes"] == []
    assert found.cohort.facts["per_class"] == {"a": 6, "b": 1}
    assert found.real.images.shape == (14, 1, 32, 32)
    assert found.synthetic.shape == (7, 1, 32, 32)
    assert not (tmp_path / "work" / "splits.json").exists()


def test_both_sides_take_the_same_way(tmp_path):
    """The same pictures given as real and as synthetic give the same pixels, in the same order within a class."""
    for folder in ("real", "synthetic"):
        write(tmp_path / folder, {"a": 4, "b": 4}, 1, edge=48)
    write(tmp_path / "test", {"a": 2, "b": 3}, 2)
    found = taken_in(tmp_path)
    train = found.real.images[found.real.rows("train")]
    assert {image.tobytes() for image in train} == {image.tobytes() for image in found.synthetic}


def test_sixteen_bits_have_one_range_on_all_sides(tmp_path):
    """12-bit pictures in 16-bit files are no darker than 8-bit ones."""
    write(tmp_path / "real", {"a": 4, "b": 4}, 1)
    write(tmp_path / "test", {"a": 2, "b": 3}, 2)
    for name in ("a", "b"):
        (tmp_path / "synthetic" / name).mkdir(parents=True)
        for index, level in enumerate((0, 2048, 4095)):
            pixels = np.full((32, 32), level, np.uint16)
            pixels[0, 0] = index
            Image.fromarray(pixels).save(tmp_path / "synthetic" / name / f"{index}.png")
    found = taken_in(tmp_path)
    middles = sorted({round(float(value), 2) for value in from_int16(found.synthetic)[:, 0, 16, 16]})
    assert middles == [-1.0, 0.0, 1.0]


def test_enlarged_and_shrunk_images_are_told(tmp_path):
    write(tmp_path / "real", {"a": 4, "b": 4}, 1, edge=64)
    write(tmp_path / "test", {"a": 2, "b": 3}, 2, edge=64)
    write(tmp_path / "synthetic", {"a": 3, "b": 3}, 3, edge=16)
    found = taken_in(tmp_path)
    assert any("13 of 13 images were shrunk" in note for note in found.prepared.facts["notes"])
    assert any("6 of 6 images were enlarged" in note for note in found.cohort.facts["notes"])


def test_without_test_images_a_part_is_held_out_and_said_so(tmp_path):
    write(tmp_path / "real", {"a": 20, "b": 20}, 1)
    write(tmp_path / "synthetic", {"a": 3, "b": 3}, 3)
    found = taken_in(tmp_path, test=False)
    table = found.real.table
    assert set(table["split"]) == {"train", "validation", "test"}
    assert "made here" in found.prepared.facts["split_rule"]
    assert any("has seen that part" in note for note in found.prepared.facts["notes"])


def test_copies_of_one_picture_stay_on_one_side(tmp_path):
    write(tmp_path / "real", {"a": 16, "b": 16}, 1)
    for number in range(16):  # every picture twice, once mirrored and darker
        for name in ("a", "b"):
            pixels = np.asarray(Image.open(tmp_path / "real" / name / f"{number}.png"))
            twin = (pixels[:, ::-1] * 0.8).astype(np.uint8)
            Image.fromarray(twin).save(tmp_path / "real" / name / f"twin-{number}.png")
    write(tmp_path / "synthetic", {"a": 3, "b": 3}, 3)
    table = taken_in(tmp_path, test=False).real.table
    assert table.height == 64
    assert table["subject_id"].n_unique() == 32
    assert table.group_by("subject_id").agg(pl.col("split").n_unique())["split"].max() == 1


def test_a_published_split_is_kept(tmp_path):
    write(tmp_path / "real" / "train", {"a": 5, "b": 5}, 1)
    write(tmp_path / "real" / "test", {"a": 2, "b": 3}, 2)
    write(tmp_path / "synthetic", {"a": 3, "b": 3}, 3)
    found = taken_in(tmp_path, test=False)
    assert found.prepared.facts["counts"]["test"] == {"a": 2, "b": 3}
    assert "as published" in found.prepared.facts["split_rule"]
    assert found.prepared.facts["notes"] == []


def test_test_images_are_given_once(tmp_path):
    write(tmp_path / "real" / "train", {"a": 5, "b": 5}, 1)
    write(tmp_path / "real" / "test", {"a": 2, "b": 3}, 2)
    write(tmp_path / "test", {"a": 2, "b": 3}, 4)
    write(tmp_path / "synthetic", {"a": 3, "b": 3}, 3)
    with pytest.raises(InputError, match="given once"):
        taken_in(tmp_path)


@pytest.mark.parametrize(
    ("real", "test", "synthetic", "words"),
    [
        ({"a": 4, "b": 4}, {"a": 2, "b": 2}, {"a": 3, "c": 3}, "classes of the real ones"),
        ({"a": 4}, {"a": 2}, {"a": 3}, "at least two classes"),
        ({"a": 4, "b": 2}, {"a": 2, "b": 2}, {"a": 3}, "for training"),
        ({"a": 4, "b": 4}, {"a": 2}, {"a": 3}, "for testing"),
    ],
)
def test_classes_that_cannot_be_compared(tmp_path, real, test, synthetic, words):
    for seed, (folder, counts) in enumerate({"real": real, "test": test, "synthetic": synthetic}.items()):
        write(tmp_path / folder, counts, seed)
    with pytest.raises(InputError, match=words):
        taken_in(tmp_path)


def test_an_absent_class_is_told(tmp_path):
    write(tmp_path / "real", {"a": 4, "b": 4}, 1)
    write(tmp_path / "test", {"a": 2, "b": 3}, 2)
    write(tmp_path / "synthetic", {"a": 3}, 3)
    found = taken_in(tmp_path)
    assert found.cohort.facts["per_class"] == {"a": 3, "b": 0}
    assert any("No synthetic image of: b" in note for note in found.cohort.facts["notes"])
