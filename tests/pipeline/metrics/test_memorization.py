import time

import numpy as np
import pytest
from scipy import ndimage
from scipy.stats import binom

from pipeline.errors import InputError
from pipeline.metrics.copy_search import MILD_NOISE, nearest_copies
from pipeline.metrics.memorization import copy_threshold, feature_distance_ratio, find_memorized


def anatomy(count: int, seed: int, edge: int = 32) -> np.ndarray:
    """Images of one framing: a common head and individual texture."""
    rng = np.random.default_rng(seed)
    head = np.hypot(*(np.mgrid[:edge, :edge] - edge / 2 + 0.5)) < 0.4 * edge
    texture = ndimage.gaussian_filter(rng.normal(size=(count, edge, edge)), (0, 1.5, 1.5))
    texture += 0.5 * ndimage.gaussian_filter(rng.normal(size=(count, edge, edge)), (0, 4, 4)) * edge / 8
    return np.asarray(head * (1 + 3 * texture))


TRAIN, HELD_OUT = anatomy(80, 0), anatomy(400, 1)
RNG = np.random.default_rng(7)


def shifted(image: np.ndarray, down: int, across: int) -> np.ndarray:
    return np.roll(image, (down, across), axis=(0, 1))


def test_planted_copies_are_all_found_and_named() -> None:
    noise = MILD_NOISE * np.ptp(TRAIN) * RNG.normal(size=TRAIN.shape)
    planted = {
        "plain": TRAIN,
        "mirrored": TRAIN[:, :, ::-1],
        "shifted": np.stack([shifted(image, 2, -1) for image in TRAIN]),
        "mirrored, shifted, brighter": np.stack([2 * shifted(image[:, ::-1], -2, 2) + 5 for image in TRAIN]),
        "noisy": TRAIN + noise,
        "noisy and mirrored": (TRAIN + noise)[:, :, ::-1],
    }
    outcome = find_memorized(TRAIN, HELD_OUT, np.concatenate(list(planted.values())), np.random.default_rng(0))
    found = dict(zip(planted, np.split(outcome.flags, len(planted)), strict=True))
    assert not [how for how, flags in found.items() if not flags.all()]
    np.testing.assert_array_equal(outcome.copies.nearest, np.tile(np.arange(len(TRAIN)), len(planted)))
    assert outcome.verdict == "blocked"


def test_new_real_images_are_accused_in_at_most_one_percent() -> None:
    fresh = anatomy(600, 2)
    outcome = find_memorized(TRAIN, HELD_OUT, fresh, np.random.default_rng(0))
    assert outcome.flags.mean() <= 0.01
    assert outcome.verdict == "passed"
    assert outcome.calibrated_rate <= 0.01


def test_a_few_copies_are_flagged_but_only_more_than_chance_blocks() -> None:
    one = np.concatenate([anatomy(199, 3), TRAIN[:1]])
    outcome = find_memorized(TRAIN, HELD_OUT, one, np.random.default_rng(0))
    assert outcome.flags[-1]
    assert outcome.allowed_flags == binom.ppf(0.99, 200, outcome.calibrated_rate)
    assert outcome.verdict == "passed"
    many = np.concatenate([anatomy(180, 3), TRAIN[:20]])
    assert find_memorized(TRAIN, HELD_OUT, many, np.random.default_rng(0)).verdict == "blocked"


def test_correlation_equals_brute_force_over_mirrors_and_shifts() -> None:
    train, images = anatomy(3, 4, edge=16), anatomy(2, 5, edge=16)
    found = nearest_copies(train, images)
    for index, image in enumerate(images):
        candidates = [
            (np.corrcoef(image[2:14, 2:14].ravel(), other[down : down + 12, across : across + 12].ravel())[0, 1], which)
            for which, original in enumerate(train)
            for other in (original, original[:, ::-1])
            for down in range(5)
            for across in range(5)
        ]
        assert (found.plain[index], found.nearest[index]) == pytest.approx(max(candidates), abs=1e-5)
        assert found.correlation[index] >= found.plain[index]


def test_copies_of_larger_images_are_found_by_single_pixel_shifts() -> None:
    train = anatomy(20, 6, edge=64)
    copies = np.stack([shifted(image, 1, 1) for image in train])
    found = nearest_copies(train, copies)
    assert found.correlation.min() > 0.999
    np.testing.assert_array_equal(found.nearest, np.arange(20))


def test_threshold_is_the_conformal_rank_moved_a_quarter_up_and_capped() -> None:
    innocent = np.arange(1, 500) / 1000
    assert copy_threshold(innocent[::-1]) == pytest.approx(0.495 + 0.505 / 4)
    assert copy_threshold(np.array([0.2, 0.4])) == pytest.approx(0.4 + 0.6 / 4)
    assert copy_threshold(np.ones(100)) == 0.999


def test_held_out_images_that_are_training_images_are_counted_and_cannot_hide_copies() -> None:
    leaky = np.concatenate([HELD_OUT[:100], TRAIN[:40], 1.2 * TRAIN[40:, :, ::-1] - 3])
    outcome = find_memorized(TRAIN, leaky, TRAIN, np.random.default_rng(0))
    assert outcome.flags.all()
    assert (outcome.held_out, outcome.identical) == (100, 80)
    assert outcome.threshold < 0.97
    assert outcome.calibrated_rate < 0.05
    assert outcome.verdict == "blocked"


def test_no_subject_both_sets_the_threshold_and_measures() -> None:
    """Images of one subject are alike: with one subject of copies, either side of the halves knows them, never both."""
    near = TRAIN[:50] + 0.3 * anatomy(50, 11)
    held_out, subjects = np.concatenate([HELD_OUT[:50], near]), ["other"] * 50 + ["near"] * 50
    for seed in range(4):
        found = find_memorized(TRAIN, held_out, near, np.random.default_rng(seed), subjects)
        strict = bool(found.flags.all())
        assert found.calibrated_rate == pytest.approx(51 / 52 if strict else 1 / 52)


def test_white_noise_is_taken_out_and_a_difference_of_anatomy_is_not() -> None:
    """The correction against its closed form: noise of variance s on an image of variance 1 leaves 1 / sqrt(1 + s)."""
    original = anatomy(1, 12, edge=36)
    other = original + 0.25 * anatomy(1, 13, edge=36)
    noise = 0.02 * np.ptp(original) * np.random.default_rng(1).normal(size=original.shape)
    inner = (slice(None), slice(2, -2), slice(2, -2))
    expected = 1 / np.sqrt(1 + np.var(noise[inner]) / np.var(original[inner]))
    noisy, changed = nearest_copies(original, original + noise), nearest_copies(original, other)
    assert noisy.plain[0] == pytest.approx(expected, abs=0.005)
    assert 1 - noisy.correlation[0] < 0.2 * (1 - noisy.plain[0])
    assert 1 - changed.correlation[0] > 0.6 * (1 - changed.plain[0])


def test_more_noise_than_mild_does_not_turn_an_image_into_a_copy() -> None:
    noise = np.random.default_rng(2).normal(size=(50, 32, 32)) * np.ptp(TRAIN)
    assert nearest_copies(TRAIN, TRAIN[:50] + noise).correlation.max() < 0.5


def test_constant_images_resemble_nothing_and_inputs_stay() -> None:
    kept = TRAIN.copy()
    assert nearest_copies(TRAIN, np.full((1, 32, 32), 7.3)).correlation[0] == 0
    np.testing.assert_array_equal(TRAIN, kept)


def test_feature_ratio_is_one_for_the_usual_and_zero_for_a_copy() -> None:
    rng = np.random.default_rng(0)
    train, held_out = rng.normal(size=(100, 6)), rng.normal(size=(200, 6))
    ratio = feature_distance_ratio(train, held_out, np.concatenate([held_out, train[:5]]))
    assert np.median(ratio[:200]) == pytest.approx(1)
    np.testing.assert_allclose(ratio[200:], 0, atol=1e-6)
    with pytest.raises(InputError, match="distance 0"):
        feature_distance_ratio(train, train, held_out)


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="19 held-out"):
        find_memorized(TRAIN, HELD_OUT[:19], TRAIN, RNG)
    with pytest.raises(InputError, match="one size"):
        nearest_copies(TRAIN, np.zeros((3, 30, 30)))
    with pytest.raises(InputError, match="finite"):
        nearest_copies(TRAIN, np.full((1, 32, 32), np.nan))


def test_search_is_fast_enough_for_a_cohort() -> None:
    start = time.perf_counter()
    nearest_copies(HELD_OUT, HELD_OUT)
    assert time.perf_counter() - start < 10
