"""DICOM to volumes beside dcm2niix, SimpleITK, MONAI and dicom2nifti, on the same generated files.

Every contestant runs in a process of its own; what counts is the CPU of that process and all its descendants, without
the imports of the main Python process and the end of its interpreter (a program that is compiled has neither). Each
writes uncompressed NIfTI. The isolated parser of scanloom, a process of its own with its imports, is counted in.

On a virtual machine a page that the host has to find first costs ten times one that was used a moment ago, and is
charged to whoever touches it first. So that all contestants meet the same memory, the benchmark fills as much as they
need and frees it the moment before each of them starts to work, and leaves the first round out.

Our modules are compiled first, as those of the others were when they were installed.
"""

import compileall
import ctypes
import json
import math
import mmap
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import zoom

from benchmarks.comparison import Comparison
from benchmarks.process_memory import PeakMemory
from pipeline.ingest.file_index import FileIndex
from pipeline.ingest.source_tree import walk
from pipeline.phantom import phantom_subject
from pipeline.scan_io import Acquisition, SeriesIdentity, uid_from, write_dicom_series

SLICES = 150
MR_SERIES, CT_SERIES = 14, 6
"""At full size: 3,000 files, 70 % of 256² and 30 % of 512²."""

ROUNDS = 5
SIZES = (0.25, 0.5, 1.0)
REINDEX_ROUNDS = 15
_WARM_BYTES = 3 << 29
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER: orphans of a contestant come to us, and their CPU with them


@dataclass(frozen=True)
class Run:
    """One run of a contestant: seconds of CPU without imports, of wall, peak memory in MB if that was watched."""

    cpu: float
    wall: float
    voxels: int
    peak_mb: float = 0.0


def write_files(folder: Path) -> None:
    """Write series of digital phantoms, MR of 256² and CT of 512²."""
    for modality, series, side in (("MR", MR_SERIES, 256), ("CT", CT_SERIES, 512)):
        truth = phantom_subject(0, 0, "HEAD" if modality == "MR" else "PELVIS")
        small = truth.mr if modality == "MR" else truth.ct_hu
        large = zoom(small, [size / now for size, now in zip((side, side, SLICES), small.shape, strict=True)], order=1)
        for number in range(series):
            _series(folder / f"{modality.lower()}{number:02d}", np.roll(large, number, axis=0), modality, number)


def link_some(folder: Path, target: Path, share: float) -> int:
    """The first series of each modality a second time, as hard links; returns the number of files."""
    for word, series in (("mr", MR_SERIES), ("ct", CT_SERIES)):
        for number in range(round(series * share)):
            name = f"{word}{number:02d}"
            shutil.copytree(folder / name, target / name, copy_function=os.link)
    return sum(1 for path in target.rglob("*.dcm"))


def _series(folder: Path, voxels: Any, modality: str, number: int) -> None:
    patient = f"bench-{modality}-{number}"
    identity = SeriesIdentity(patient, *(uid_from(patient, word) for word in ("study", "series", "frame")))
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.diag([0.9, 0.9, 1.5, 1.0])
    write_dicom_series(folder, voxels.astype(np.int16), affine, modality, identity, Acquisition("bench"))


def run_side(command: Callable[[Path], list[str]], python: bool, *, watch_memory: bool = False) -> Run:
    """Run a contestant into an empty folder, and count all of its processes."""
    with tempfile.TemporaryDirectory(prefix="bench-") as output:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        warm = _filled()
        if not python:
            warm.close()
        began = time.monotonic()
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command(Path(output)), text=True, **pipes) as process:
            if python and process.stdout is not None:
                process.stdout.readline()  # it has imported what it needs
                warm.close()
            watch = PeakMemory(process.pid)
            if watch_memory:
                watch.start()
            told, errors = process.communicate("go\n")
            peak_mb = watch.stop() if watch_memory else 0.0
        if process.returncode:
            raise RuntimeError(errors[-2000:] or told[-2000:])
        _reap()
        after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - began
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if not python:
        return Run(cpu, wall, 0)
    figures = json.loads(told.splitlines()[-1])
    return Run(cpu - figures["imports_cpu"], figures["wall"], figures["voxels"], peak_mb)


def _filled() -> mmap.mmap:
    """Memory whose pages have all been written to."""
    memory = mmap.mmap(-1, _WARM_BYTES)
    np.frombuffer(memory, np.uint8)[:: mmap.PAGESIZE] = 1
    return memory


def _reap() -> None:
    """Wait for what a contestant left behind."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.05)
        except ChildProcessError:
            return


def _commands(folder: Path) -> dict[str, tuple[Callable[[Path], list[str]], bool]]:
    def side(name: str) -> tuple[Callable[[Path], list[str]], bool]:
        return lambda output: [sys.executable, "-m", "benchmarks.ingest_sides", name, str(folder), str(output)], True

    found = {name: side(name) for name in ("scanloom", "scanloom_stage", "simpleitk", "monai")}
    if shutil.which("dcm2niix"):
        found["dcm2niix"] = (
            lambda output: ["dcm2niix", "-z", "n", "-b", "n", "-f", "%i", "-o", str(output), str(folder)],
            False,
        )
    try:
        import dicom2nifti  # noqa: F401
    except ImportError:
        return found
    return found | {"dicom2nifti": side("dicom2nifti")}


def run() -> list[Comparison]:
    """Measure everything; minutes."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    for package in (__package__, "pipeline", "models"):
        compileall.compile_dir(Path(__file__).parents[1] / package, quiet=1)
    with tempfile.TemporaryDirectory(prefix="bench-dicom-") as root:
        write_files(Path(root) / "all")
        folders = {share: Path(root) / f"{share:g}" for share in SIZES}
        counts = {share: link_some(Path(root) / "all", folder, share) for share, folder in folders.items()}
        commands = _commands(folders[1.0])
        runs: dict[str, list[Run]] = {name: [] for name in commands}
        for number in range(-1, ROUNDS):
            for name in list(commands)[:: 1 if number % 2 == 0 else -1]:
                done = run_side(*commands[name])
                if number >= 0:
                    runs[name].append(done)
        growth = _growth(folders, counts, runs["scanloom"])
        work = f"{counts[1.0]} files to {MR_SERIES + CT_SERIES} volumes on disk"
        made = [
            _comparison(f"ingest_{peer}", work, ours, peer, runs, growth)
            for ours in ("scanloom", "scanloom_stage")
            for peer in runs
            if not peer.startswith("scanloom") and (ours == "scanloom" or peer == "dcm2niix")
        ]
        return [*made, _reindex(folders[1.0], Path(root) / "index.sqlite")]


def _comparison(
    name: str, work: str, ours: str, peer: str, runs: dict[str, list[Run]], growth: dict[str, Any]
) -> Comparison:
    facts = {
        "wall_seconds": {side: [run.wall for run in runs[side]] for side in (ours, peer)},
        "wall_ratio": statistics.median(run.wall for run in runs[peer])
        / statistics.median(run.wall for run in runs[ours]),
        **(growth if ours == "scanloom" else {}),
    }
    name = name if ours == "scanloom" else f"{name}_whole_stage"
    seconds = ([run.cpu for run in runs[ours]], [run.cpu for run in runs[peer]])
    return Comparison(name, work, ours, peer, seconds, facts)


def _growth(folders: dict[float, Path], counts: dict[float, int], full: list[Run]) -> dict[str, Any]:
    """Cost and memory over the sizes; the exponent is the slope of log cost over log files."""
    costs = {counts[1.0]: statistics.median(run.cpu for run in full)}
    commands = {share: _commands(folder)["scanloom"] for share, folder in folders.items()}
    peaks = {counts[share]: run_side(*commands[share], watch_memory=True).peak_mb for share in SIZES}
    for share in SIZES[:-1]:
        some = [run_side(*commands[share]) for _ in range(ROUNDS)]
        costs[counts[share]] = statistics.median(run.cpu for run in some)
    files = sorted(costs)
    slope = np.polyfit([math.log(count) for count in files], [math.log(costs[count]) for count in files], 1)[0]
    return {"cpu_of_files": costs, "peak_mb_of_files": peaks, "cost_exponent": float(slope)}


def _reindex(folder: Path, index: Path) -> Comparison:
    """An unchanged tree: our walk and index beside a bare walk that looks at every file's state."""
    os.utime(folder)
    time.sleep(2.5)  # the index trusts states that are two seconds old
    FileIndex(index).update(walk(folder))

    def bare() -> None:
        waiting = [str(folder)]
        while waiting:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        entry.stat(follow_symlinks=False)

    def ours() -> None:
        FileIndex(index).update(walk(folder))

    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(REINDEX_ROUNDS):
        for values, work in zip(seconds, (ours, bare), strict=True):
            began = time.process_time()
            work()
            values.append(time.process_time() - began)
    count = len(walk(folder).files)
    return Comparison("reindex", f"{count} unchanged files", "walk and index", "bare stat walk", seconds)
