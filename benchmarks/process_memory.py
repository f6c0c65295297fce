"""Peak memory of a process and all that it started, looked at while they run (Linux)."""

import threading
from contextlib import suppress
from pathlib import Path

_EVERY_S = 0.02
_PEAK = "VmHWM:"


class PeakMemory(threading.Thread):
    """Watches a process until `stop`.

    Args:
        process: number of the process.

    Attributes:
        peaks_mb: largest resident set by process number; pages that two processes share count in both.
    """

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self._process, self._ended = process, threading.Event()
        self.peaks_mb: dict[int, float] = {}

    def run(self) -> None:
        """Look again and again."""
        while not self._ended.wait(_EVERY_S):
            self._look(self._process)

    def stop(self) -> float:
        """End; returns the peak of the process itself and of the largest one that it started, in MB."""
        self._ended.set()
        self.join()
        own = self.peaks_mb.pop(self._process, 0.0)
        return own + max(self.peaks_mb.values(), default=0.0)

    def _look(self, process: int) -> None:
        with suppress(OSError):
            folder = Path(f"/proc/{process}")
            for line in (folder / "status").read_text(encoding="ascii", errors="replace").splitlines():
                if line.startswith(_PEAK):
                    self.peaks_mb[process] = int(line.split()[1]) / 1024
            for child in (folder / "task" / str(process) / "children").read_text(encoding="ascii").split():
                self._look(int(child))
