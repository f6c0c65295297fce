"""Atomic writes and content hashes: no final name ever holds half a file.

A file or folder is built under a temporary name in the same directory, flushed to disk, then renamed; the directory
entry is flushed too. A crash leaves either the old state or the new one, plus a temporary that the next run removes.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARTIAL_SUFFIX = ".partial"
"""Ending of folders and files under construction."""

_CHUNK_BYTES = 1 << 20


def flush_directory(folder: Path) -> None:
    """Flush a directory entry to disk, so that a rename survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_tree(folder: Path) -> None:
    """Flush every file and directory below ``folder``."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        elif path.is_dir():
            flush_directory(path)
    flush_directory(folder)


def write_bytes(path: Path, *content: bytes | memoryview) -> None:
    """Write ``content``, one part after the other, to ``path`` atomically, creating parent folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + PARTIAL_SUFFIX)
    with temporary.open("wb") as stream:
        for part in content:
            stream.write(part)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
    flush_directory(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text to ``path`` atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys, atomically. Non-finite numbers raise ``ValueError``."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def atomic_folder(final: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes ``final`` when the block ends without an error, and is removed otherwise.

    An existing ``final`` is replaced.
    """
    temporary = final.with_name(final.name + PARTIAL_SUFFIX)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        promote_folder(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def promote_folder(temporary: Path, final: Path) -> None:
    """Flush ``temporary`` and rename it to ``final``; an older ``final`` steps aside first and is then removed."""
    flush_tree(temporary)
    retired = final.with_name(final.name + ".retired")
    shutil.rmtree(retired, ignore_errors=True)
    if final.exists():
        final.rename(retired)
    temporary.rename(final)
    flush_directory(final.parent)
    shutil.rmtree(retired, ignore_errors=True)


def remove_partial(folder: Path) -> None:
    """Remove what a killed process left under construction below ``folder``."""
    for path in sorted(folder.rglob(f"*{PARTIAL_SUFFIX}"), reverse=True):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def sha256_bytes(content: bytes) -> str:
    """Hexadecimal SHA-256 of bytes."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """SHA-256 of the canonical JSON form of ``value``: sorted keys, no white space."""
    return sha256_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())


def folder_manifest(folder: Path, leave_out: frozenset[str] = frozenset()) -> dict[str, str]:
    """Map each file below ``folder`` (POSIX path relative to it) to its SHA-256.

    Args:
        folder: the folder to describe.
        leave_out: top-level names that are not part of the content.
    """
    manifest = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and name.parts[0] not in leave_out:
            manifest[name.as_posix()] = sha256_file(path)
    return manifest


def manifest_hash(manifest: Mapping[str, str]) -> str:
    """One hash for a whole folder, from its manifest."""
    return sha256_json(dict(manifest))
