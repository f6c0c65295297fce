import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import pipeline.near_duplicates as subject
from pipeline.errors import InputError
from pipeline.near_duplicates import area_weights, find_near_duplicates, reduce_images


def texture(seed: int, shape: tuple[int, int] = (64, 64)) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=shape)
    return np.asarray(100 + 400 * ndimage.gaussian_filter(noise, 3))


def test_planted_copies_are_found_with_their_mirror() -> None:
    images = [texture(seed) for seed in range(6)]
    rng = np.random.default_rng(0)
    images += [
        images[0].copy(),
        images[1][:, ::-1] * 3 - 50,
        ndimage.zoom(images[2], 1.5, order=1),
        images[3] + rng.normal(0, 5, images[3].shape),
    ]
    report = find_near_duplicates(images)
    assert [(p.first, p.second, p.mirror) for p in report.pairs] == [
        (0, 6, "none"),
        (1, 7, "left_right"),
        (2, 8, "none"),
        (3, 9, "none"),
    ]
    assert report.pairs[0].correlation == pytest.approx(1, abs=1e-5)
    assert report.pairs[1].correlation == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(report.clusters, [0, 1, 2, 3, 4, 5, 0, 1, 2, 3])
    assert report.largest == 2


def test_up_down_mirrors_are_found_only_on_request() -> None:
    images = [texture(0), texture(0)[::-1]]
    assert not find_near_duplicates(images).pairs
    assert find_near_duplicates(images, up_down=True).pairs[0].mirror == "up_down"


def test_a_chain_of_copies_is_one_cluster_and_numbering_follows_the_first_image() -> None:
    first, last = texture(1), texture(2)
    first, last = (image - image.mean() for image in (first, last))
    angle = np.radians([0, 10, 20, 30])
    chain = [np.cos(a) * first / np.linalg.norm(first) + np.sin(a) * last / np.linalg.norm(last) for a in angle]
    report = find_near_duplicates([texture(9), *chain], threshold=0.97)
    np.testing.assert_array_equal(report.clusters, [0, 1, 1, 1, 1])
    assert (1, 4) not in {(p.first, p.second) for p in report.pairs}


def test_correlations_equal_numpy_on_the_reduced_images() -> None:
    images = [texture(seed, (40 + 8 * seed, 56)) for seed in range(4)]
    reduced = reduce_images(images).reshape(4, -1)
    mirrored = reduce_images([image[:, ::-1] for image in images]).reshape(4, -1)
    plain, flipped = np.corrcoef(reduced), np.corrcoef(reduced, mirrored)[:4, 4:]
    report = find_near_duplicates(images, threshold=0.01)
    expected = np.maximum(plain, flipped)
    for pair in report.pairs:
        assert pair.correlation == pytest.approx(expected[pair.first, pair.second], abs=1e-5)
    assert len(report.pairs) == (np.triu(expected, 1) >= 0.01).sum()


def test_area_weights_average_exactly_for_any_edge() -> None:
    np.testing.assert_allclose(area_weights(64) @ np.arange(64), np.arange(32) * 2 + 0.5)
    for edge in (20, 32, 45, 224):
        weights = area_weights(edge)
        np.testing.assert_allclose(weights.sum(1), 1)
        np.testing.assert_allclose(weights.sum(0), 32 / edge)


def test_chunking_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    images = np.stack([texture(seed % 20) + rng.normal(0, 3, (64, 64)) for seed in range(50)])
    whole = find_near_duplicates(images)
    monkeypatch.setattr(subject, "CHUNK", 7)
    chunked = find_near_duplicates(images)
    np.testing.assert_array_equal(whole.clusters, chunked.clusters)
    assert [(p.first, p.second) for p in whole.pairs] == [(p.first, p.second) for p in chunked.pairs]
    assert whole.clusters.max() == 19


def test_constant_images_are_nobodys_copy() -> None:
    assert not find_near_duplicates([np.zeros((32, 32)), np.full((32, 32), 0.1), np.full((50, 50), 1e6)]).pairs


def test_no_images_make_no_clusters() -> None:
    report = find_near_duplicates([])
    assert len(report.clusters) == 0
    assert report.largest == 0


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="image 1 of shape"):
        find_near_duplicates([texture(0), np.zeros((3, 4, 5))])
    with pytest.raises(InputError, match="finite: False"):
        find_near_duplicates([np.full((8, 8), np.nan)])
    with pytest.raises(InputError, match="threshold"):
        find_near_duplicates([texture(0)], threshold=1.5)


@pytest.mark.real_data
def test_real_slices_hold_mirrored_copies_and_do_not_chain() -> None:
    root = os.environ.get("SCANLOOM_TEST_DATA")
    if root is None or not (Path(root) / "brain_tumor_mri").is_dir():
        pytest.skip("SCANLOOM_TEST_DATA does not name a folder with brain_tumor_mri")
    paths = sorted((Path(root) / "brain_tumor_mri").glob("*/*.jpg"))
    images = [np.asarray(Image.open(path).convert("L")) for path in paths]
    classes = [path.parent.name for path in paths]
    start = time.perf_counter()
    report = find_near_duplicates(images)
    assert time.perf_counter() - start < 3 * max(1, len(images) / 2000)
    assert report.largest <= 0.01 * len(images)
    assert sum(pair.mirror == "left_right" for pair in report.pairs) > 0.3 * len(report.pairs) > 30
    assert all(classes[pair.first] == classes[pair.second] for pair in report.pairs)
