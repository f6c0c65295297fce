"""The library of system_call_faults.c: built with the machine's C compiler, loaded before all others, armed here."""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

OFF, COUNT, KILL_BEFORE, KILL_HALFWAY, FAIL_ONCE, FAIL_ON = range(6)
KINDS = {
    "o": "open to write",
    "w": "write",
    "r": "rename",
    "u": "remove",
    "m": "make a folder",
    "f": "flush to disk",
    "t": "set the length",
    "x": "change permissions",
}
_SOURCE = Path(__file__).with_suffix(".c")
_LOADED = "SCANLOOM_FAULTS_LOADED"


def compiler() -> str | None:
    """The C compiler, or None where there is none."""
    return shutil.which("cc") or shutil.which("gcc")


def build(folder: Path) -> Path:
    """Compile the library into ``folder``."""
    found, target = compiler(), folder / "system_call_faults.so"
    if found is None:
        raise SystemExit("a C compiler is needed: install gcc or clang")
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([found, "-shared", "-fPIC", "-O2", "-o", target, _SOURCE, "-ldl"], check=True)
    return target


def loaded_environment(library: Path) -> dict[str, str]:
    """The environment of a process that loads the library before all others."""
    # One thread, so that a fork is safe and sums have one order.
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return os.environ | threads | {"LD_PRELOAD": str(library), _LOADED: "1", "MKL_DYNAMIC": "FALSE"}


def reload_with_faults(module: str, work: Path) -> None:
    """Start this program again with the library loaded, unless it is."""
    if os.environ.get(_LOADED) != "1":
        environment = loaded_environment(build(work))
        os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], environment)  # noqa: S606


class Faults:
    """Counts and injects in this process; a fork has counts of its own."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.faults_counted.restype = ctypes.c_long
        self._library.faults_kinds.restype = ctypes.c_void_p
        self._library.faults_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int]

    def arm(self, folder: Path, at: int, mode: int, error: int = 0) -> None:
        """From now on count the calls that change files below ``folder``, and act at number ``at``."""
        self._library.faults_arm(os.fsencode(folder), at, mode, error)

    def disarm(self) -> str:
        """Stop; returns one letter of `KINDS` for every call that was counted."""
        self._library.faults_disarm()
        return ctypes.string_at(self._library.faults_kinds(), self._library.faults_counted()).decode()
