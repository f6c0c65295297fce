import numpy as np
import pytest
from skimage.metrics import structural_similarity

from pipeline.errors import InputError
from pipeline.metrics.pairs import DIALECTS
from pipeline.metrics.ssim import ssim

BOUNDS = DIALECTS["synthrad2023"]
RNG = np.random.default_rng(0)


def pair(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    ct = RNG.uniform(-1100, 1500, shape)
    return ct, ct + RNG.normal(0, 200, shape)


@pytest.mark.parametrize("shape", [(20, 18, 12), (30, 25)])
def test_equals_scikit_image_on_the_whole_image(shape: tuple[int, ...]) -> None:
    ct, pseudo_ct = pair(shape)
    x, y = (np.clip(image, BOUNDS.low, BOUNDS.high) for image in (ct, pseudo_ct))
    expected = structural_similarity(x - BOUNDS.low, y - BOUNDS.low, data_range=BOUNDS.width, win_size=7)
    assert ssim(ct, pseudo_ct, None, BOUNDS) == pytest.approx(expected, abs=1e-12)


def test_masked_score_is_the_mean_of_the_map_of_masked_images() -> None:
    ct, pseudo_ct = pair((20, 18, 12))
    mask = np.zeros(ct.shape, bool)
    mask[2:15, 4:18, 1:9] = True
    x, y = (np.where(mask, np.clip(image, BOUNDS.low, BOUNDS.high) - BOUNDS.low, 0) for image in (ct, pseudo_ct))
    _, full = structural_similarity(x, y, data_range=BOUNDS.width, win_size=7, full=True)
    expected = full[3:-3, 3:-3, 3:-3][mask[3:-3, 3:-3, 3:-3]].mean()
    assert ssim(ct, pseudo_ct, mask, BOUNDS) == pytest.approx(expected, abs=1e-12)


def test_single_slice_is_scored_in_two_dimensions() -> None:
    ct, pseudo_ct = pair((30, 25))
    flat = ssim(ct, pseudo_ct, None, BOUNDS)
    assert ssim(ct[:, :, None], pseudo_ct[:, :, None], None, BOUNDS) == flat


def test_equal_images_score_one_and_noise_lowers_the_score() -> None:
    ct, _ = pair((20, 20, 10))
    scores = [ssim(ct, ct + RNG.normal(0, sigma, ct.shape), None, BOUNDS) for sigma in (100, 300, 900)]
    assert ssim(ct, ct, None, BOUNDS) == pytest.approx(1)
    assert 1 > scores[0] > scores[1] > scores[2]


@pytest.mark.parametrize("slab", [1, 5 * 20 * 10, 10**9])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int16])
def test_slabs_give_the_map_of_the_whole_whatever_their_size(
    monkeypatch: pytest.MonkeyPatch, slab: int, dtype: type
) -> None:
    ct, pseudo_ct = (np.rint(image).astype(dtype) for image in pair((21, 20, 10)))
    mask = RNG.random(ct.shape) > 0.5
    x, y = (
        np.where(mask, np.clip(image.astype(np.float64), BOUNDS.low, BOUNDS.high) - BOUNDS.low, 0)
        for image in (ct, pseudo_ct)
    )
    _, full = structural_similarity(x, y, data_range=BOUNDS.width, win_size=7, full=True)
    monkeypatch.setattr("pipeline.metrics.ssim.SLAB_VOXELS", slab)
    expected = full[3:-3, 3:-3, 3:-3][mask[3:-3, 3:-3, 3:-3]].mean()
    assert ssim(ct, pseudo_ct, mask, BOUNDS) == pytest.approx(expected, rel=1e-12)


def test_inputs_are_left_alone() -> None:
    ct, pseudo_ct = pair((12, 12, 12))
    kept = ct.copy(), pseudo_ct.copy()
    ssim(ct, pseudo_ct, None, BOUNDS)
    assert np.array_equal(ct, kept[0])
    assert np.array_equal(pseudo_ct, kept[1])


def test_too_small_images_and_masks_at_the_rim_are_refused() -> None:
    with pytest.raises(InputError, match="at least 7 voxels"):
        ssim(np.zeros((20, 20, 5)), np.zeros((20, 20, 5)), None, BOUNDS)
    rim = np.zeros((20, 20), bool)
    rim[0] = True
    with pytest.raises(InputError, match="away from the rim"):
        ssim(np.zeros((20, 20)), np.zeros((20, 20)), rim, BOUNDS)
    with pytest.raises(InputError, match="slices or volumes"):
        ssim(np.zeros(20), np.zeros(20), None, BOUNDS)
