"""The benchmark of the flight recorder: one seed of each provocation, and the figures that are stored."""

import json
from pathlib import Path

import pytest

from benchmarks.flight_recorder import EXPECTED, outcome

STORED = Path(__file__).parents[3] / "docs" / "results" / "flight_recorder.json"


@pytest.mark.slow
@pytest.mark.parametrize("kind", EXPECTED)
def test_a_provoked_training_raises_its_alarm(kind, tmp_path):
    found = outcome(kind, 2, tmp_path)
    assert found["found"], found
    assert found["went_on_to_its_end"] == (kind == "nan")


@pytest.mark.slow
def test_a_healthy_training_raises_none(tmp_path):
    assert outcome("healthy", 0, tmp_path)["alarms"] == []


def test_the_stored_figures_are_ten_of_ten_and_at_most_one_of_twenty():
    content = json.loads(STORED.read_text())
    counts = content["counts"]
    for kind in EXPECTED:
        assert counts[kind] == {"runs": 10, "with_alarm": 10}
    assert counts["healthy"]["runs"] == 20
    assert counts["healthy"]["with_alarm"] <= 1
    raised = [each for each in content["runs"] if each["kind"] == "healthy" and each["alarms"]]
    assert len(raised) == counts["healthy"]["with_alarm"]
