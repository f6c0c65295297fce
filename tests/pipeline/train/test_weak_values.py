"""Values of guessed tissues: medians of those voters that agree."""

import numpy as np
import pytest

from pipeline.train.weak_values import FEWEST, LEVELS, LevelValues, by_place

LIMITS = (-300.0, 250.0)


@pytest.mark.parametrize(
    ("votes", "tissue", "expected"),
    [
        ([-900.0, 20.0, 40.0, 1000.0], 1, 30.0),
        ([-900.0, 20.0, 40.0, 1000.0], 0, -900.0),
        ([10.0, 20.0, 240.0], 1, 20.0),
        ([10.0, 20.0, 40.0, 90.0], 1, 30.0),
        ([10.0, 20.0], 2, 700.0),
        ([250.0], 2, 250.0),
        ([], 0, -1000.0),
    ],
)
def test_a_place_has_the_median_of_the_voters_that_agree(votes, tissue, expected):
    voters = np.asarray(votes, np.float32).reshape(-1, 1, 1)
    found = by_place(voters, np.array([[tissue]]), LIMITS, [-1000.0, 30.0, 700.0])
    np.testing.assert_array_equal(found, [[expected]])


def test_places_do_not_mix():
    rng = np.random.default_rng(0)
    voters = rng.uniform(-1000, 1500, (7, 9, 11)).astype(np.float32)
    tissue = rng.integers(0, 3, (9, 11))
    found = by_place(voters, tissue, LIMITS, [0.0, 1.0, 2.0])
    for row, column in np.ndindex(9, 11):
        kinds = np.searchsorted(LIMITS, voters[:, row, column], side="right")
        agree = voters[:, row, column][kinds == tissue[row, column]]
        expected = np.median(agree) if len(agree) else float(tissue[row, column])
        assert found[row, column] == pytest.approx(expected)


def test_levels_find_the_law_although_a_third_of_the_votes_lies_wrong():
    rng = np.random.default_rng(1)
    mr = rng.uniform(-1, 1, (2, 64, 64)).astype(np.float32)
    truth = (100 * mr).astype(np.float32)
    values, tissue = LevelValues(LIMITS, [1]), np.ones(mr.shape, np.int64)
    for units, plane in zip(mr, truth, strict=True):
        votes = np.stack([plane] * 6)
        wrong = rng.random(votes.shape) < 1 / 3
        votes[wrong] = rng.uniform(-290, 240, int(wrong.sum()))
        values.add(votes, np.ones(units.shape, np.int64), units)
    found = np.zeros(mr.shape, np.float32)
    values.fill(found, tissue, mr)
    assert np.abs(found - truth).max() < 12
    assert np.abs(found - truth).mean() < 2 * 100 / LEVELS


def test_levels_with_few_votes_lie_between_the_others():
    values = LevelValues(LIMITS, [1])
    for level, value in ((-0.99, 0.0), (0.99, 126.0)):
        values.add(np.full((FEWEST, 1), value, np.float32), np.array([1]), np.array([level], np.float32))
    values.add(np.full((FEWEST - 1, 1), 200.0, np.float32), np.array([1]), np.array([0.0], np.float32))
    found = np.zeros((1, 3), np.float32)
    values.fill(found, np.ones((1, 3), np.int64), np.array([[-0.99, 0.01, 0.99]], np.float32))
    np.testing.assert_allclose(found, [[0.0, 2.0 * (LEVELS // 2), 126.0]], atol=1e-4)


def test_tissues_that_were_not_asked_for_or_not_voted_for_stay():
    tissue, found = np.array([[0, 1, 2]]), np.full((1, 3), 7.0, np.float32)
    for asked_for, expected in (([2], [[7.0, 7.0, 7.0]]), ([1, 2], [[7.0, 30.0, 7.0]])):
        values = LevelValues(LIMITS, asked_for)
        values.add(np.full((FEWEST, 1), 30.0, np.float32), np.array([1]), np.array([0.0], np.float32))
        values.fill(found, tissue, np.zeros((1, 3), np.float32))
        np.testing.assert_array_equal(found, expected)
