"""The benchmark of accelerators runs anywhere, and needs torch and `models/` alone."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from benchmarks.gpu import main
main(["--tiny", "--device", "cpu", "--out", sys.argv[1]])
others = ("pipeline", "flows", "monai", "pydantic", "polars")
print(sorted(name for name in sys.modules if name.split(".")[0] in others))
"""


def test_it_runs_on_a_cpu_and_imports_nothing_but_models(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "gpu.json")], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert list(result["times_the_plain_loop"]) == ["plain loop", "float32", "bfloat16"]
    assert result["times_the_plain_loop"]["plain loop"] == 1
    for name, rate in result["images_a_second"].items():
        middle = sorted(result["seconds_a_step"][name])
        assert rate == pytest.approx(result["size"]["batch"] / ((middle[0] + middle[1]) / 2))
