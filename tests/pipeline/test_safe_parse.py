import copy
import importlib
import itertools
import math
import operator
import os
import pickle
import signal
import struct
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import QuarantineError
from pipeline.geometry import Geometry
from pipeline.safe_parse import Limits, parse_all
from pipeline.safe_parse.arenas import NONE
from pipeline.safe_parse.wire import pack, unpack
from pipeline.scan_io import Scan, ScanFacts, read_nifti

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


def test_parsers_write_and_remove_no_files(tmp_path):
    target, other = tmp_path / "stolen.txt", tmp_path / "other.txt"
    other.write_text("ours", encoding="utf-8")
    deeds = [
        partial(Path.write_text, target, "PATIENT^NAME", encoding="utf-8"),
        partial(os.open, target, os.O_WRONLY | os.O_CREAT),
        partial(os.remove, other),
        partial(os.rename, other, target),
        partial(os.symlink, other, target),
        partial(os.mkdir, target),
        partial(os.truncate, other, 0),
        partial(Path.write_text, other, "theirs", encoding="utf-8"),
    ]
    outcomes = _outcomes(*deeds)
    assert {outcome.refusal.reason for outcome in outcomes} == {"UNREADABLE"}
    assert [path.name for path in tmp_path.iterdir()] == ["other.txt"]
    assert other.read_text(encoding="utf-8") == "ours"


@pytest.mark.parametrize(
    "deed",
    [
        partial(os.system, "true"),
        partial(subprocess.run, ["true"], check=False),
        partial(os.posix_spawn, "/bin/true", ["true"], {}),
        os.fork,
        partial(os.kill, os.getpid(), signal.SIGTERM),
    ],
)
def test_parsers_start_and_end_no_processes(deed):
    (outcome,) = _outcomes(deed)
    assert outcome.refusal.found == "PermissionError while parsing"


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


def test_numerical_libraries_of_the_child_have_one_thread_and_ours_keep_theirs(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    outcomes = _outcomes(partial(os.getenv, "OMP_NUM_THREADS"), partial(os.getenv, "MKL_NUM_THREADS"))
    assert [outcome.result for outcome in outcomes] == ["1", "1"]
    assert (os.environ["OMP_NUM_THREADS"], os.getenv("MKL_NUM_THREADS")) == ("64", None)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["int16", "float32", ">u2", "bool", "complex64"])
def test_arrays_cross_exactly_and_can_be_written_to(order, dtype):
    values = np.asarray(np.arange(60).reshape(3, 4, 5) % 7, dtype=dtype, order=order)
    (outcome,) = _outcomes(partial(np.array, values, order="K"))
    assert outcome.result.dtype == values.dtype
    assert outcome.result.flags.f_contiguous == (order == "F")
    np.testing.assert_array_equal(outcome.result, values)
    outcome.result[...] = 0


def test_tasks_and_results_larger_than_the_pipe_do_not_block_each_other():
    contents = [bytes([number]) * (5 << 20) for number in range(4)]
    outcomes = _outcomes(*[partial(bytes, content) for content in contents])
    assert [outcome.result for outcome in outcomes] == contents


def test_the_child_works_ahead_while_its_last_result_is_used():
    outcomes = parse_all(operator.call, [os.getpid, partial(time.sleep, 1.0)], LIMITS)
    next(outcomes)
    time.sleep(1.5)
    started = time.monotonic()
    assert next(outcomes).refusal is None
    assert time.monotonic() - started < 0.5


def test_a_result_that_waited_longer_than_the_time_limit_is_taken():
    outcomes = parse_all(operator.call, [SQUARE_ROOT, partial(math.sqrt, 9.0)], Limits(timeout_s=0.3, memory_mb=600))
    next(outcomes)
    time.sleep(1)
    assert next(outcomes).result == 3.0


def test_a_task_sent_ahead_of_a_crash_is_run_again():
    outcomes = _outcomes(SQUARE_ROOT, os.abort, partial(math.sqrt, 9.0), os.abort, partial(math.sqrt, 16.0))
    assert [outcome.result for outcome in outcomes] == [2.0, None, 3.0, None, 4.0]
    assert [outcome.refusal.reason for outcome in outcomes if outcome.refusal] == ["CRASHED", "CRASHED"]


def test_a_loop_that_never_returns_to_python_ends_at_the_time_limit():
    limits = Limits(timeout_s=0.5, memory_mb=600)
    hung, after = _outcomes(partial(sum, itertools.repeat(1)), SQUARE_ROOT, limits=limits)
    assert hung.refusal.reason == "TIMEOUT"
    assert after.result == 2.0


@pytest.mark.slow
def test_a_child_that_ignores_its_timers_is_ended_by_its_parent():
    limits = Limits(timeout_s=0.5, memory_mb=600)
    hung, after = _outcomes(partial(_sleep_deaf, 60), SQUARE_ROOT, limits=limits)
    assert hung.refusal.reason == "TIMEOUT"
    assert after.result == 2.0


def _sleep_deaf(seconds):
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    time.sleep(seconds)


@pytest.mark.parametrize("answer", [os.system, subprocess.Popen, np.load, operator.call])
def test_answers_hold_no_functions_and_no_foreign_types(answer):
    bad, after = _outcomes(partial(copy.copy, answer), SQUARE_ROOT)
    assert bad.result is None
    assert bad.refusal.reason in ("CRASHED", "UNREADABLE")
    assert after.result == 2.0


class _Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, function, *arguments):
        self._call = function, arguments

    def __reduce__(self):
        return self._call


@pytest.mark.parametrize(
    "deed",
    [
        lambda path: _Payload(os.system, f"touch {path}"),
        lambda path: _Payload(subprocess.check_output, ["touch", str(path)]),
        lambda path: _Payload(eval, f"open({str(path)!r}, 'w')"),
        lambda path: _Payload(getattr, str(path), "join"),
        lambda path: _Payload(importlib.import_module, "this"),
        lambda path: _Payload(Path.touch, path),
        lambda path: _Payload(np.save, path, np.zeros(1)),
        lambda path: _Payload(parse_all, len, [], LIMITS),
    ],
)
def test_unpickling_an_answer_runs_nothing(tmp_path, deed):
    path = tmp_path / "canary"
    parts = pack((deed(path), None))[1:]
    with pytest.raises(pickle.UnpicklingError):
        unpack(parts)
    assert not path.exists()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@given(VALUES)
def test_plain_values_cross_unchanged(value):
    assert unpack(pack((value, None))[1:]) == (value, None)


def test_a_scan_crosses_unchanged_and_its_voxels_are_not_copied_into_the_pickle():
    scan = Scan(np.arange(24, dtype=np.int16).reshape(2, 3, 4), Geometry((2, 3, 4), np.eye(4)), "CT", ScanFacts("id"))
    head, content, *buffers = pack((scan, None))
    assert [len(buffer) for buffer in buffers] == [48, 128]
    assert struct.unpack("<7Q", head) == (3, len(content), NONE, 48, NONE, 128, NONE)
    other, _ = unpack([content, *buffers])
    np.testing.assert_array_equal(other.voxels, scan.voxels)
    np.testing.assert_array_equal(other.geometry.affine, scan.geometry.affine)
    assert (other.modality, other.facts) == ("CT", scan.facts)
