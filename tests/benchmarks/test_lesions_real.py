"""The arms of the lesion benchmark: all spend the same, and mix as told; a row is measured once."""

import json

import numpy as np
import pytest
import torch

from benchmarks import lesions_real
from benchmarks.lesions_real_arms import ARMS, BATCH, STEPS, Arm, _counts, _groups, _leveled, _members
from benchmarks.lesions_real_comparison import paired_difference
from pipeline.evaluate.cohorts import Cohort
from pipeline.metrics.classification import binary_auc

IMBALANCED = Cohort(torch.zeros(15, 1, 4, 4), torch.tensor([0] * 12 + [1] * 3), tuple(map(str, range(15))))


def test_a_row_that_is_there_is_not_measured_again(tmp_path):
    calls = []

    def measure():
        calls.append(1)
        return {"value": 2}

    for _ in range(2):
        lesions_real._once(tmp_path, {"what": "x", "seed": 1}, measure)
    lesions_real._once(tmp_path, {"what": "x", "seed": 2}, measure)
    rows = [json.loads(line) for line in (tmp_path / lesions_real.ROWS).read_text().splitlines()]
    assert len(calls) == 2
    assert rows == [{"what": "x", "seed": 1, "value": 2}, {"what": "x", "seed": 2, "value": 2}]


@pytest.mark.parametrize("name", sorted(ARMS))
def test_every_arm_spends_the_same_number_of_images(name):
    arm = _leveled(ARMS[name], IMBALANCED, 2)
    groups = 3 if arm.fill else 2 if arm.share else 1
    batches = [_counts(arm, step, groups, 2) for step in range(STEPS)]
    assert all(sum(counts) == BATCH for counts in batches)
    added = sum(counts[-1] for counts in batches) if groups > 1 else 0
    expected = arm.fill / 2 if arm.fill else arm.share
    assert added == pytest.approx(expected * BATCH * STEPS, abs=STEPS / 2)


def test_filling_up_levels_the_classes():
    assert _leveled(ARMS["fill"], IMBALANCED, 2).fill == pytest.approx(1 - 3 / 12)


def test_only_places_of_the_rarest_class_are_filled():
    made = torch.ones(5, 1, 4, 4), torch.tensor([[0.0, 1.0]] * 5)
    others, rare, synthetic = _groups(IMBALANCED, made, Arm(fill=0.5), 2)
    assert [rows.tolist() for rows in others.members] == [list(range(12))]
    assert [rows.tolist() for rows in rare.members] == [[12, 13, 14]]
    assert torch.equal(synthetic.images, made[0])
    assert _counts(Arm(fill=0.5), 0, 3, 2) == [BATCH // 2, BATCH // 4, BATCH // 4]


def test_a_natural_arm_draws_as_the_set_comes():
    (group,) = _groups(IMBALANCED, None, Arm(natural=True), 2)
    assert [len(rows) for rows in group.members] == [15]


def test_arms_that_put_synthetic_images_first_end_on_real_ones():
    counts = [_counts(Arm(share=0.5, first=True), step, 2, 2) for step in (0, STEPS // 2 - 1, STEPS // 2, STEPS - 1)]
    assert counts == [[0, BATCH], [0, BATCH], [BATCH, 0], [BATCH, 0]]


def test_soft_targets_are_drawn_by_their_largest_class():
    targets = torch.tensor([[0.6, 0.4, 0.0], [0.1, 0.9, 0.0], [0.7, 0.2, 0.1]])
    assert [rows.tolist() for rows in _members(targets, 3)] == [[0, 2], [1]]


def test_a_difference_of_arms_is_that_of_their_mean_auc_and_its_interval_is_of_pairs():
    rng = np.random.default_rng(3)
    truth = np.arange(120) % 2
    sure = np.stack([1 - truth, truth], axis=1).astype(float)
    noise = rng.random((3, 120, 1))
    guess = np.concatenate([1 - noise, noise], axis=2)
    same = paired_difference(truth, guess, guess, resamples=50)
    assert (same["difference"], same["interval"]) == (0, [0, 0])
    better = paired_difference(truth, guess, np.stack([sure] * 3), resamples=200)
    aucs = [binary_auc(truth == 1, one[:, 1]) for one in guess]
    assert better["macro_auc"] == pytest.approx([np.mean(aucs), 1])
    assert 0 < better["interval"][0] < better["difference"] < better["interval"][1]
    back = paired_difference(truth, np.stack([sure] * 3), guess, resamples=200)
    assert back["interval"] == pytest.approx([-better["interval"][1], -better["interval"][0]])
