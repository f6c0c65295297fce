import math

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from pipeline.errors import InputError
from pipeline.metrics.pairs import DIALECTS, ValueRange
from pipeline.metrics.psnr import psnr

RNG = np.random.default_rng(0)
CT = RNG.uniform(-1500, 4000, (8, 7, 6))
PSEUDO_CT = CT + RNG.normal(0, 80, CT.shape)


@pytest.mark.parametrize("name", list(DIALECTS))
def test_equals_scikit_image_after_clipping_inside_the_mask(name: str) -> None:
    bounds, mask = DIALECTS[name], RNG.uniform(size=CT.shape) > 0.4
    x, y = (np.clip(image, bounds.low, bounds.high)[mask] for image in (CT, PSEUDO_CT))
    expected = peak_signal_noise_ratio(x, y, data_range=bounds.width)
    assert psnr(CT, PSEUDO_CT, mask, bounds) == pytest.approx(expected)


def test_dialects_have_the_ranges_of_the_public_scorers() -> None:
    assert DIALECTS["synthrad2023"].width == 4024
    assert DIALECTS["synthrad2025-metrics"].width == 4024
    assert DIALECTS["synthrad2025-container"].width == 4095


def test_hand_computed_case() -> None:
    assert psnr(np.zeros((2, 2)), np.full((2, 2), 25.5), None, DIALECTS["grey8"]) == pytest.approx(20)


def test_tenfold_error_costs_twenty_decibels() -> None:
    bounds, ct = DIALECTS["synthrad2023"], np.zeros((5, 5))
    assert psnr(ct, ct + 3, None, bounds) - psnr(ct, ct + 30, None, bounds) == pytest.approx(20)


def test_values_beyond_the_range_count_as_its_ends() -> None:
    bounds = DIALECTS["synthrad2023"]
    assert psnr(np.full((2, 2), 5000.0), np.full((2, 2), 3000.0), None, bounds) == math.inf


def test_range_without_width_is_refused() -> None:
    with pytest.raises(InputError, match="low < high"):
        ValueRange("flat", 3.0, 3.0)
