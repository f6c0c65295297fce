"""The arms of the lesion benchmark: all spend the same, and mix as told; a row is measured once."""

import json

import pytest
import torch

from benchmarks import lesions_real
from benchmarks.lesions_real_arms import ARMS, BATCH, STEPS, Arm, _counts, _members


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
    arm = ARMS[name]
    sources = 1 if arm.share == 0 else 2
    batches = [_counts(arm, step, sources) for step in range(STEPS)]
    assert all(sum(counts) == BATCH for counts in batches)
    added = sum(counts[-1] for counts in batches) if sources == 2 else 0
    assert added == pytest.approx(arm.share * BATCH * STEPS, abs=STEPS / 2)


def test_arms_that_put_synthetic_images_first_end_on_real_ones():
    counts = [_counts(Arm(share=0.5, first=True), step, 2) for step in (0, STEPS // 2 - 1, STEPS // 2, STEPS - 1)]
    assert counts == [[0, BATCH], [0, BATCH], [BATCH, 0], [BATCH, 0]]


def test_soft_targets_are_drawn_by_their_largest_class():
    targets = torch.tensor([[0.6, 0.4, 0.0], [0.1, 0.9, 0.0], [0.7, 0.2, 0.1]])
    assert [rows.tolist() for rows in _members(targets, 3)] == [[0, 2], [1]]
