"""A workspace: one folder that holds everything a run makes, and the only place that holds identities.

Layout, version 1::

    workspace.json      format version
    lock                held with flock while a run writes
    ledger.sqlite       what ran, on what, with what result
    identity/           mode 700: key, crosswalk, source paths; nothing else in the workspace may identify a patient
    splits.json         subject -> train | validation | test, made once
    <stage>/<key>/      output of a stage, whole or absent; <key>.partial while it is made
    logs/
"""

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from pipeline.errors import WorkspaceBusyError, WorkspaceError
from pipeline.files import PARTIAL_SUFFIX, read_json, write_bytes, write_json

FORMAT_VERSION = 1
_KEY_BYTES = 32
_NOTE_S = 1.0


@dataclass(frozen=True)
class Workspace:
    """An opened workspace. Use `Workspace.open`.

    Attributes:
        root: absolute folder.
        planning: stages are asked what they would do, and make nothing; see `pipeline.planning`.
    """

    root: Path
    planning: bool = False

    @classmethod
    def open(cls, root: Path, identity_key: bytes | None = None) -> "Workspace":
        """Open ``root``, creating the workspace where there is none.

        Args:
            root: folder.
            identity_key: key for pseudonyms of a *new* workspace; random when None. Phantoms use a fixed one so that
                their runs can be compared; patient data never should.

        Raises:
            WorkspaceError: it cannot be written, or is of another format version.
        """
        root = root.expanduser().resolve()
        workspace = cls(root)
        try:
            root.mkdir(parents=True, exist_ok=True)
            workspace._check_version()
            workspace._make_identity(identity_key)
            (root / "logs").mkdir(exist_ok=True)
        except OSError as error:
            raise WorkspaceError(
                "The workspace must be a folder that can be written.",
                found=f"{root}: {error.strerror or error}",
                allowed="a writable folder on a disk with space",
                change="Give another folder with --workspace, or correct its permissions.",
            ) from None
        return workspace

    def for_planning(self) -> "Workspace":
        """The same workspace, in which stages make nothing."""
        return replace(self, planning=True)

    @property
    def ledger_path(self) -> Path:
        """The run ledger."""
        return self.root / "ledger.sqlite"

    @property
    def identity(self) -> Path:
        """The folder that holds key, crosswalk and source paths."""
        return self.root / "identity"

    @property
    def splits_path(self) -> Path:
        """The subject-level split."""
        return self.root / "splits.json"

    def identity_key(self) -> bytes:
        """The secret key of pseudonyms and UIDs."""
        return bytes.fromhex((self.identity / "key").read_text(encoding="ascii").strip())

    def stage_folder(self, stage: str, key: str) -> Path:
        """Final output folder of a stage; the first 16 digits of the key name it."""
        return self.root / stage / key[:16]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the workspace for writing; the lock vanishes with the process, however it ends.

        Raises:
            WorkspaceBusyError: another run holds it.
        """
        with (self.root / "lock").open("a+", encoding="utf-8") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise WorkspaceBusyError(
                    "One run at a time may write to a workspace.",
                    found=f"in use by {_holder(stream) or 'another process'}",
                    allowed="a workspace that no other run holds",
                    change="Wait for that run, or give another --workspace; `scanloom status` shows what it does.",
                ) from None
            _note(stream, f"process {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
            try:
                yield
            finally:
                with suppress(OSError):  # a full disk must not hide what ended the run
                    _note(stream, "")

    def _check_version(self) -> None:
        path = self.root / "workspace.json"
        if not path.exists():
            own = {"lock", "logs", "identity", ".prefect", path.name + PARTIAL_SUFFIX}
            stray = [item.name for item in self.root.iterdir() if item.name not in own]
            if stray:
                raise WorkspaceError(
                    "A new workspace must be an empty folder.",
                    found=f"{len(stray)} other entries in {self.root}",
                    allowed="an empty or new folder, or an existing workspace",
                    change="Give another folder with --workspace.",
                )
            write_json(path, {"format_version": FORMAT_VERSION})
            return
        try:
            version = read_json(path)["format_version"]
        except (json.JSONDecodeError, KeyError, TypeError):
            version = "unreadable"
        if version != FORMAT_VERSION:
            raise WorkspaceError(
                "The workspace must be of this release's format.",
                found=f"format version {version}",
                allowed=f"format version {FORMAT_VERSION}",
                change="Use a new --workspace, or the release that made this one.",
            )

    def _make_identity(self, identity_key: bytes | None) -> None:
        self.identity.mkdir(mode=0o700, exist_ok=True)
        key_path = self.identity / "key"
        if not key_path.exists():
            write_bytes(key_path, (identity_key or secrets.token_bytes(_KEY_BYTES)).hex().encode())
            key_path.chmod(0o600)
        if not os.access(self.root, os.W_OK):
            raise PermissionError(13, "Permission denied", str(self.root))


def _note(stream: IO[str], text: str) -> None:
    stream.seek(0)
    stream.truncate()
    stream.write(text)
    stream.flush()


def _holder(stream: IO[str]) -> str:
    """Who noted in the lock that it holds it; a process that took it this moment needs one more to say so."""
    give_up = time.monotonic() + _NOTE_S
    while True:
        stream.seek(0)
        noted = stream.read().strip()
        if _living(noted) or time.monotonic() > give_up:
            return noted
        time.sleep(0.01)


def _living(noted: str) -> bool:
    """Whether a note names a process that lives, unlike one that a killed process left behind."""
    number = noted.removeprefix("process ").partition(" ")[0]
    try:
        os.kill(int(number), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:  # another user's
        return True
    return True
