"""How a command ends when it does not end well: one clear message on stderr, one exit code, no traceback.

A traceback may quote patient data or paths, and helps only those who read code: ``--debug`` shows it.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import typer

from pipeline.errors import ScanloomError

EXIT_UNEXPECTED = 70
"""EX_SOFTWARE of sysexits.h: a fault of ours."""
EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_TERMINATED = 128 + signal.SIGTERM


class Terminated(BaseException):
    """SIGTERM reached the command; outside `Exception` so that no stage takes it for a failure of its own."""


class OrchestrationError(ScanloomError):
    """Prefect could not start or could not be reached; stages work without it."""

    exit_code = 7


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
