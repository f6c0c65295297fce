"""What it costs to ask for help: ``scanloom --help`` beside an empty Python, and beside the import of Prefect alone."""

import resource
import subprocess
import sys
from pathlib import Path

from benchmarks.comparison import Comparison, Side, compare


def run() -> list[Comparison]:
    """Two comparisons."""
    command = [str(Path(sys.executable).with_name("scanloom")), "--help"]
    ours = Side("scanloom --help", lambda: _child_seconds(command))
    peers = {
        "start_up_python": ("python -c pass", "pass"),
        "start_up_prefect": ("python -c 'import prefect'", "import prefect"),
    }
    return [
        compare(
            name,
            "CPU of one process from start to exit",
            ours,
            Side(title, lambda code=code: _child_seconds([sys.executable, "-c", code])),  # type: ignore[misc]
            rounds=7,
        )
        for name, (title, code) in peers.items()
    ]


def _child_seconds(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
