"""Turns on a device: one stage at a time computes on a GPU, whichever run of a user it belongs to; no server is needed.

A turn is an exclusive flock on a file in the user's runtime folder. It ends with the process, however that ends. Other
users' runs are not seen: machines with many users have schedulers for that.
"""

import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from pipeline.errors import ResourceError
from pipeline.records import ProgressCallback

_POLL_S = 0.2


@dataclass(frozen=True)
class DeviceTurn:
    """What is waited for.

    Attributes:
        name: of the physical device, or one that runs agree on; names the lock file.
        label: what people are told.
    """

    name: str
    label: str


class TurnWatcher(Protocol):
    """Whoever wants to show turns to people; it must not raise, and must not take long."""

    def waits(self, turn: DeviceTurn, holder: str) -> None:
        """Another process holds the device; called again and again."""

    def begins(self, turn: DeviceTurn) -> None:
        """The device is held from now on."""

    def ends(self, turn: DeviceTurn) -> None:
        """The device is about to be given back, or is no longer waited for."""


_WATCHER: ContextVar[TurnWatcher | None] = ContextVar("turn watcher", default=None)


@contextmanager
def turns_shown(watcher: TurnWatcher) -> Iterator[None]:
    """Tell ``watcher`` of the turns that are taken in the block."""
    token = _WATCHER.set(watcher)
    try:
        yield
    finally:
        _WATCHER.reset(token)


@contextmanager
def device_turn(turn: DeviceTurn | None, progress: ProgressCallback) -> Iterator[None]:
    """Hold the device for the time of the block; wait for it where another process holds it, and say who does.

    Args:
        turn: the device; None where nothing need be shared.
        progress: told ``s waiting for device ..., held by process ...``, the seconds, and a total of 0.

    Raises:
        ResourceError: the folder of locks cannot be used.
    """
    if turn is None:
        yield
        return
    with _lock_file(turn.name) as stream:
        watcher = _WATCHER.get()
        try:
            _wait(stream, turn, progress, watcher)
            stream.seek(0)
            stream.truncate()
            stream.write(f"process {os.getpid()}")
            stream.flush()
            if watcher is not None:
                watcher.begins(turn)
            yield
        finally:
            if watcher is not None:
                watcher.ends(turn)


def _wait(stream: IO[str], turn: DeviceTurn, progress: ProgressCallback, watcher: TurnWatcher | None) -> None:
    began = time.monotonic()
    while not _taken(stream):
        holder = _holder(stream)
        progress(f"s waiting for device {turn.label}, held by {holder}", int(time.monotonic() - began), 0)
        if watcher is not None:
            watcher.waits(turn, holder)
        time.sleep(_POLL_S)


def is_free(name: str) -> bool:
    """Whether nobody holds the device of that name at this moment.

    Raises:
        ResourceError: the folder of locks cannot be used.
    """
    with _lock_file(name) as stream:
        return _taken(stream)


def lock_folder() -> Path:
    """The folder of the locks: private to the user, gone when the machine starts again.

    Raises:
        ResourceError: it is not a folder of this user.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    private = Path(runtime) / "scanloom" if Path(runtime).is_dir() and runtime else None
    folder = private or Path(tempfile.gettempdir()) / f"scanloom-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        state = folder.lstat()
        sound = stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid()
        found = "a folder of another user, or no folder"
    except OSError as error:
        sound, found = False, error.strerror or type(error).__name__
    if not sound:
        raise ResourceError(
            "Runs that share a device meet in a folder of the user.",
            found=f"{folder}: {found}",
            allowed="a folder that belongs to you",
            change="Set XDG_RUNTIME_DIR to a folder of yours, or device_turns: off.",
        )
    return folder


def _lock_file(name: str) -> IO[str]:
    return (lock_folder() / f"{plain(name)}.lock").open("a+", encoding="utf-8")


def plain(name: str) -> str:
    """A device's name in letters that files and servers take."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)


def _taken(stream: IO[str]) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(stream: IO[str]) -> str:
    stream.seek(0)
    return stream.read().strip() or "another process"
