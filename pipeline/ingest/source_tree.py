"""The input folder as a list of regular files; links and special files are noted, never followed or opened.

Names are kept relative to the input folder, with forward slashes. Bytes that are no UTF-8 are escaped, so that every
name can be hashed. Hidden files and folders (leading dot) are only counted.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError, QuarantineError

DICOM_MAGIC_END = 132
"""A 128-byte preamble and ``DICM`` (PS3.10 7.1)."""

BIDS_IGNORE = ".bidsignore"
"""The one hidden file that is listed: it decides what is read, so that it belongs to what tells a changed input."""


@dataclass(frozen=True)
class SourceFile:
    """One regular file of the input.

    Attributes:
        name: path relative to the input folder, POSIX form.
        path: absolute path.
        size: bytes.
        mtime_ns, ctime_ns, inode: what tells an unchanged file without reading it.
    """

    name: str
    path: Path
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

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
    """

    files: tuple[SourceFile, ...]
    refused: tuple[Refusal, ...] = ()
    hidden: int = 0

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
    root = Path(os.path.realpath(source.expanduser()))
    if root.is_file():
        beside = root.with_suffix(".json")
        pair = [root, beside] if beside.is_file() and not beside.is_symlink() else [root]
        return SourceTree(tuple(sorted((_described(path, path.name) for path in pair), key=lambda file: file.name)))
    if not root.is_dir():
        raise _no_input("nothing there, or no permission to look")
    files: list[SourceFile] = []
    refused: list[Refusal] = []
    hidden = 0
    for path, kind in _entries(root, refused, root, leave_out and Path(os.path.realpath(leave_out))):
        name = _name(path, root)
        if kind == "hidden":
            hidden += 1
        elif kind == "file":
            files.append(_described(path, name))
        else:
            refused.append(Refusal((name,), _not_regular(kind)))
    if not files:
        raise _no_input(f"no regular file ({len(refused)} links or special files, {hidden} hidden entries)")
    files.sort(key=lambda file: file.name)
    return SourceTree(tuple(files), tuple(sorted(refused, key=lambda item: item.names)), hidden)


def open_regular(path: Path) -> int:
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
    """The first ``count`` bytes of a file; empty where it cannot be opened."""
    try:
        descriptor = open_regular(file.path)
    except OSError:
        return b""
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read(count)


def looks_dicom(file: SourceFile) -> bool:
    """Tell by content whether a file is DICOM Part 10."""
    return file.size > DICOM_MAGIC_END and read_start(file, DICOM_MAGIC_END)[128:] == b"DICM"


def _entries(folder: Path, refused: list[Refusal], root: Path, leave_out: Path | None) -> Iterator[tuple[Path, str]]:
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        try:
            with os.scandir(current) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            refused.append(Refusal((_name(current, root),), _no_permission("folder")))
            continue
        for entry in entries:
            path = Path(entry.path)
            kind = _kind(entry)
            if kind != "folder":
                yield path, kind
            elif path != leave_out:
                waiting.append(path)


def _kind(entry: "os.DirEntry[str]") -> str:
    mode = entry.stat(follow_symlinks=False).st_mode
    if entry.name.startswith(".") and entry.name != BIDS_IGNORE:
        return "hidden"
    if stat.S_ISLNK(mode):
        return "link"
    if stat.S_ISDIR(mode):
        return "folder"
    return "file" if stat.S_ISREG(mode) else "special file"


def _described(path: Path, name: str) -> SourceFile:
    found = os.lstat(path)
    return SourceFile(name, path, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def _name(path: Path, root: Path) -> str:
    return os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")


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
