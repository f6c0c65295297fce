import json

import numpy as np
import polars as pl
import pytest
import torch

from pipeline.evaluate.cohorts import Cohort
from pipeline.evaluate.release_gate import check_release, write_gate


def with_copies(synthetic, train, count):
    images = synthetic.images.clone()
    images[:count] = train.images[:count]
    return Cohort(images, synthetic.classes, synthetic.subjects)


@pytest.fixture(scope="module")
def sides(draws):
    return draws.cohort((40, 40), 2), draws.cohort((40, 40), 1), draws.cohort((50, 50), 3)


@pytest.mark.parametrize(("count", "blocked"), [(0, False), (40, True), (100, True)])
def test_many_copies_block_a_cohort(draws, sides, count, blocked):
    train, held_out, synthetic = sides
    copied = with_copies(synthetic, train, min(count, 80))
    gate = check_release(draws.study(train=train, held_out=held_out, synthetic=copied), seed=0)
    assert gate.blocked == blocked
    assert np.flatnonzero(gate.flags).tolist() == list(range(min(count, 80)))
    assert gate.search.held_out == 80
    assert gate.reason.startswith(f"{min(count, 80)} of 100 images")


def test_another_patient_is_no_copy(draws, sides):
    train, held_out, _ = sides
    gate = check_release(draws.study(train=train, held_out=held_out, synthetic=held_out), seed=0)
    assert not gate.blocked


def test_class_and_row_of_the_set_are_named(draws, sides, tmp_path):
    train, held_out, synthetic = sides
    study = draws.study(train=train, held_out=held_out, synthetic=with_copies(synthetic, train, 2))
    rows = np.arange(80) * 3 + 5
    write_gate(tmp_path, check_release(study, seed=0), study, rows)
    flagged = pl.read_parquet(tmp_path / "flagged.parquet").to_dicts()
    assert [(row["image"], row["nearest_image"], row["lesion_class"]) for row in flagged] == [
        (0, 5, "flat"),
        (1, 8, "flat"),
    ]
    gate = json.loads((tmp_path / "gate.json").read_text())
    assert gate["flags"] == 2
    assert 0 < gate["rate"] < 1
    assert gate["threshold"] <= 0.99


def test_copies_are_found_in_every_channel_order(draws, sides):
    train, held_out, synthetic = (Cohort(side.images.repeat(1, 3, 1, 1), side.classes, side.subjects) for side in sides)
    gate = check_release(
        draws.study(train=train, held_out=held_out, synthetic=with_copies(synthetic, train, 3)), seed=0
    )
    assert torch.from_numpy(gate.flags).nonzero().flatten().tolist() == [0, 1, 2]
