import numpy as np
import polars as pl
import pytest

from pipeline.catalog import QUARANTINE_SCHEMA
from pipeline.evaluate.outside_lesions import copies_of_test_images
from pipeline.evaluate.outside_refusals import refusal_notes, refusal_table


@pytest.fixture(scope="module")
def real(draws, tmp_path_factory):
    sides = [[draws.images(name, 60, seed=seed) for name in draws.names] for seed in (1, 2)]
    prepared = draws.prepared(tmp_path_factory.mktemp("real"), sides[0], sides[1])
    return prepared, sides


def verdict(draws, real, folder, images, names):
    return copies_of_test_images(real[0], draws.synthetic(folder, images, names), 5)


def test_fresh_images_copy_nothing(draws, real, tmp_path):
    fresh = draws.images(draws.names[0], 50, seed=9)
    found = verdict(draws, real, tmp_path, fresh, [draws.names[0]] * 50)
    assert found.outcome == "good"


@pytest.mark.parametrize("change", ["as they are", "mirrored", "shifted"])
def test_copies_of_test_images_are_found(draws, real, tmp_path, change):
    """A generator that saw the test images: ten of its fifty are theirs."""
    copies = real[1][1][0][:10]
    copies = {"as they are": copies, "mirrored": copies[..., ::-1], "shifted": np.roll(copies, 1, axis=2)}[change]
    images = np.concatenate([copies, draws.images(draws.names[0], 40, seed=9)])
    found = verdict(draws, real, tmp_path, images, [draws.names[0]] * 50)
    assert found.outcome == "bad"
    assert "10 of 50" in found.sentence


def test_copies_of_training_images_are_no_copies_of_test_images(draws, real, tmp_path):
    images = np.concatenate([real[1][0][0][:10], draws.images(draws.names[0], 40, seed=9)])
    assert verdict(draws, real, tmp_path, images, [draws.names[0]] * 50).outcome == "good"


def test_too_few_training_images_leave_it_open(draws, tmp_path):
    small = [draws.images(name, 4, seed=1) for name in draws.names]
    prepared = draws.prepared(tmp_path / "real", small, small)
    cohort = draws.synthetic(tmp_path / "cohort", draws.images(draws.names[0], 5, seed=3), [draws.names[0]] * 5)
    assert copies_of_test_images(prepared, cohort, 5).outcome == "neutral"


def test_refusals_are_counted_by_side(tmp_path):
    rows = [
        {"path_hash": "1", "files": 2, "reason": "CUT", "found": "half", "advice": "copy"},
        {"path_hash": "2", "files": 1, "reason": "CUT", "found": "half", "advice": "copy"},
        {"path_hash": "3", "files": 1, "reason": "ODD", "found": "odd", "advice": "look"},
    ]
    for side, own in (("real", rows), ("synthetic", [])):
        (tmp_path / side).mkdir()
        pl.DataFrame(own, schema=QUARANTINE_SCHEMA).write_parquet(tmp_path / side / "quarantine.parquet")
    folders = {side: tmp_path / side for side in ("real", "synthetic")}
    table = refusal_table(folders)
    assert table is not None
    assert [(row["side"], row["reason"], row["files"]) for row in table.rows] == [
        ("real", "CUT", 3),
        ("real", "ODD", 1),
    ]
    assert refusal_notes(folders) == ["4 real files were set aside and take no part."]
    assert refusal_table({"synthetic": tmp_path / "synthetic"}) is None
