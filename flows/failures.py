"""How a command ends when it does not end well: one clear message on stderr, one exit code, no traceback.

A traceback may quote patient data or paths, and helps only those who read code: ``--debug`` shows it.
"""

import errno
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import typer

from pipeline.disk_errors import disk_error
from pipeline.errors import (
    InputError,
    ResourceError,
    ScanloomError,
    SettingsError,
    TrainingError,
    WorkspaceBusyError,
    WorkspaceError,
)

EXIT_UNEXPECTED = 70
"""EX_SOFTWARE of sysexits.h: a fault of ours."""
EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_TERMINATED = 128 + signal.SIGTERM

TRANSIENT_ERRORS = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.EINTR,
        errno.EIO,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.ENETDOWN,
        errno.ENETUNREACH,
    }
)
"""Errors of a disk or network share that may pass; a full disk or a missing permission does not pass by waiting."""


class Terminated(BaseException):
    """SIGTERM reached the command; outside `Exception` so that no stage takes it for a failure of its own."""


class OrchestrationError(ScanloomError):
    """Prefect could not start or could not be reached; stages work without it."""

    exit_code = 7


class StepFailed(Exception):  # noqa: N818 - a state's name in Prefect, not an error that anyone catches
    """What Prefect is told of a failure: the step, the error's kind and type, never its text.

    Attributes:
        kind: see `kind_of`; errors of the kind ``passing`` are worth another attempt.
    """

    def __init__(self, step: str, error: BaseException) -> None:
        self.kind = kind_of(error)
        super().__init__(
            f"{step}: {self.kind} ({type(error).__name__}); the full message is in the terminal and in the run ledger"
        )


class FlowRefused(Exception):  # noqa: N818 - a state's name in Prefect, not an error that anyone catches
    """What Prefect is told of a run that could not begin: the kind and type of the error."""

    def __init__(self, flow: str, error: BaseException) -> None:
        kind = kind_of(error)
        say = {"busy": "another run holds the workspace; `scanloom status` says which"}
        super().__init__(
            f"{flow}: {kind} ({type(error).__name__}); {say.get(kind, 'the full message is in the terminal')}"
        )


_KINDS: tuple[tuple[type[BaseException], str], ...] = (
    (WorkspaceBusyError, "busy"),
    (SettingsError, "settings"),
    (InputError, "input"),
    (WorkspaceError, "workspace"),
    (ResourceError, "resources"),
    (TrainingError, "training"),
    (MemoryError, "resources"),
)


def kind_of(error: BaseException) -> str:
    """The kind of an error: passing, busy, settings, input, workspace, resources, training, or fault (of ours)."""
    if is_transient(error):
        return "passing"
    return next((kind for known, kind in _KINDS if isinstance(error, known)), "fault")


def is_transient(error: BaseException) -> bool:
    """Whether an error, or the system error that it was made from, may pass by itself."""
    return any(isinstance(each, OSError) and each.errno in TRANSIENT_ERRORS for each in (error, error.__cause__))


@contextmanager
def reported(debug: bool) -> Iterator[None]:
    """Turn whatever goes wrong inside the block into a message and an exit code.

    Args:
        debug: let unexpected errors, and scanloom's own, through with their traceback.

    Raises:
        typer.Exit: with the exit code of the failure.
    """
    try:
        with _terminable():
            yield
    except (typer.Exit, BrokenPipeError):
        raise
    except ScanloomError as error:
        if debug:
            raise
        _end(f"error: {error}", error.exit_code)
    except KeyboardInterrupt:
        _end("stopped; run the same command again to resume", EXIT_INTERRUPTED)
    except Terminated:
        _end("terminated; run the same command again to resume", EXIT_TERMINATED)
    except Exception as error:
        if debug:
            raise
        broken = disk_error(error)
        if broken is not None:
            _end(f"error: {broken}", broken.exit_code)
        name = type(error).__name__
        _end(f"unexpected error: {name} (run with --debug for the traceback); please report it", EXIT_UNEXPECTED)


def _end(message: str, code: int) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code) from None


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM unwind the stack, so that a stage can leave its folders in order."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # signals can be handled in the main thread only
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
