"""Phantoms bent by known fields: how much of the error a bend takes away, and that bad bends are dropped."""

import numpy as np
import pytest

from pipeline.phantom import PhantomGrid
from pipeline.prepare.bend_check import failures_of, find_bend
from pipeline.prepare.deformable import BendSearch
from pipeline.prepare.registration import Side, Transform, body_points, register
from pipeline.settings import RegistrationLimits
from tests.pipeline.prepare.bent_phantoms import bent_pair, true_places

HEAD = PhantomGrid((56, 66, 23), (4.0, 4.0, 7.0), (11.0, 14.0))
LIMITS = RegistrationLimits()
SEED = 10


def error_mm(found, mr, seed=SEED, mean_mm=3.0):
    places = body_points(mr, 2000)
    return np.linalg.norm(found.map(places) - true_places(places, seed, mean_mm), axis=1)


@pytest.fixture(scope="module")
def bent_head():
    """A head, its bent CT, the rigid result, the bend and its check."""
    _, mr, ct = bent_pair(0, "HEAD", HEAD, SEED)
    rigid = register(mr, ct, same_frame=True)
    return mr, ct, rigid, *find_bend(mr, ct, rigid.rigid, LIMITS)


def test_a_bend_takes_away_a_third_of_what_a_rigid_transform_leaves(bent_head):
    mr, _, rigid, bend, check = bent_head
    before, after = error_mm(rigid, mr), error_mm(Transform(rigid.rigid, bend), mr)
    assert before.mean() > 2.5, "else there is nothing to win"
    assert after.mean() < 0.66 * before.mean()
    assert np.percentile(after, 95) < 0.75 * np.percentile(before, 95)
    assert check.failures == ()
    assert check.numbers["information_gain"] > 0.1
    assert 0.8 < check.numbers["volume_ratio_min"] < 1 < check.numbers["volume_ratio_max"] < 1.25
    assert check.numbers["bend_disagreement_mm"] < 1.5


def test_within_one_modality_a_bend_takes_away_more(bent_head):
    mr, ct, rigid, *_ = bent_head
    truth, *_ = bent_pair(0, "HEAD", HEAD, SEED)
    alike = Side(truth.ct_hu.astype(np.float32) + 1000, mr.grid, mr.body)
    bend = BendSearch(alike, ct, rigid.rigid).find()
    assert error_mm(Transform(rigid.rigid, bend), mr).mean() < 0.6 * error_mm(rigid, mr).mean()


def test_equal_input_gives_equal_bends(bent_head):
    mr, ct, rigid, bend, _ = bent_head
    assert np.array_equal(BendSearch(mr, ct, rigid.rigid).find().points, bend.points)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"bend_max_mm": 15.1}, "15.1 mm moved by the bend (at most 15)"),
        ({"volume_ratio_min": -0.1}, "-0.1 of its volume left to a voxel (at least 0.5)"),
        ({"volume_ratio_max": 2.5}, "2.5 times its volume given to a voxel (at most 2)"),
        ({"bend_disagreement_mm": 2.1}, "2.1 mm between the bends of two starts (at most 2)"),
        ({"information_gain": -0.3}, "-0.3 gain of mutual information, as a share (at least 0.02)"),
        ({"body_dice_gain": -0.02}, "-0.02 gain of the body outlines' Dice (at least -0.01)"),
        ({"volume_ratio_max": float("nan")}, "nan times its volume given to a voxel (at most 2)"),
    ],
)
def test_every_limit_drops_a_bend_that_breaks_it(bent_head, changed, words):
    assert failures_of(bent_head[-1].numbers | changed, LIMITS) == [words]


@pytest.mark.slow
@pytest.mark.parametrize("index", range(3))
@pytest.mark.parametrize(("part", "share"), [("HEAD", 0.7), ("PELVIS", 0.85)])
def test_whole_phantoms_gain(part, share, index):
    _, mr, ct = bent_pair(index, part, None, 10 + index)
    rigid = register(mr, ct, same_frame=True)
    bend, check = find_bend(mr, ct, rigid.rigid, LIMITS)
    before, after = (error_mm(found, mr, 10 + index) for found in (rigid, Transform(rigid.rigid, bend)))
    assert check.failures == ()
    assert after.mean() < share * before.mean()
