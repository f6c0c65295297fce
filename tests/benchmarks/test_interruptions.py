import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.interrupted_runs import spread, torn, tree
from benchmarks.system_call_faults import compiler
from pipeline.files import folder_manifest, write_json

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(compiler() is None, reason="needs a C compiler")


def sweep(module, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=3000,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout.splitlines()[-1])


def test_a_stage_survives_a_kill_and_a_broken_disk_at_any_call(tmp_path):
    found = sweep("interrupted_stage", "--work", tmp_path, "--every", 32)
    assert found["bad"] == []
    assert set(found["kinds"]) >= set("owrufm")
    assert sum(number for how, number in found["endings"].items() if how.endswith(": -9")) >= 15
    assert sum(number for how, number in found["endings"].items() if how.startswith("ENOSPC: 5")) >= 1


@pytest.mark.slow
def test_a_stage_survives_a_kill_and_a_broken_disk_at_every_call(tmp_path):
    found = sweep("interrupted_stage", "--work", tmp_path)
    assert found["bad"] == []
    assert sum(found["endings"].values()) == 5 * found["calls"]


@pytest.mark.slow
def test_every_real_stage_resumes_to_equal_bytes(tmp_path):
    found = sweep("interruptions", "--work", tmp_path, "--kills", 3, "--errors", 1)
    assert found["well"] == found["points"] >= 100
    assert found["torn_finals"] == 0


def test_half_an_output_under_a_final_name_is_seen(tmp_path):
    folder = tmp_path / "demo" / "0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / "data").write_bytes(bytes(10))
    write_json(folder / "record.json", {"manifest": folder_manifest(folder)})
    assert torn(tmp_path) == []
    before = tree(tmp_path)
    (folder / "data").write_bytes(bytes(9))
    assert torn(tmp_path) == ["demo/0123456789abcdef"]
    assert tree(tmp_path) != before
    (folder / "record.json").unlink()
    assert torn(tmp_path) == ["demo/0123456789abcdef"]


def test_points_reach_from_the_first_call_to_the_last():
    assert spread("x" * 5, 9) == [1, 2, 3, 4, 5]
    assert spread("x" * 100, 4) == [1, 34, 67, 100]
