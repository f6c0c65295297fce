import numpy as np
import polars as pl
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from pipeline.errors import InputError


def _smooth(seed, shape=(64, 60)):
    field = gaussian_filter(np.random.default_rng(seed).random(shape), 4)
    return np.uint8(255 * (field - field.min()) / np.ptp(field))


def test_each_image_is_one_lesion_of_its_folder_with_its_pixels(inputs, run_ingest):
    truth = {}
    for number in range(6):
        lesion_class = ("cyst", "ring")[number % 2]
        truth[_smooth(number).tobytes()] = lesion_class
        inputs.image(f"{lesion_class}/{number}.png", _smooth(number))
    result = run_ingest()
    table = result.catalog.series.join(result.catalog.lesions, on="series_id")
    found = {result.catalog.image(row).tobytes(): row["lesion_class"] for row in table.iter_rows(named=True)}
    assert found == truth
    assert set(result.catalog.series["subject_source"]) == {"near_duplicates"}
    assert result.record.facts["subjects"] == 6


def test_near_copies_mirrored_ones_too_are_one_subject(inputs, run_ingest):
    image = _smooth(0)
    inputs.image("a/original.png", image)
    inputs.image("a/mirrored.png", np.ascontiguousarray(image[:, ::-1]))
    Image.fromarray(image).resize((120, 128)).save(inputs.root / "a/larger.jpg", quality=80)
    inputs.image("a/other.png", _smooth(1))
    result = run_ingest()
    assert sorted(result.catalog.series.group_by("subject_id").len()["len"]) == [1, 3]


def test_names_of_subjects_do_not_depend_on_file_names(inputs, run_ingest):
    first = inputs.image("a/1.png", _smooth(0))
    inputs.image("a/2.png", _smooth(1))
    before = run_ingest()
    first.rename(inputs.root / "a/renamed.png")
    after = run_ingest()
    assert set(before.catalog.series["subject_id"]) == set(after.catalog.series["subject_id"])
    assert before.record.key != after.record.key


def test_a_published_split_is_kept(inputs, run_ingest):
    for number, place in enumerate(["Training/a", "val/a", "Testing/b"]):
        inputs.image(f"{place}/{number}.png", _smooth(number))
    table = run_ingest().catalog.series.join(run_ingest().catalog.lesions, on="series_id")
    pairs = set(table.select("published_split", "lesion_class").iter_rows())
    assert pairs == {("train", "a"), ("validation", "a"), ("test", "b")}


def test_broken_and_misplaced_images_are_quarantined_and_notes_ignored(inputs, run_ingest):
    inputs.image("a/good.png")
    inputs.image("a/deep/er.png")
    inputs.image("loose.png")
    inputs.text("a/broken.png", "no image")
    inputs.text("a/notes.txt", "")
    result = run_ingest()
    assert result.reasons() == ["NO_CLASS", "NO_CLASS", "UNREADABLE"]
    assert (result.record.facts["series"], result.record.facts["ignored"]) == (1, 1)


def test_odd_class_names_are_refused_by_number(inputs, run_ingest):
    inputs.image("good/1.png")
    inputs.image("=cmd()|x/1.png")
    with pytest.raises(InputError, match="1 of 2 folder names") as caught:
        run_ingest()
    assert "cmd" not in str(caught.value)


def test_sizes_and_types_are_kept_apart(inputs, run_ingest):
    inputs.image("a/1.png", _smooth(0, (40, 50)))
    inputs.image("a/2.png", _smooth(1, (50, 40)).astype(np.uint16) * 257)
    inputs.image("a/3.png", np.dstack([_smooth(seed, (40, 50)) for seed in (1, 2, 3)]))
    series = run_ingest().catalog.series
    assert sorted(series["path"]) == [
        "stacks/40x50-uint8.npy", "stacks/40x50x3-uint8.npy", "stacks/50x40-uint16.npy",
    ]  # fmt: skip
    assert series.filter(pl.col("shape").list.len() == 3)["shape"].to_list() == [[40, 50, 3]]
