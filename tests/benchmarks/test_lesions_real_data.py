"""The protocol of the lesion benchmark: no copy crosses the split, and small sets are what they say."""

import numpy as np
import pytest
from skimage.io import imsave

from benchmarks.lesions_real_data import FEW, SHARES, open_set, prepare_class_folders, prepare_npz

IMAGES = 100


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Two classes of smooth random pictures; the first 20 of each have a mirrored, brightened copy."""
    rng = np.random.default_rng(0)
    source, work = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("work")
    for name in ("a", "b"):
        (source / name).mkdir()
        coarse = rng.integers(0, 200, (IMAGES, 8, 8), dtype=np.uint8)
        pictures = np.kron(coarse, np.ones((1, 8, 8), np.uint8))
        copies = pictures[:20, :, ::-1] + np.uint8(20)
        for number, picture in enumerate(np.concatenate([pictures, copies])):
            imsave(source / name / f"{number:03d}.png", picture, check_contrast=False)
    facts = prepare_class_folders(source, work, 32, draws=2)
    return work, facts


def test_mirrored_copies_are_removed_before_the_split(prepared):
    _, facts = prepared
    assert facts == {"images": 240, "without near-copies": 200}


def test_the_split_has_its_shares_within_each_class(prepared):
    images = open_set(prepared[0], "brain32")
    for split, share in SHARES.items():
        assert images.facts["counts"][split] == dict.fromkeys("ab", round(share * IMAGES))


def test_small_sets_draw_from_training_images_and_keep_the_test_split(prepared):
    whole = open_set(prepared[0], "brain32")
    small = [open_set(prepared[0], f"brain32_few{draw}") for draw in range(2)]
    for few in small:
        assert few.facts["counts"]["train"] == {"a": FEW, "b": FEW}
        assert set(few.rows("train")) <= set(whole.rows("train"))
        np.testing.assert_array_equal(few.rows("test"), whole.rows("test"))
        np.testing.assert_array_equal(few.images, whole.images)
    assert set(small[0].rows("train")) != set(small[1].rows("train"))


def test_sets_of_two_sizes_have_one_split(prepared, tmp_path):
    work, _ = prepared
    source = next(work.parent.glob("source*"))
    prepare_class_folders(source, tmp_path, 64, draws=0)
    assert open_set(tmp_path, "brain64").table.equals(open_set(work, "brain32").table)


def test_a_published_split_is_kept(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for key, count in (("train", 5), ("val", 3), ("test", 4)):
        arrays[f"{key}_images"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{key}_labels"] = np.arange(count)[:, None] % 2
    np.savez(tmp_path / "set.npz", **arrays)
    prepare_npz(tmp_path / "set.npz", tmp_path, "set", 32)
    images = open_set(tmp_path, "set")
    assert [len(images.rows(split)) for split in ("train", "validation", "test")] == [5, 3, 4]
    assert images.images.shape == (12, 1, 32, 32)
