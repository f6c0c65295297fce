"""The memorization gate on real images; the stored figures are in docs/results/memorization_gate.json."""

import json
import os
from pathlib import Path

import pytest

from benchmarks.memorization_gate import SETS, brain_tumor_mri, measure

STORED = Path(__file__).parents[3] / "docs" / "results" / "memorization_gate.json"


def holds(found: dict) -> None:
    promised = {kind: share for kind, share in found["found"].items() if "beyond" not in kind}
    assert len(promised) == 5
    assert set(promised.values()) == {1.0}, "every planted copy is found"
    assert found["fresh"] >= 300
    assert found["fresh_accused_share"] <= 0.01
    assert found["verdicts"] == {"fresh": "passed", "fresh and a tenth of copies": "blocked"}


@pytest.mark.parametrize("name", SETS)
def test_the_stored_figures_keep_the_promise(name: str) -> None:
    holds(json.loads(STORED.read_text(encoding="utf-8"))["sets"][name])


@pytest.mark.slow
@pytest.mark.real_data
def test_copies_of_real_slices_are_found_and_held_out_ones_are_not_accused() -> None:
    root = os.environ.get("SCANLOOM_TEST_DATA")
    if root is None or not (Path(root) / "brain_tumor_mri").is_dir():
        pytest.skip("SCANLOOM_TEST_DATA does not name a folder with brain_tumor_mri")
    holds(measure(brain_tumor_mri(Path(root), edge=32), planted=100))
