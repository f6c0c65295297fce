"""Hands tasks to the parsing process and takes its answers, without ever waiting longer than the limits allow."""

import multiprocessing
import os
import pickle
import select
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Generic, TypeVar

import numpy as np

from pipeline.errors import QuarantineError
from pipeline.safe_parse import child, refusals
from pipeline.safe_parse.arenas import NONE, Arenas
from pipeline.safe_parse.wire import COUNT, MAXIMUM_PARTS, PART, Part, unpack

Task = TypeVar("Task")
Result = TypeVar("Result")

_MIB = 1 << 20
_PIPE_BYTES = 4 * _MIB
_GRACE_S = 5.0
"""How long after its time the parsing process may take to end itself."""

_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)
_HIDING = threading.Lock()


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


class _GoneError(Exception):
    """The parsing process ended, stopped answering, or sent what cannot be trusted; holds the refusal."""

    def __init__(self, refusal: QuarantineError) -> None:
        self.refusal = refusal


def parse_all(
    parse: Callable[[Task], Result], tasks: Sequence[Task], limits: Limits
) -> Iterator[Outcome[Task, Result]]:
    """Yield the outcome of ``parse(task)`` for each task, in order.

    The child works on the next task while an outcome is out; a task that was waiting when its child ended is sent
    again.

    Args:
        parse: a module-level function; it raises `QuarantineError` for what it refuses. Its results are made of plain
            values, arrays, paths, and frozen dataclasses and named tuples of ours.
        tasks: picklable arguments.
        limits: what a child may use.
    """
    served: _Child | None = None
    sent = 0
    try:
        for number, task in enumerate(tasks):
            if served is None:
                served, sent = _Child(parse, limits), number
            while sent <= min(number + 1, len(tasks) - 1):
                served.give(tasks[sent])
                sent += 1
            try:
                result, refusal = served.answer()
            except _GoneError as gone:
                result, refusal = None, gone.refusal
            if refusal is not None and refusal.reason in ("OUT_OF_MEMORY", "CRASHED", "TIMEOUT"):
                served.stop()
                served = None
            yield Outcome(task, result, refusal)
    finally:
        if served is not None:
            served.stop()


class _Child:
    """One parsing process and the pipe to it."""

    def __init__(self, parse: Callable[[Any], Any], limits: Limits) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_preloaded(parse))
        self._limits = limits
        self._pipe, theirs = socket.socketpair()
        for end in (self._pipe, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PIPE_BYTES)
        self._arenas = Arenas()
        self._lent: deque[int] = deque()
        arguments = (theirs, parse, limits.memory_mb, limits.timeout_s, self._arenas.descriptors)
        self._process = context.Process(target=child.serve, args=arguments, daemon=True)
        with _HIDING, _without_main(), _one_thread():
            self._process.start()
        theirs.close()
        self._arenas.descriptors.close()
        self._pipe.setblocking(False)
        self._outgoing: deque[memoryview] = deque()
        self._poll = select.poll()
        self._since = time.monotonic()

    def give(self, task: Any) -> None:
        """Queue a task; it is sent while the next answer is waited for."""
        content = pickle.dumps(task, protocol=5)
        self._lent.append(self._arenas.lend())
        self._outgoing += [memoryview(PART.pack(len(content), self._lent[-1])), memoryview(content)]
        self._push()

    def answer(self) -> tuple[Any, QuarantineError | None]:
        """Result or refusal of the oldest task without an answer.

        Raises:
            _GoneError: the child is of no more use.
        """
        deadline = max(self._since + self._limits.timeout_s, time.monotonic()) + _GRACE_S
        count = self._integer(deadline)
        deadline = time.monotonic() + self._limits.timeout_s + _GRACE_S
        if not 1 <= count <= MAXIMUM_PARTS:
            raise _GoneError(refusals.untrusted())
        heads = list(PART.iter_unpack(self._part(count * PART.size, deadline)))
        if sum(size for size, _ in heads) > self._limits.memory_mb * _MIB:
            raise _GoneError(refusals.untrusted())
        parts: list[Part] = [
            self._part(size, deadline) if place == NONE else self._shared(place, size) for size, place in heads
        ]
        self._arenas.settle(self._lent.popleft())
        try:
            result, refusal = unpack(parts)
        except Exception:  # malformed pickles raise anything
            raise _GoneError(refusals.untrusted()) from None
        if not (refusal is None or isinstance(refusal, QuarantineError)):
            raise _GoneError(refusals.untrusted())
        self._since = time.monotonic()
        return result, refusal

    def stop(self) -> None:
        """End the child and whatever it may have started."""
        self._pipe.close()
        pid = self._process.pid
        if pid is not None and self._process.exitcode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            self._process.kill()  # where it had no time to lead a group of its own
        self._process.join()

    def _integer(self, deadline: float) -> int:
        return int(COUNT.unpack(self._part(COUNT.size, deadline))[0])

    def _part(self, size: int, deadline: float) -> memoryview:
        """Bytes from the child, in memory of their own."""
        part = np.empty(size, np.uint8).data  # unlike a bytearray not filled first
        held = part
        while held:
            try:
                count = self._pipe.recv_into(held)
            except BlockingIOError:
                self._wait(deadline)
                continue
            except OSError:
                count = 0
            if count == 0:
                raise _GoneError(self._death())
            held = held[count:]
        return part

    def _shared(self, place: int, size: int) -> memoryview:
        """Bytes that the child has put into the area lent for this task."""
        try:
            return self._arenas.part(self._lent[0], place, size)
        except ValueError:
            raise _GoneError(refusals.untrusted()) from None

    def _wait(self, deadline: float) -> None:
        """Send what is queued, until the child answers."""
        self._push()
        events = select.POLLIN | (select.POLLOUT if self._outgoing else 0)
        self._poll.register(self._pipe, events)
        left = deadline - time.monotonic()
        if left <= 0 or not self._poll.poll(1000 * left):
            raise _GoneError(refusals.timeout(self._limits.timeout_s))

    def _push(self) -> None:
        """Send as much of the queue as the pipe takes."""
        while self._outgoing:
            try:
                count = self._pipe.send(self._outgoing[0])
            except BlockingIOError:
                return
            except OSError:  # the child has gone; reading tells why
                self._outgoing.clear()
                return
            if count < len(self._outgoing[0]):
                self._outgoing[0] = self._outgoing[0][count:]
            else:
                self._outgoing.popleft()

    def _death(self) -> QuarantineError:
        self._process.join(_GRACE_S)
        return refusals.died(self._process.exitcode, self._limits.timeout_s)


def _preloaded(parse: Callable[[Any], Any]) -> list[str]:
    """What the fork server imports once, so that a child starts in hundredths of a second.

    The parser that the first child of this process is for counts; a child for another one imports what that needs.
    """
    return [child.__name__, *([parse.__module__] if parse.__module__.startswith("pipeline.") else [])]


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide the main module: a child would import it, and a script without a ``__main__`` guard would run twice."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _one_thread() -> Iterator[None]:
    """Ask numerical libraries for one thread in what starts now: stacks of many would eat the address space."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
