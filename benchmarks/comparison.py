"""One comparison: rounds of ours and of a peer in turn, medians, their ratio, and a JSON file that can be repeated.

Times are seconds of CPU (all threads, or those of a child process), which other work on the machine disturbs less than
the clock on the wall. The ratio is time of the peer / time of ours: above 1, ours is faster.
"""

import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.files import write_json


@dataclass(frozen=True)
class Side:
    """One contestant.

    Attributes:
        name: what runs, with the version of a peer.
        round: does the work once and returns its seconds of CPU.
    """

    name: str
    round: Callable[[], float]


@dataclass(frozen=True)
class Comparison:
    """What was measured.

    Attributes:
        name: of the benchmark; also names the JSON file.
        work: what one round does.
        ours, peer: names of the sides.
        seconds: of ours and of the peer, one value a round.
        facts: further figures, e.g. that both sides gave the same numbers.
        images: images of one round, where a rate says more than seconds.
    """

    name: str
    work: str
    ours: str
    peer: str
    seconds: tuple[list[float], list[float]]
    facts: dict[str, Any] = field(default_factory=dict)
    images: int | None = None

    @property
    def ratio(self) -> float:
        """Median time of the peer over that of ours."""
        return statistics.median(self.seconds[1]) / statistics.median(self.seconds[0])

    def line(self) -> str:
        """One line for people."""
        ours, peer = (statistics.median(values) for values in self.seconds)
        if self.images:
            figures = f"{self.images / ours:.0f} against {self.images / peer:.0f} images/s"
        else:
            figures = f"{ours:.3f} against {peer:.3f} s"
        return f"{self.name}: {self.ratio:.2f} x {self.peer} ({figures}; {self.work})"

    def content(self, command: str) -> dict[str, Any]:
        """Figures, versions and the command, as they are kept."""
        rounds = [peer / ours for ours, peer in zip(*self.seconds, strict=True)]
        return {
            "benchmark": self.name,
            "command": command,
            "work": self.work,
            "ratio": self.ratio,
            "ratio_of_rounds": {"lowest": min(rounds), "highest": max(rounds)},
            "ours": {"name": self.ours, "cpu_seconds": self.seconds[0]},
            "peer": {"name": self.peer, "cpu_seconds": self.seconds[1]},
            "images": self.images,
            "facts": self.facts,
            "machine": {
                "cpus": os.cpu_count(),
                "architecture": platform.machine(),
                "python": platform.python_version(),
            },
            "versions": {name: version(name) for name in ("scanloom", "torch", "monai", "numpy")},
        }

    def write(self, folder: Path) -> Path:
        """Write ``<name>.json``."""
        path = folder / f"{self.name}.json"
        write_json(path, self.content(shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])))
        return path


def cpu_seconds(work: Callable[[], object]) -> float:
    """Seconds of CPU that this process spends on ``work``."""
    before = time.process_time()
    work()
    return time.process_time() - before


def compare(
    name: str,
    work: str,
    ours: Side,
    peer: Side,
    *,
    rounds: int,
    warm_up: int = 1,
    facts: dict[str, Any] | None = None,
    images: int | None = None,
) -> Comparison:
    """Measure both sides in turn; the side that goes first changes from round to round."""
    for side in (ours, peer) * warm_up:
        side.round()
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    for number in range(rounds):
        order = [("ours", ours), ("peer", peer)]
        for key, side in order[:: 1 if number % 2 == 0 else -1]:
            seconds[key].append(side.round())
    return Comparison(name, work, ours.name, peer.name, (seconds["ours"], seconds["peer"]), facts or {}, images)
