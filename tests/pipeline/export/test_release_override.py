import json

import polars as pl
import pytest
from pydantic import ValidationError

from pipeline.export.dataset import read_release
from pipeline.settings import ExportSettings


@pytest.fixture
def evaluation(tmp_path):
    def write(blocked):
        (tmp_path / "gate.json").write_text(json.dumps({"blocked": blocked, "reason": "9 of 10 images are copies"}))
        pl.DataFrame({"image": [1, 4]}).write_parquet(tmp_path / "flagged.parquet")
        return tmp_path

    return write


def test_a_blocked_cohort_is_released_with_a_reason_only_and_says_so(evaluation):
    folder = evaluation(True)
    assert not read_release(folder).released
    found = read_release(folder, "internal phantom test, no patients")
    assert found.released
    assert found.reason.startswith("OVERRIDDEN. The release gate is closed: 9 of 10 images are copies.")
    assert found.override == "internal phantom test, no patients"
    assert found.flagged == {1, 4}, "copies stay out whatever the reason"


def test_an_open_gate_needs_no_override_and_shows_none(evaluation):
    found = read_release(evaluation(False), "internal phantom test, no patients")
    assert found.released
    assert found.override is None
    assert "OVERRIDDEN" not in found.reason


@pytest.mark.parametrize("reason", ["", "because", "x" * 201])
def test_a_reason_says_something(reason):
    with pytest.raises(ValidationError):
        ExportSettings(release_override=reason)
