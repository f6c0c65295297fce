"""Runs a parser in a child process with limits on memory and time: a crash, a hang or a bomb costs one scan, not a run.

The child is started with ``forkserver`` from a process that holds no data. It gets ``RLIMIT_AS``, ``RLIMIT_CORE`` and
``RLIMIT_FSIZE`` (it writes no file), its output goes nowhere, and it serves tasks one after another; when a task kills
it or outlasts its time, the child is replaced.
"""

import multiprocessing
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any, Generic, TypeVar

from pipeline.errors import QuarantineError

Task = TypeVar("Task")
Result = TypeVar("Result")

_MIB = 1 << 20
_HIDING = threading.Lock()
_PRELOADED = ["pipeline.scan_io"]
"""Imported once by the fork server, so that a child starts in hundredths of a second."""


@dataclass(frozen=True)
class Limits:
    """Limits of the child process.

    Attributes:
        timeout_s: wall-clock seconds a task.
        memory_mb: address space in MiB.
    """

    timeout_s: float
    memory_mb: int


@dataclass(frozen=True)
class Outcome(Generic[Task, Result]):
    """What became of one task: a result, or the reason why there is none."""

    task: Task
    result: Result | None
    refusal: QuarantineError | None


def parse_all(
    parse: Callable[[Task], Result], tasks: Sequence[Task], limits: Limits
) -> Iterator[Outcome[Task, Result]]:
    """Yield the outcome of ``parse(task)`` for each task, in order.

    Args:
        parse: a module-level function; it raises `QuarantineError` for what it refuses.
        tasks: picklable arguments.
        limits: what a child may use.
    """
    child: _Child | None = None
    try:
        for task in tasks:
            child = child or _Child(parse, limits)
            outcome, alive = child.run(task, limits)
            yield Outcome(task, *outcome)
            if not alive:
                child.stop()
                child = None
    finally:
        if child is not None:
            child.stop()


class _Child:
    """One parsing process and the pipe to it."""

    def __init__(self, parse: Callable[[Any], Any], limits: Limits) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, parse, limits.memory_mb), daemon=True)
        with _without_main():
            self._process.start()
        theirs.close()

    def run(self, task: Any, limits: Limits) -> tuple[tuple[Any, QuarantineError | None], bool]:
        """Result or refusal of one task, and whether the child can take another."""
        try:
            self._pipe.send(task)
            if not self._pipe.poll(limits.timeout_s):
                advice = "Raise ingest.timeout_s if the file is merely large."
                return (None, QuarantineError("TIMEOUT", f"no result after {limits.timeout_s:g} s", advice)), False
            result, refusal = self._pipe.recv()
        except (EOFError, ConnectionResetError, BrokenPipeError):
            self._process.join(5)
            return (None, _crash(self._process.exitcode)), False
        return (result, refusal), refusal is None or refusal.reason != "OUT_OF_MEMORY"

    def stop(self) -> None:
        """End the child."""
        self._pipe.close()
        self._process.join(0.5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide the main module: a child would import it, and a script without a ``__main__`` guard would run twice."""
    with _HIDING:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


def _serve(pipe: Connection, parse: Callable[[Any], Any], memory_mb: int) -> None:
    """The child's life: limit itself, then answer tasks until the pipe closes."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb * _MIB, memory_mb * _MIB))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _silence()
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        answer = _attempt(parse, task)
        try:
            pipe.send(answer)
        except (MemoryError, ValueError):  # too large to copy within the limit, or for one message
            pipe.send((None, _out_of_memory()))


def _silence() -> None:
    """Send output to nowhere: warnings and tracebacks of parsers quote headers."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _attempt(parse: Callable[[Any], Any], task: Any) -> tuple[Any, QuarantineError | None]:
    """Result or refusal; exceptions of parsers are reported by type only, for their texts may quote headers."""
    try:
        return parse(task), None
    except QuarantineError as refusal:
        return None, _out_of_memory() if isinstance(refusal.__cause__, MemoryError) else refusal
    except MemoryError:
        return None, _out_of_memory()
    except BaseException as error:  # a parser has been seen to raise a bare BaseException
        advice = "Open the file in a viewer; if it is sound, report which writer made it."
        return None, QuarantineError("UNREADABLE", f"{type(error).__name__} while parsing", advice)


def _out_of_memory() -> QuarantineError:
    advice = "Raise ingest.memory_limit_mb if the file is merely large."
    return QuarantineError("OUT_OF_MEMORY", "the parser ran into its memory limit", advice)


def _crash(exit_code: int | None) -> QuarantineError:
    killed = exit_code is not None and exit_code < 0
    found = f"the parser died of {signal.Signals(-exit_code).name}" if killed and exit_code else "the parser died"
    return QuarantineError(
        "CRASHED", found, "Treat the file as hostile or damaged; do not open it elsewhere unchecked."
    )
