import errno
import sqlite3

import pytest

from pipeline.disk_errors import disk_error


class RustError(Exception):
    """As polars and safetensors raise it."""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 5),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 5),
        (OSError(errno.EROFS, "Read-only file system"), 4),
        (RustError("I/O error: No space left on device (os error 28)"), 5),
        (RustError("Input/output error (os error 5)"), 4),
        (sqlite3.OperationalError("database or disk is full"), 5),
        (sqlite3.OperationalError("attempt to write a readonly database"), 4),
        (sqlite3.OperationalError("disk I/O error"), 4),
    ],
)
def test_a_broken_disk_is_known_through_every_library(error, code):
    assert disk_error(error).exit_code == code


@pytest.mark.parametrize("error", [ValueError("os error 2"), sqlite3.OperationalError("no such table: x"), KeyError()])
def test_other_errors_are_not_the_disk(error):
    assert disk_error(error) is None
