import errno
import os
import signal

import pytest
import typer

from flows.failures import EXIT_TERMINATED, StepFailed, is_transient, reported
from pipeline.errors import TrainingError, WorkspaceError


def _made_from(cause: BaseException) -> WorkspaceError:
    error = WorkspaceError("rule", found="f", allowed="a", change="c")
    error.__cause__ = cause
    return error


def test_errors_of_a_share_that_may_pass_are_tried_again() -> None:
    assert is_transient(OSError(errno.ESTALE, "Stale file handle"))
    assert is_transient(_made_from(OSError(errno.EIO, "Input/output error")))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.ENOENT])
def test_errors_that_waiting_does_not_heal_are_not_tried_again(number: int) -> None:
    assert not is_transient(OSError(number, os.strerror(number)))
    assert not is_transient(_made_from(OSError(number, os.strerror(number))))


def test_errors_of_ours_are_not_tried_again() -> None:
    assert not is_transient(TrainingError("rule", found="f", allowed="a", change="c"))
    assert not is_transient(ValueError("text"))


def test_prefect_is_told_the_type_and_not_the_text() -> None:
    failure = StepFailed("ingest", ValueError("patient Lindgren in /ward/7"))
    assert "ValueError" in str(failure)
    assert "Lindgren" not in repr(failure)
    assert "ward" not in repr(failure)


def test_termination_unwinds_and_ends_with_its_own_code(capsys: pytest.CaptureFixture[str]) -> None:
    cleaned = []
    before = signal.getsignal(signal.SIGTERM)

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            cleaned.append(True)

    with pytest.raises(typer.Exit) as ended, reported(debug=False):
        work()
    assert ended.value.exit_code == EXIT_TERMINATED == 143
    assert cleaned == [True]
    assert "run the same command again" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("debug", [False, True])
def test_own_errors_print_their_four_facts_or_pass_when_debugging(
    debug: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(TrainingError if debug else typer.Exit) as ended, reported(debug):
        raise TrainingError("Loss must be finite.", found="nan", allowed="numbers", change="Lower the learning rate.")
    if not debug:
        assert isinstance(ended.value, typer.Exit)
        assert ended.value.exit_code == TrainingError.exit_code
        expected = (
            "error: Loss must be finite.\n  found:   nan\n  allowed: numbers\n  change:  Lower the learning rate.\n"
        )
        assert capsys.readouterr().err == expected
