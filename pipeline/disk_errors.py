"""What a disk that is full, broken or read-only says through the libraries that write to it."""

import errno
import os
import sqlite3

from pipeline.errors import ResourceError, WorkspaceError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DENIED = frozenset({errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.ESTALE, errno.ENXIO, errno.ENODEV})
_SQLITE = {"full": errno.ENOSPC, "disk I/O error": errno.EIO, "readonly": errno.EROFS, "unable to open": errno.EACCES}
_CHANGE = "Free space or correct permissions, then run the same command again: finished stages are kept."


def disk_error(error: BaseException) -> WorkspaceError | ResourceError | None:
    """A clear error for what the disk did; None where ``error`` does not speak of the disk.

    Libraries written in Rust raise types of their own with the system's number in the text; SQLite tells by words.
    """
    number = _number(error)
    if number in _FULL:
        return ResourceError(
            "A run needs space on the disk of its workspace.",
            found=os.strerror(number),
            allowed="free space, and a quota that is not used up",
            change=_CHANGE,
        )
    if number in _DENIED or isinstance(error, OSError):
        return WorkspaceError(
            "A stage could not read or write its files.",
            found=os.strerror(number) if number else type(error).__name__,
            allowed="a workspace that stays readable and writable",
            change=_CHANGE,
        )
    return None


def _number(error: BaseException) -> int:
    """The system's number of an error, 0 where it has none."""
    if isinstance(error, OSError):
        return error.errno or 0
    text = str(error)
    if isinstance(error, sqlite3.OperationalError):
        return next((number for word, number in _SQLITE.items() if word in text), 0)
    return next((number for number in _FULL | _DENIED if f"os error {number})" in text), 0)
