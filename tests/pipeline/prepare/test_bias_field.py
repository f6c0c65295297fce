import numpy as np
import pytest

from pipeline.prepare.bias_field import correct_bias
from pipeline.settings import N4Settings

SETTINGS = N4Settings(shrink=2, iterations=(20, 15))


def biased(shape=(48, 48, 6)):
    """A body with two tissues under a smooth field of ± 30 %; also where the first tissue is."""
    i, j, _ = np.indices(shape)
    mask = ((i - 23.5) / 20) ** 2 + ((j - 23.5) / 20) ** 2 < 1
    second = ((i - 30) / 6) ** 2 + ((j - 20) / 6) ** 2 < 1
    field = np.exp(0.3 * (i - 24) / 24 + 0.15 * (j - 24) / 24)
    signal = np.where(second, 700.0, 400.0) * field + np.random.default_rng(0).normal(0, 3, shape)
    return np.where(mask, signal, 0).astype(np.float32), mask, mask & ~second


def variation(values):
    return values.std() / values.mean()


def test_a_uniform_tissue_becomes_uniform_again():
    mr, mask, tissue = biased()
    corrected = correct_bias(mr, mask, SETTINGS)
    assert variation(mr[tissue]) > 0.13
    assert variation(corrected[tissue]) < 0.35 * variation(mr[tissue])


def test_contrast_between_tissues_stays():
    mr, mask, tissue = biased()
    corrected = correct_bias(mr, mask, SETTINGS)
    ratio = np.median(corrected[mask & ~tissue]) / np.median(corrected[tissue])
    assert abs(ratio - 700 / 400) < 0.12


def test_equal_input_gives_equal_output_and_stays_as_it_is():
    mr, mask, _ = biased()
    before = mr.copy()
    assert np.array_equal(correct_bias(mr, mask, SETTINGS), correct_bias(mr, mask, SETTINGS))
    assert np.array_equal(mr, before)


def test_switched_off_or_without_a_body_a_copy_comes_back():
    mr, mask, _ = biased()
    for copy in (
        correct_bias(mr, mask, SETTINGS.model_copy(update={"enabled": False})),
        correct_bias(mr, np.zeros_like(mask), SETTINGS),
    ):
        assert np.array_equal(copy, mr)
        assert copy is not mr


@pytest.mark.parametrize("slices", [1, 2, 3, 5])
def test_volumes_of_few_slices_are_corrected_too(slices):
    mr, mask, tissue = biased((48, 48, slices))
    corrected = correct_bias(mr, mask, SETTINGS)
    assert corrected.shape == mr.shape
    assert variation(corrected[tissue]) < 0.5 * variation(mr[tissue])
