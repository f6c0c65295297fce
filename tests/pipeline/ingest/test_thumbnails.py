import numpy as np
import pytest

from pipeline.ingest.thumbnails import thumbnail
from pipeline.near_duplicates import reduce_images


@pytest.mark.parametrize("shape", [(224, 224), (100, 37), (28, 28), (33, 512), (64, 32)])
def test_shrinking_first_changes_nothing_for_the_search_of_near_copies(shape):
    image = np.random.default_rng(0).random(shape)
    np.testing.assert_allclose(reduce_images([thumbnail(image)]), reduce_images([image]), atol=1e-6)


def test_whole_cells_are_block_means_and_color_is_averaged():
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    expected = image.mean(axis=2).reshape(32, 2, 32, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(thumbnail(image), expected, rtol=1e-6)


def test_the_mean_is_kept():
    image = np.random.default_rng(0).random((101, 77))
    assert thumbnail(image).mean() == pytest.approx(image.mean(), rel=1e-6)
