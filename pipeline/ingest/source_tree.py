"""The input folder as a list of regular files; links and special files are noted, never followed or opened.

Names are kept relative to the input folder, with forward slashes. Bytes that are no UTF-8 are escaped, so that every
name can be hashed. Hidden files and folders (leading dot) are only counted.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import InputError, QuarantineError

DICOM_MAGIC_END = 132
"""A 128-byte preamble and ``DICM`` (PS3.10 7.1)."""

BIDS_IGNORE = ".bidsignore"
"""The one hidden file that is listed: it decides what is read, so that it belongs to what tells a changed input."""


class SourceFile(NamedTuple):
    """One regular file of the input; a tuple, for an archive has a hundred thousand of them.

    Attributes:
        name: path relative to the input folder, POSIX form.
        location: absolute path as the system gives it; bytes that are no UTF-8 are surrogates.
        size: bytes.
        mtime_ns, ctime_ns, inode: what tells an unchanged file without reading it.
    """

    name: str
    location: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @property
    def path(self) -> Path:
        """Absolute path."""
        return Path(self.location)

    @property
    def parts(self) -> tuple[str, ...]:
        """Folders and file name."""
        return tuple(self.name.split("/"))

    @property
    def folder(self) -> str:
        """Relative folder, empty at the root."""
        return self.name.rpartition("/")[0]

    @property
    def suffix(self) -> str:
        """Ending in lower case, ``.nii.gz`` in one piece."""
        lowered = self.parts[-1].lower()
        return ".nii.gz" if lowered.endswith(".nii.gz") else os.path.splitext(lowered)[1]

    @property
    def stem(self) -> str:
        """File name without its ending."""
        last = self.parts[-1]
        return last[: len(last) - len(self.suffix)] if self.suffix else last


@dataclass(frozen=True)
class Refusal:
    """Something in the input that cannot be trusted; becomes one quarantine row.

    Attributes:
        names: the files it stands for, the first one names the row.
        error: reason, what was found, advice.
    """

    names: tuple[str, ...]
    error: QuarantineError


@dataclass(frozen=True)
class SourceTree:
    """The input.

    Attributes:
        files: regular files, sorted by name.
        refused: links, special files, unreadable folders.
        hidden: hidden files and folders that were passed over.
        root: absolute path of the input; it tells inputs apart and may name a patient.
    """

    files: tuple[SourceFile, ...]
    refused: tuple[Refusal, ...] = ()
    hidden: int = 0
    root: str = ""

    def named(self) -> dict[str, SourceFile]:
        """Files by name."""
        return {file.name: file for file in self.files}


def walk(source: Path, leave_out: Path | None = None) -> SourceTree:
    """List the regular files below a folder, or a single file with the JSON of the same stem beside it.

    Args:
        source: folder or file; it may itself be a link, what lies below may not.
        leave_out: a folder below ``source`` that is no input, e.g. the workspace.

    Raises:
        InputError: there is nothing at ``source``, or no regular file in it.
    """
    root = os.path.realpath(source.expanduser())
    if os.path.isfile(root):
        return SourceTree(_with_json(root), root=root)
    if not os.path.isdir(root):
        raise _no_input("nothing there, or no permission to look")
    found = _Listing(root.rstrip(os.sep) + os.sep, os.path.realpath(leave_out) if leave_out else None)
    if not found.files:
        raise _no_input(f"no regular file ({len(found.refused)} links or special files, {found.hidden} hidden entries)")
    found.files.sort()
    refused = tuple(sorted(found.refused, key=lambda item: item.names))
    return SourceTree(tuple(found.files), refused, found.hidden, root)


def open_regular(path: str | Path) -> int:
    """Descriptor of a regular file, opened for reading without following a link or waiting on a pipe.

    Raises:
        OSError: it is a link, not a regular file, or cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("not a regular file")
    return descriptor


def read_start(file: SourceFile, count: int) -> bytes:
    """The first ``count`` bytes of a file; empty where it cannot be read."""
    try:
        descriptor = open_regular(file.location)
    except OSError:
        return b""
    try:
        return os.pread(descriptor, count, 0)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def looks_dicom(file: SourceFile) -> bool:
    """Tell by content whether a file is DICOM Part 10."""
    return file.size > DICOM_MAGIC_END and read_start(file, DICOM_MAGIC_END)[128:] == b"DICM"


class _Listing:
    """Everything below a folder, folder by folder.

    Args:
        root: ends with a separator.
        leave_out: absolute folder that is no input.
    """

    def __init__(self, root: str, leave_out: str | None) -> None:
        self.files: list[SourceFile] = []
        self.refused: list[Refusal] = []
        self.hidden = 0
        self._start = len(root)
        self._leave_out = leave_out
        self._waiting = [root]
        while self._waiting:
            folder = self._waiting.pop()
            try:
                with os.scandir(folder) as entries:
                    self._take(entries)
            except OSError:
                self._refuse(folder, _no_permission("folder"))

    def _take(self, entries: Iterator["os.DirEntry[str]"]) -> None:
        """Sort the entries of one folder; the system tells most kinds without a look at the file itself."""
        for entry in entries:
            if entry.name.startswith(".") and entry.name != BIDS_IGNORE:
                self.hidden += 1
            elif entry.is_symlink():
                self._refuse(entry.path, _not_regular("link"))
            elif entry.is_file(follow_symlinks=False):
                self._add(entry)
            elif not entry.is_dir(follow_symlinks=False):
                self._refuse(entry.path, _not_regular("special file"))
            elif entry.path != self._leave_out:
                self._waiting.append(entry.path)

    def _add(self, entry: "os.DirEntry[str]") -> None:
        try:
            found = entry.stat(follow_symlinks=False)
        except FileNotFoundError:  # removed since the folder was opened
            return
        path = entry.path
        name = path[self._start :]
        name = name if name.isascii() else _name(name)
        self.files.append(SourceFile(name, path, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino))

    def _refuse(self, path: str, error: QuarantineError) -> None:
        self.refused.append(Refusal((_name(path[self._start :]) or ".",), error))


def _with_json(path: str) -> tuple[SourceFile, ...]:
    """A single file, and the JSON of the same stem where there is one."""
    beside = os.path.splitext(path)[0] + ".json"
    pair = {path, beside} if os.path.isfile(beside) and not os.path.islink(beside) else {path}
    return tuple(sorted(_described(item) for item in pair))


def _described(path: str) -> SourceFile:
    found, name = os.lstat(path), _name(os.path.basename(path))
    return SourceFile(name, path, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def _name(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _not_regular(kind: str) -> QuarantineError:
    reason = "LINK" if kind == "link" else "SPECIAL_FILE"
    return QuarantineError(reason, f"a {kind}; it was not opened", "Copy the file itself into the input folder.")


def _no_permission(what: str) -> QuarantineError:
    return QuarantineError("NO_PERMISSION", f"a {what} that cannot be opened", "Give yourself permission to read it.")


def _no_input(found: str) -> InputError:
    return InputError(
        "The input must be a folder with scans or images.",
        found=found,
        allowed="DICOM series, NIfTI files, class folders of images, slice pairs, or a MedMNIST-style .npz file",
        change="Check the path given with --input.",
    )
