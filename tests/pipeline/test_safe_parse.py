import math
import operator
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from pipeline.errors import QuarantineError
from pipeline.safe_parse import Limits, parse_all
from pipeline.scan_io import read_nifti

# `operator.call(task)` runs the task itself, so that every test can bring its own parser fault.
LIMITS = Limits(timeout_s=20, memory_mb=600)
SQUARE_ROOT = partial(math.sqrt, 4.0)


def _outcomes(*tasks, limits=LIMITS):
    return list(parse_all(operator.call, tasks, limits))


def test_results_come_in_order_from_one_process_that_is_not_ours():
    outcomes = _outcomes(SQUARE_ROOT, os.getpid, partial(math.sqrt, 9.0), os.getpid)
    assert [outcomes[0].result, outcomes[2].result] == [2.0, 3.0]
    assert outcomes[1].result == outcomes[3].result != os.getpid()
    assert all(outcome.refusal is None for outcome in outcomes)


@pytest.mark.parametrize(
    ("fault", "reason", "found"),
    [
        (os.abort, "CRASHED", "SIGABRT"),
        (partial(signal.raise_signal, signal.SIGSEGV), "CRASHED", "SIGSEGV"),
        (partial(os._exit, 3), "CRASHED", "died"),
        (partial(bytes, 8 << 30), "OUT_OF_MEMORY", "memory limit"),
        (partial(int, "name of a patient"), "UNREADABLE", "ValueError while parsing"),
        (partial(exit, 0), "UNREADABLE", "SystemExit while parsing"),
    ],
)
def test_a_fault_costs_one_task_and_the_next_ones_are_served(fault, reason, found):
    before, faulty, after = _outcomes(SQUARE_ROOT, fault, SQUARE_ROOT)
    assert (before.result, after.result) == (2.0, 2.0)
    assert faulty.result is None
    assert faulty.refusal.reason == reason
    assert found in faulty.refusal.found
    assert "patient" not in str(faulty.refusal)


def test_a_hang_ends_at_the_time_limit():
    started = time.monotonic()
    hung, after = _outcomes(partial(time.sleep, 60), SQUARE_ROOT, limits=Limits(timeout_s=0.5, memory_mb=600))
    assert hung.refusal.reason == "TIMEOUT"
    assert "0.5 s" in hung.refusal.found
    assert after.result == 2.0
    assert time.monotonic() - started < 10


def test_the_parsers_own_refusal_crosses_the_process_boundary_whole(tmp_path):
    path = tmp_path / "cut.nii"
    path.write_bytes(b"\0" * 100)
    with pytest.raises(QuarantineError) as here:
        read_nifti(path)
    (outcome,) = parse_all(read_nifti, [path], LIMITS)
    assert outcome.refusal.args == here.value.args


def test_what_parsers_print_goes_nowhere(capfd):
    (outcome,) = _outcomes(partial(os.write, 2, b"PATIENT^NAME"))
    assert outcome.result == len(b"PATIENT^NAME")
    _outcomes(partial(print, "PATIENT^NAME"), partial(os.system, "echo PATIENT^NAME >&2"))
    captured = capfd.readouterr()
    assert "PATIENT" not in captured.out + captured.err


def test_parsers_write_no_files(tmp_path):
    target = tmp_path / "stolen.txt"
    (outcome,) = _outcomes(partial(Path.write_text, target, "PATIENT^NAME", encoding="utf-8"))
    assert outcome.refusal.reason == "UNREADABLE"
    assert target.read_bytes() == b""


def test_an_abandoned_iteration_ends_the_child():
    outcomes = parse_all(operator.call, [os.getpid, SQUARE_ROOT], LIMITS)
    child = next(outcomes).result
    outcomes.close()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_a_script_without_a_main_guard_is_not_run_again(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import math\n"
        "from pipeline.safe_parse import Limits, parse_all\n"
        "print([outcome.result for outcome in parse_all(math.sqrt, [4.0, 9.0], Limits(20, 3000))])\n",
        encoding="utf-8",
    )
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert run.stdout == "[2.0, 3.0]\n"
