"""The parsing process: it limits itself, then answers tasks until its parent goes."""

import math
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any

from pipeline.errors import QuarantineError
from pipeline.safe_parse import arenas
from pipeline.safe_parse.refusals import out_of_memory, unreadable
from pipeline.safe_parse.wire import PART, Part, pack

_MIB = 1 << 20
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_FORBIDDEN = frozenset(
    {
        "os.chmod",
        "os.chown",
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.kill",
        "os.killpg",
        "os.link",
        "os.mkdir",
        "os.posix_spawn",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.setxattr",
        "os.spawn",
        "os.symlink",
        "os.system",
        "os.truncate",
        "os.utime",
        "pty.spawn",
        "socket.bind",
        "socket.connect",
        "socket.sendto",
        "subprocess.Popen",
    }
)
"""Audited operations that no parser needs (PEP 578)."""


def serve(
    pipe: socket.socket, parse: Callable[[Any], Any], memory_mb: int, timeout_s: float, shared: arenas.Descriptors
) -> None:
    """The life of the parsing process.

    Args:
        pipe: tasks come from it, answers go to it: a pair of result and refusal, one of them None.
        parse: the parser.
        memory_mb: address space in MiB.
        timeout_s: seconds a task, of the clock; twice as many of the processor, for parsers have threads.
        shared: memory for results.
    """
    lent = arenas.take(shared.numbers)
    _limit(memory_mb)
    pipe.setblocking(True)
    while True:
        received = _received(pipe)
        if received is None:
            return
        number, content = received
        lent.begin(number)
        _send(pipe, _answered(parse, content, timeout_s, lent))


def _limit(memory_mb: int) -> None:
    os.setsid()  # what it might start ends with it
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb * _MIB, memory_mb * _MIB))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    sys.dont_write_bytecode = True
    nowhere = os.open(os.devnull, os.O_WRONLY)  # warnings and tracebacks of parsers quote headers
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _FORBIDDEN or (event == "open" and _writes(*arguments)):
        raise PermissionError("a parser only reads")


def _writes(path: Any, _mode: Any, flags: Any) -> bool:
    return isinstance(flags, int) and bool(flags & _WRITING) and path != os.devnull


def _received(pipe: socket.socket) -> tuple[int, bytearray] | None:
    """Shared memory for the result, and one pickled task; None where the parent has gone."""
    head = _exactly(pipe, PART.size)
    if head is None:
        return None
    size, number = PART.unpack(head)
    content = _exactly(pipe, size)
    return None if content is None else (number, content)


def _exactly(pipe: socket.socket, size: int) -> bytearray | None:
    content = bytearray(size)
    held = memoryview(content)
    while held:
        try:
            count = pipe.recv_into(held)
        except OSError:
            return None
        if count == 0:
            return None
        held = held[count:]
    return content


def _answered(parse: Callable[[Any], Any], content: bytearray, timeout_s: float, lent: arenas.LentArenas) -> list[Part]:
    """The answer to a task, ready to send; by its timers the process ends itself even where its parent is busy."""
    processor_s = math.ceil(time.process_time() + 2 * timeout_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (processor_s, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        task = ForkingPickler.loads(content)  # from the parent, as multiprocessing does
        return pack(_attempt(parse, task), lent.place_of)
    except MemoryError:  # too large to pickle within the limit
        return pack((None, out_of_memory()))
    except Exception as error:  # a result that cannot be pickled
        return pack((None, unreadable(error)))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _attempt(parse: Callable[[Any], Any], task: Any) -> tuple[Any, QuarantineError | None]:
    try:
        return parse(task), None
    except QuarantineError as refusal:
        return None, out_of_memory() if isinstance(refusal.__cause__, MemoryError) else refusal
    except MemoryError:
        return None, out_of_memory()
    except BaseException as error:  # a parser has been seen to raise a bare BaseException
        return None, unreadable(error)


def _send(pipe: socket.socket, parts: list[Part]) -> None:
    for part in parts:
        pipe.sendall(part)
