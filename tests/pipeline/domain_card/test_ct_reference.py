import numpy as np
import pytest

from pipeline.domain_card import histogram_distance, measure_ct
from pipeline.domain_card.ct_reference import ct_reference


def skull(shape=(8, 40, 40), hu=900):
    _, r, c = np.indices(shape)
    distance = np.hypot(r - 19.5, c - 19.5)
    ct = np.where(distance < 16, 40, -1000)
    ct = np.where((distance > 12) & (distance < 15), hu, ct)
    return ct.astype(np.int16), (distance < 16).astype(np.uint8)


def test_a_shift_of_all_values_is_the_distance_of_the_histograms():
    ct, body = skull()
    there = measure_ct(ct + 37, body, "HU")
    assert histogram_distance(there.quantiles, measure_ct(ct, body, "HU").quantiles) == pytest.approx(37)


def test_shares_count_the_body_alone():
    ct, body = skull()
    shares = measure_ct(ct, body, "HU").shares
    assert shares.sum() == pytest.approx(1)
    inside = ct[body > 0]
    assert shares.max() == pytest.approx((inside == 40).mean())


def test_bone_that_comes_and_goes_is_not_continuous():
    ct, body = skull()
    assert measure_ct(ct, body, "HU").continuity == 1
    gone = ct.copy()
    gone[1::2] = np.where(gone[1::2] > 250, 40, gone[1::2])
    assert measure_ct(gone, body, "HU").continuity == 0
    half = ct.copy()
    half[1::2, :20] = np.where(half[1::2, :20] > 250, 40, half[1::2, :20])
    expected = measure_ct(half, body, "HU").continuity
    assert 0.6 < expected < 0.85, "half of every second slice has lost its neighbors, but for the seams"


def test_crumbs_are_fragments():
    ct, body = skull()
    assert measure_ct(ct, body, "HU").fragments == 0
    crumbs = ct.copy()
    crumbs[4, 15:25:3, 15:25:3] = 1000
    bone = (crumbs >= 250) & (body > 0)
    assert measure_ct(crumbs, body, "HU").fragments == pytest.approx(16 / bone.sum())


def test_without_body_or_bone_there_is_nothing_to_say():
    ct, body = skull()
    assert measure_ct(ct, np.zeros_like(body), "HU") is None
    soft = measure_ct(np.minimum(ct, 100), body, "HU")
    assert (soft.continuity, soft.fragments) == (None, None)
    assert ct_reference([], "HU") is None


def test_the_reference_is_the_mean_and_knows_how_cts_differ_from_each_other():
    ct, body = skull()
    found = ct_reference([(ct, body), (ct + 10, body), (ct + 20, body)], "HU")
    assert found.distance.count == 3
    assert found.distance.mean == pytest.approx((15 + 0 + 15) / 3)
    quantiles = measure_ct(ct + 10, body, "HU").quantiles
    np.testing.assert_allclose(found.quantiles, quantiles, atol=0.01)
