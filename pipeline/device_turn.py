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
from dataclasses import dataclass
from pathlib import Path
from typing import IO

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
        began = time.monotonic()
        while not _taken(stream):
            waited = int(time.monotonic() - began)
            progress(f"s waiting for device {turn.label}, held by {_holder(stream)}", waited, 0)
            time.sleep(_POLL_S)
        stream.seek(0)
        stream.truncate()
        stream.write(f"process {os.getpid()}")
        stream.flush()
        yield


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
    plain = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)
    return (lock_folder() / f"{plain}.lock").open("a+", encoding="utf-8")


def _taken(stream: IO[str]) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(stream: IO[str]) -> str:
    stream.seek(0)
    return stream.read().strip() or "another process"
