"""Which process did something, so that a later one can tell whether it still lives.

A process number alone is given out again; with the time at which the process began, counted since boot, and the boot's
own id it names one process for good. A container sees numbers of its own: the id of its namespace is kept beside. A
hash of the machine's id tells a machine that was started anew from another machine on the same disk.
"""

import hashlib
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MACHINE_ID = Path("/etc/machine-id")
_NAMESPACE = Path("/proc/self/ns/pid")
_STARTED_FIELD = 19
"""``starttime`` is field 22 of /proc/PID/stat (proc(5)), counted from 1; two fields end with the last parenthesis."""


@dataclass(frozen=True)
class ProcessIdentity:
    """One process of one boot.

    Attributes:
        process: its number.
        started: when it began, in clock ticks since boot; 0 where the system does not tell.
        boot_id: drawn by the kernel at each boot; empty where the system does not tell.
        namespace: in which the number counts; empty where the system does not tell.
        machine: hash of the machine's id; empty where the system does not tell.
    """

    process: int
    started: int
    boot_id: str
    namespace: str
    machine: str

    def alive(self) -> bool | None:
        """Whether the process lives; None where it cannot be seen from here: another machine or container."""
        here = own_identity()
        if self.boot_id != here.boot_id:
            return False if self.machine and self.machine == here.machine else None
        if self.namespace != here.namespace:
            return None
        if self.started:
            return _started(self.process) == self.started
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


def own_identity() -> ProcessIdentity:
    """The identity of the calling process."""
    return ProcessIdentity(os.getpid(), _started(os.getpid()), *_surroundings())


@cache
def _surroundings() -> tuple[str, str, str]:
    """Boot, namespace and machine."""
    try:
        boot_id, namespace = _BOOT_ID.read_text(encoding="ascii").strip(), os.readlink(_NAMESPACE)
    except OSError:  # no Linux
        return "", "", ""
    try:
        machine = _MACHINE_ID.read_bytes().strip()
    except OSError:
        machine = b""
    return boot_id, namespace, hashlib.sha256(b"scanloom\0" + machine).hexdigest()[:16] if machine else ""


def _started(process: int) -> int:
    """Start of a process in ticks since boot, 0 where there is none; one that ended and was not waited for is none."""
    try:
        fields = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in {b"Z", b"X"} else int(fields[_STARTED_FIELD])
