"""What orchestration costs: a run that finds everything done, through Prefect and without it.

``python -m benchmarks.orchestration --out docs/results/orchestration.json``. The smallest preset runs once on phantoms,
then again and again: `scanloom run` (server, flows, tasks) and `scanloom report` (the same steps, no Prefect) in turn,
each a process of its own. What is done already costs the same in both, so that their difference is the orchestration,
whatever the steps take; updates of a progress artifact, of which a long step sends one every 5 s, are measured apart.

Seconds on the wall depend on what else the machine does; seconds of CPU (command, its server and parsing processes)
hardly do.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flows.artifacts import UPDATE_INTERVAL_S
from pipeline.files import write_json
from pipeline.phantom import PhantomGrid
from pipeline.phantom.cohort import cohort_plan, write_cohort

RUN_SECONDS = 600
"""The run that the cost is set against: ten minutes of work."""
_GRID = PhantomGrid((75, 86, 27), (3.0, 3.0, 6.0), (9.0, 14.0))
_UPDATES = 100
_PROGRESS = """
import json, os, sys, time
from pathlib import Path
from flows.embedded_server import EmbeddedServer
from flows.prefect_environment import settle
root = Path(sys.argv[1])
settle(root, debug=False)
server = EmbeddedServer(root / "server.log")
os.environ["PREFECT_API_URL"] = server.wait()
from prefect import flow
from prefect.artifacts import create_progress_artifact, update_progress_artifact
def spent():
    fields = Path(f"/proc/{server._process.pid}/stat").read_text().rpartition(")")[2].split()
    return time.process_time() + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
@flow
def told(count):
    made = create_progress_artifact(progress=0.0, key="step")
    began = spent()
    for number in range(count):
        update_progress_artifact(made, progress=100.0 * number / count)
    return (spent() - began) / count
print(json.dumps(told(int(sys.argv[2]))))
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.orchestration", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("bench-out/orchestration.json"), help="JSON file")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each side")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = measure(Path(name), options.rounds)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, found)
    print(json.dumps(found["found"], indent=1))


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """Run, measure, compare."""
    scans, workspace = folder / "scans", folder / "work"
    write_cohort(scans, 1, cohort_plan(heads=10, pelves=0), head_grid=_GRID)
    where = ("--input", str(scans), "--workspace", str(workspace))
    sides = {"prefect": ("run", "smoke", *where), "plain": ("report", "--config", "smoke", *where)}
    _timed(sides["prefect"], "0 of them")
    taken: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for number in range(rounds):
        for side in sorted(sides, reverse=number % 2 == 1):
            taken[side].append(_timed(sides[side], "11 of them found done"))
    update = _update_seconds(folder)
    return {
        "command": f"python -m benchmarks.orchestration --rounds {rounds}",
        "work": "preset smoke on ten phantom heads, all 11 steps found done",
        "rounds": taken,
        "progress_update_cpu_seconds": update,
        "found": _summary(taken, update),
        "machine": {
            "cpus": os.cpu_count(),
            "allowed": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
        },
        "versions": {name: version(name) for name in ("scanloom", "prefect", "torch")},
    }


def _summary(taken: dict[str, list[dict[str, float]]], update: float) -> dict[str, float | str]:
    medians = {
        (side, kind): statistics.median(run[kind] for run in runs)
        for side, runs in taken.items()
        for kind in ("wall", "cpu")
    }
    own = medians["prefect", "cpu"] - medians["plain", "cpu"]
    updates = RUN_SECONDS / UPDATE_INTERVAL_S * update
    share = (own + updates) / RUN_SECONDS
    return {
        "cached_augment_wall_seconds": medians["prefect", "wall"],
        "cached_augment_wall_seconds_lowest": min(run["wall"] for run in taken["prefect"]),
        "cached_augment_cpu_seconds": medians["prefect", "cpu"],
        "same_steps_without_prefect_cpu_seconds": medians["plain", "cpu"],
        "orchestration_cpu_seconds": own,
        "progress_cpu_seconds_in_ten_minutes": updates,
        "share_of_ten_minutes": share,
        "arithmetic": f"({medians['prefect', 'cpu']:.2f} - {medians['plain', 'cpu']:.2f} s of CPU + {RUN_SECONDS} s /"
        f" {UPDATE_INTERVAL_S:g} s x {update:.4f} s of CPU) / {RUN_SECONDS} s = {100 * share:.2f} %",
    }


def _timed(arguments: tuple[str, ...], expected: str) -> dict[str, float]:
    """Seconds of one command, with those of its children; what it says must hold ``expected``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "SCANLOOM_"))}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    call = [sys.executable, "-c", "from flows.command_line import main; main()", *arguments]
    done = subprocess.run(call, env=kept | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode or expected not in done.stdout:
        raise SystemExit(f"{arguments[0]} ended with {done.returncode}: {done.stdout[-500:]} {done.stderr[-500:]}")
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {"wall": round(wall, 2), "cpu": round(cpu, 2)}


def _update_seconds(folder: Path) -> float:
    """CPU seconds, of client and embedded server, of one update of a progress artifact."""
    call = [sys.executable, "-c", _PROGRESS, str(folder), str(_UPDATES)]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    return round(float(json.loads(done.stdout.splitlines()[-1])), 5)


if __name__ == "__main__":
    main()
