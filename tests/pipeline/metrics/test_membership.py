import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from pipeline.errors import InputError
from pipeline.metrics.copy_search import nearest_copies
from pipeline.metrics.membership import authentic, likeness, membership_auc

RNG = np.random.default_rng(0)
TRAIN, HELD_OUT = RNG.normal(size=(200, 5)), RNG.normal(size=(200, 5))
NAMES = [str(number // 2) for number in range(200)]


def auc(synthetic):
    return membership_auc(
        likeness(TRAIN, synthetic), likeness(HELD_OUT, synthetic), NAMES, NAMES, np.random.default_rng(0), resamples=200
    )


def test_fresh_draws_give_nobody_away_and_noisy_copies_of_the_training_set_do():
    fresh = auc(np.random.default_rng(5).normal(size=(300, 5)))
    assert fresh.low <= 0.5 <= fresh.high
    copied = auc(TRAIN[:150] + 0.1 * np.random.default_rng(6).normal(size=(150, 5)))
    assert copied.low > 0.6
    assert copied.value == pytest.approx(0.875, abs=0.06), "three quarters are told for sure, the rest is a coin"


def test_the_auc_is_the_mann_whitney_statistic():
    synthetic = np.random.default_rng(5).normal(size=(50, 5))
    members, others = likeness(TRAIN, synthetic), likeness(HELD_OUT, synthetic)
    assert auc(synthetic).value == pytest.approx(mannwhitneyu(members, others).statistic / 200**2)


def test_copies_are_not_authentic_and_fresh_draws_mostly_are_as_held_out_images_are():
    assert not authentic(TRAIN, TRAIN + 1e-6).any()
    fresh, honest = authentic(TRAIN, RNG.normal(size=(400, 5))).mean(), authentic(TRAIN, HELD_OUT).mean()
    assert abs(fresh - honest) < 0.1
    assert honest > 0.3


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="training with held-out"):
        membership_auc(np.ones(3), np.ones(0), ["a"] * 3, [], RNG)
    with pytest.raises(InputError, match="training with held-out"):
        membership_auc(np.ones(3), np.ones(2), ["a"] * 3, ["b"], RNG)


def test_pixel_likeness_sees_members_through_mirrors_and_shifts():
    images = RNG.normal(size=(60, 16, 16))
    held_out = RNG.normal(size=(60, 16, 16))
    synthetic = np.roll(images[:, :, ::-1], 1, axis=1)
    found = membership_auc(
        nearest_copies(synthetic, images).correlation,
        nearest_copies(synthetic, held_out).correlation,
        [str(n) for n in range(60)],
        [str(n) for n in range(60)],
        RNG,
        resamples=100,
    )
    assert found.value == 1
