"""One command in a fork of a warm process, with or without a fault; and what two output trees have in common."""

import contextlib
import hashlib
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.system_call_faults import COUNT, OFF, Faults

VOLATILE = ("logs", "lock", "ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm", "runtime.json", "tensorboard")
"""Names that hold times, hosts or the history of runs; all else must be equal to the bit."""
INDEXES = (".sqlite", ".sqlite-journal")
"""Indexes of the input in ``identity/``: pages of SQLite, made again at any time."""


@dataclass(frozen=True)
class Fault:
    """What is to happen: ``mode`` of system_call_faults at call number ``at`` below ``folder``."""

    folder: Path
    at: int
    mode: int
    error: int = 0


@dataclass(frozen=True)
class Ending:
    """How a command ended: its exit code, or minus the signal; what it said on stderr; the calls it made."""

    code: int
    said: str
    calls: str


def run_forked(body: Callable[[], object], fault: Fault | None, work: Path) -> Ending:
    """Run ``body`` in a fork; `SystemExit` gives its exit code, another exception 1.

    Args:
        body: the work; its standard output goes nowhere.
        fault: armed just before the body.
        work: folder for what it says.
    """
    said, calls = work / "said", work / "calls"
    calls.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setsid()
            _redirect(said)
            faults = Faults() if fault is not None else None
            if faults is not None and fault is not None:
                faults.arm(fault.folder, fault.at, fault.mode, fault.error)
            code = _outcome(body)
            if faults is not None and fault is not None and fault.mode != OFF:
                calls.write_text(faults.disarm(), encoding="ascii")
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # parsing processes that a killed run left; they would leave by themselves
    return Ending(
        os.waitstatus_to_exitcode(status),
        said.read_text(encoding="utf-8", errors="replace"),
        calls.read_text(encoding="ascii") if calls.exists() else "",
    )


def counted(body: Callable[[], object], folder: Path, work: Path) -> str:
    """The calls that ``body`` makes below ``folder``, one letter each; it must end well."""
    ending = run_forked(body, Fault(folder, 0, COUNT), work)
    if ending.code != 0:
        raise SystemExit(f"the uninterrupted run ended with {ending.code}: {ending.said}")
    return ending.calls


def spread(calls: Sequence[str] | str, points: int) -> list[int]:
    """Numbers of ``points`` calls from first to last, evenly; all where there are fewer."""
    if len(calls) <= points:
        return list(range(1, len(calls) + 1))
    return sorted({1 + round(i * (len(calls) - 1) / (points - 1)) for i in range(points)}) if points > 1 else [1]


def tree(root: Path) -> dict[str, str]:
    """Hash of every file below a workspace that must not depend on when and how often it was run."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        if path.is_file() and not set(name.parts) & set(VOLATILE) and not path.name.endswith(INDEXES):
            found[name.as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def torn(root: Path) -> list[str]:
    """Outputs under a final name whose content is not that of their manifest, or that have none."""
    from pipeline.files import folder_manifest, read_json
    from pipeline.stage_runner import RECORD_FILE
    from pipeline.stage_runner import VOLATILE as UNLISTED

    bad = []
    for stage in sorted(path for path in root.iterdir() if path.is_dir() and path.name not in {"identity", "logs"}):
        for folder in stage.iterdir():
            if "." in folder.name:
                continue
            try:
                whole = read_json(folder / RECORD_FILE)["manifest"] == folder_manifest(folder, UNLISTED)
            except (OSError, ValueError, KeyError):
                whole = False
            if not whole:
                bad.append(folder.relative_to(root).as_posix())
    for path in sorted(root.glob("*.json")):
        try:
            read_json(path)
        except ValueError:
            bad.append(path.name)
    return bad


def _redirect(said: Path) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    to = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.dup2(to, 2)


def _outcome(body: Callable[[], object]) -> int:
    try:
        body()
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 1
    except BaseException as error:
        code = getattr(error, "exit_code", None)
        if isinstance(code, int):  # typer.Exit
            return code
        os.write(2, f"{type(error).__name__}: {error}".encode())
        return 1
    return 0
