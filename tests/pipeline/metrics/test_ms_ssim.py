import time

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage
from scipy.signal import fftconvolve

from pipeline.errors import InputError
from pipeline.metrics.ms_ssim import SCALE_WEIGHTS, _halve, ms_ssim
from pipeline.metrics.pairs import DIALECTS

BOUNDS = DIALECTS["synthrad2025-container"]
RNG = np.random.default_rng(0)


def pair(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    ct = 4000 * ndimage.gaussian_filter(RNG.normal(size=shape), 2)
    return ct, ct + RNG.normal(0, 100, shape)


def by_windows(ct: np.ndarray, pseudo_ct: np.ndarray, mask: np.ndarray, luminance: tuple[float, ...]) -> float:
    """The definition spelled out for slices of 97 × 97: explicit windows and Fourier convolution."""
    x, y = (np.where(mask, np.clip(image, BOUNDS.low, BOUNDS.high) - BOUNDS.low, 0) for image in (ct, pseudo_ct))
    c1, c2 = (0.01 * BOUNDS.width) ** 2, (0.03 * BOUNDS.width) ** 2
    score = 1.0
    for weight, luminance_weight in zip(SCALE_WEIGHTS, luminance, strict=True):
        wx, wy = (sliding_window_view(image, (7, 7)).reshape(*(n - 6 for n in image.shape), 49) for image in (x, y))
        mx, my, sx, sy = wx.mean(-1), wy.mean(-1), wx.std(-1, ddof=1), wy.std(-1, ddof=1)
        covariance = ((wx - mx[..., None]) * (wy - my[..., None])).sum(-1) / 48
        parts = (
            ((2 * mx * my + c1) / (mx**2 + my**2 + c1), luminance_weight),
            ((2 * sx * sy + c2) / (sx**2 + sy**2 + c2), weight),
            ((covariance + c2 / 2) / (sx * sy + c2 / 2), weight),
        )
        product = np.prod([np.clip(part, 0, None) ** power for part, power in parts], axis=0)
        score *= np.clip(product[mask[3:-3, 3:-3]].mean(), 0, 1)
        x, y = (fftconvolve(image, np.full((2, 2), 0.25), mode="same")[::2, ::2] for image in (x, y))
        mask = mask[::2, ::2]
    return float(score)


def test_equals_the_definition_spelled_out() -> None:
    ct, pseudo_ct = pair((97, 97))
    mask = np.hypot(*(np.mgrid[:97, :97] - 48)) < 40
    shipped = by_windows(ct, pseudo_ct, mask, SCALE_WEIGHTS)
    paper = by_windows(ct, pseudo_ct, mask, (0, 0, 0, 0, SCALE_WEIGHTS[-1]))
    assert ms_ssim(ct, pseudo_ct, mask, BOUNDS) == pytest.approx(shipped, abs=1e-9)
    assert ms_ssim(ct, pseudo_ct, mask, BOUNDS, "coarsest_only") == pytest.approx(paper, abs=1e-9)


@pytest.mark.parametrize("shape", [(97,), (49, 25), (13, 12, 7)])
def test_halving_equals_fourier_convolution_with_a_box(shape: tuple[int, ...]) -> None:
    image = RNG.normal(size=shape)
    box = np.full((2,) * len(shape), 0.5 ** len(shape))
    expected = fftconvolve(image, box, mode="same")[(slice(None, None, 2),) * len(shape)]
    np.testing.assert_allclose(_halve(image), expected, atol=1e-12)


def test_small_images_are_edge_padded_evenly() -> None:
    ct, pseudo_ct = pair((60, 41))
    padding = ((18, 19), (28, 28))
    x, y = (np.pad(image, padding, mode="edge") for image in (ct, pseudo_ct))
    assert ms_ssim(ct, pseudo_ct, None, BOUNDS) == pytest.approx(ms_ssim(x, y, None, BOUNDS))


def test_equal_volumes_score_one_in_both_variants_and_without_mask() -> None:
    ct, _ = pair((40, 40, 12))
    assert ms_ssim(ct, ct, None, BOUNDS) == pytest.approx(1)
    assert ms_ssim(ct, ct, np.ones(ct.shape), BOUNDS, "coarsest_only") == pytest.approx(1)


def test_an_offset_is_punished_by_luminance_only() -> None:
    ct = np.clip(pair((97, 97))[0], -700, 300)
    shipped, paper = ms_ssim(ct, ct + 200, None, BOUNDS), ms_ssim(ct, ct + 200, None, BOUNDS, "coarsest_only")
    assert shipped < paper < 1


def test_noise_lowers_the_score_and_values_outside_the_mask_do_not_matter() -> None:
    ct, _ = pair((97, 97))
    mask = np.hypot(*(np.mgrid[:97, :97] - 48)) < 40
    noise = RNG.normal(size=ct.shape)
    scores = [ms_ssim(ct, ct + sigma * noise, mask, BOUNDS) for sigma in (50, 200, 800)]
    assert scores[0] > scores[1] > scores[2]
    spoiled = np.where(mask, ct + 50 * noise, np.nan)
    assert ms_ssim(ct, spoiled, mask, BOUNDS) == scores[0]


def test_a_mask_that_vanishes_at_a_coarse_scale_is_refused() -> None:
    ct, pseudo_ct = pair((97, 97))
    speck = np.zeros(ct.shape, bool)
    speck[11, 11] = True
    with pytest.raises(InputError, match="every scale"):
        ms_ssim(ct, pseudo_ct, speck, BOUNDS)


def test_a_patch_volume_is_scored_in_about_a_second() -> None:
    ct, pseudo_ct = pair((96, 96, 40))
    start = time.process_time()
    assert 0 < ms_ssim(ct, pseudo_ct, None, BOUNDS) < 1
    assert time.process_time() - start < 3
