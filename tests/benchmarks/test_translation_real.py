"""The protocol of the translation benchmark: splits, outlines, lookups and scores in closed form."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.translation_real_data import Case, PairSet, _outline, moved_cts
from benchmarks.translation_real_scores import baselines, dice, fit_lookup, scores_of


def case(name: str, seed: int) -> Case:
    """A disk of 60 to 120 in MR; CT is 2 · MR inside, so that a lookup is exact."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:128, :128]
    inside = np.broadcast_to(np.hypot(rows - 64, columns - 60) < 40, (3, 128, 128))
    mr = np.where(inside, rng.integers(60, 130, inside.shape), 2).astype(np.float32)
    return Case(name, mr, np.where(inside, 2 * mr, 0).astype(np.float32), inside)


@pytest.fixture
def pairs() -> PairSet:
    return PairSet("grey", [case(str(number), number) for number in range(6)])


def test_every_case_is_tested_once_and_never_trained_on_then(pairs):
    tested = []
    for rotation in range(3):
        train, test = pairs.split(rotation)
        assert len(train) == 4
        assert not {c.name for c in train} & {c.name for c in test}
        tested += [c.name for c in test]
    assert sorted(tested) == [c.name for c in pairs.cases]


def test_the_lookup_is_the_median_by_level_and_solves_what_it_can(pairs):
    table = fit_lookup(pairs.cases[:4])
    np.testing.assert_allclose(table[60:130], 2 * np.arange(60, 130))
    rows = baselines(pairs, 0)
    assert rows["lookup"]["mae"] == 0
    assert rows["true_tissues"]["mae"] == 0
    assert rows["one_value"]["mae"] > 20
    assert rows["truth_one_pixel_off"]["mae"] > 20


def test_true_tissues_tell_apart_what_one_mr_level_does_not(pairs):
    rng, cases = np.random.default_rng(0), []
    for one in pairs.cases:  # MR says nothing of what is bone
        ct = np.where(one.outline, np.where(rng.random(one.mr.shape) < 0.5, 60, 255), 0).astype(np.float32)
        cases.append(replace(one, ct=ct))
    rows = baselines(PairSet("grey", cases), 0)
    assert rows["lookup"]["mae"] > 90
    assert rows["true_tissues"]["mae"] == 0
    assert rows["true_tissues"]["bone_dice"] == 1


def test_errors_count_inside_the_outline_and_bone_counts_everywhere(pairs):
    one = pairs.cases[0]
    wrong_outside = np.where(one.outline, one.ct, 255.0).astype(np.float32)
    scores = scores_of(pairs, [one], lambda _: wrong_outside)
    bone, extra = (one.ct >= 250).sum(), (~one.outline).sum()
    assert scores["mae"] == 0
    assert scores["bone_dice"] == pytest.approx(2 * bone / (2 * bone + extra), abs=1e-4)


def test_dice_of_nothing_and_nothing_is_one():
    nothing, all_of_it = np.zeros(3, bool), np.ones(3, bool)
    assert dice(nothing, nothing) == 1
    assert dice(nothing, all_of_it) == 0


def test_the_outline_is_filled_and_leaves_the_head_holder_out():
    ring = np.hypot(*(np.mgrid[:64, :64] - 32))
    plane = (ring < 20) & (ring > 15)
    plane[60, 10:50] = True
    outline = _outline(plane[None])[0]
    assert outline[32, 32]
    assert not outline[60].any()


def test_moved_pairs_are_moved_as_far_as_asked_and_not_all_alike(pairs):
    moved = moved_cts(pairs.cases[:2], 2.0, seed=0, air=0.0)
    still = moved_cts(pairs.cases[:2], 0.0, seed=0, air=0.0)
    for one in pairs.cases[:2]:
        np.testing.assert_allclose(still[one.name], one.ct, atol=1e-3)
        centers = [np.argwhere(plane > 60).mean(axis=0) - np.argwhere(truth > 60).mean(axis=0)
                   for plane, truth in zip(moved[one.name], one.ct, strict=True)]  # fmt: skip
        assert np.abs(centers).max() < 3.5
        assert np.ptp(np.asarray(centers), axis=0).max() > 0.3
