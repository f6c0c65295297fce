"""Kills and starves a run at every kind of call that changes its files, runs it again, compares all bytes.

``python -m benchmarks.interruptions --out docs/results/interruptions.json``. Each stage of the smallest preset runs in
a fork of a warm process, from a workspace in which the stages before it are done. The fork is killed with SIGKILL
before, or in the middle of, the nth call that changes files; or from the nth call on the disk is full, fails or is
read-only.
Then the same command runs again, and must end well, with every file equal to that of a run that nobody disturbed.
"""

import argparse
import errno
import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.interrupted_runs import Fault, counted, run_forked, spread, torn, tree
from benchmarks.system_call_faults import FAIL_ON, KILL_BEFORE, KILL_HALFWAY, KINDS, reload_with_faults

SIGNAL = "kill -9"
ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EROFS": errno.EROFS}
TYPED = {4, 5, 7}
"""Exit codes that say: workspace, resources, orchestration. Anything else is no clear answer to a broken disk."""
WHOLE = "whole chain"
_FEW = (
    "train.lesions.images=64",
    "train.lesions.log_every_images=16",
    "train.lesions.checkpoint_every_images=32",
    "train.lesions.grid_every_images=32",
    "train.mr_to_ct.images=16",
    "train.mr_to_ct.log_every_images=4",
    "train.mr_to_ct.checkpoint_every_images=8",
    "train.mr_to_ct.grid_every_images=8",
    "evaluate.lesions.classifier_steps=2",
    "evaluate.lesions.seeds=2",
    "evaluate.lesions.bootstrap=100",
    "evaluate.mr_to_ct.bootstrap=100",
)
_LIBRARIES = (
    *(
        "torch",
        "torch.utils.tensorboard",
        "monai",
        "monai.transforms",
        "monai.networks.nets",
        "polars",
        "pandera.polars",
    ),
    *("pydicom", "nibabel", "SimpleITK", "skimage.io", "skimage.filters", "skimage.measure", "skimage.morphology"),
    *("sklearn.metrics", "scipy.stats", "scipy.ndimage", "safetensors.torch", "highdicom", "matplotlib.pyplot"),
    *("pipeline.ingest.stage", "pipeline.prepare.stage", "pipeline.train.stage", "pipeline.generate.stage"),
    *("pipeline.evaluate.stage", "pipeline.export.stage", "pipeline.report.stage", "flows.stage_commands"),
)


_HARMLESS = {"jemalloc_bg_thd", "polars-ooc-clea"}
"""Threads of polars that clean up; a fork does without them."""


@dataclass(frozen=True)
class Point:
    """One interruption and what came of it."""

    stage: str
    call: int
    kind: str
    how: str
    ended: int
    resumed: int
    torn: list[str]
    differing: list[str]
    said: str

    @property
    def missed(self) -> bool:
        """Whether the run ended before its fault: a heartbeat more or less changes the number of calls."""
        return self.ended == 0 and self.how.startswith(SIGNAL)

    @property
    def well(self) -> bool:
        """Whether the run ended as it had to, and went on to equal bytes."""
        expected = self.ended == -signal.SIGKILL if self.how.startswith(SIGNAL) else self.ended in TYPED | {0}
        expected = expected or self.missed
        return expected and self.resumed == 0 and not self.torn and not self.differing


@dataclass(frozen=True)
class Bench:
    """Folders of one sweep."""

    work: Path
    scans: Path

    @property
    def live(self) -> Path:
        """The workspace that commands run in; its path is the same for all, so that no byte can depend on it."""
        return self.work / "live"

    def command(self, target: str) -> Callable[[], object]:
        """``scanloom`` up to a stage, without Prefect, as its commands do it."""

        def body() -> None:
            from rich.console import Console

            from flows.failures import reported
            from flows.requests import Options
            from flows.stage_commands import run_steps

            with reported(debug=False):
                run_steps(Options(self.live, "smoke", _FEW), (target,), Console(), input_folder=self.scans)

        return body

    def restore(self, snapshot: Path) -> None:
        """Put the live workspace into the state of a snapshot."""
        shutil.rmtree(self.live, ignore_errors=True)
        shutil.copytree(snapshot, self.live)

    def interrupt(self, stage: str, before: Path, after: dict[str, str], kind: str, call: int, how: str) -> Point:
        """Interrupt one command, run it again, compare."""
        target = "report" if stage == WHOLE else stage
        self.restore(before)
        ending = run_forked(self.command(target), _fault(self.live, call, how), self.work)
        bad = torn(self.live)
        again = run_forked(self.command(target), None, self.work)
        found = tree(self.live)
        differing = sorted(name for name in found.keys() | after.keys() if found.get(name) != after.get(name))
        said = " ".join((ending.said if ending.code not in TYPED else "", again.said)).strip()[:300]
        return Point(stage, call, KINDS[kind], how, ending.code, again.code, bad, differing[:5], said)


def _fault(folder: Path, call: int, how: str) -> Fault:
    if how in ERRORS:
        return Fault(folder, call, FAIL_ON, ERRORS[how])
    return Fault(folder, call, KILL_HALFWAY if "half" in how else KILL_BEFORE)


def sweep(bench: Bench, stages: list[str], kills: int, errors: int) -> Iterator[Point]:
    """Every point of every stage.

    Args:
        bench: folders.
        stages: names of steps, and `WHOLE`.
        kills: points of each stage at which it is killed.
        errors: points of each stage and error at which the disk fails.
    """
    from flows.chain import STEPS

    before = bench.work / "before"
    from pipeline.workspace import Workspace

    shutil.rmtree(bench.live, ignore_errors=True)
    Workspace.open(bench.live, bytes(range(32)))
    shutil.rmtree(bench.work / "empty", ignore_errors=True)
    shutil.copytree(bench.live, bench.work / "empty")
    for stage in STEPS:
        shutil.rmtree(before, ignore_errors=True)
        shutil.copytree(bench.live, before)
        began = time.monotonic()
        calls = counted(bench.command(stage), bench.live, bench.work)
        shutil.rmtree(bench.work / "after", ignore_errors=True)
        shutil.copytree(bench.live, bench.work / "after")
        print(f"{stage}: {len(calls)} calls, {time.monotonic() - began:.1f} s", flush=True)
        if stage in stages:
            yield from _points(bench, stage, before, calls, kills, errors)
        bench.restore(bench.work / "after")
    if WHOLE in stages:
        empty = bench.work / "empty"
        bench.restore(empty)
        calls = counted(bench.command("report"), bench.live, bench.work)
        yield from _points(bench, WHOLE, empty, calls, max(kills // 2, 1), 0)


def _points(bench: Bench, stage: str, before: Path, calls: str, kills: int, errors: int) -> Iterator[Point]:
    after = tree(bench.live)
    places = _of_every_kind(calls, kills)
    for number, call in enumerate(places):
        how = SIGNAL if number % 2 else f"{SIGNAL} halfway"
        yield bench.interrupt(stage, before, after, calls[call - 1], call, how)
    for how in ERRORS:
        for call in spread(calls, errors) if errors else []:
            yield bench.interrupt(stage, before, after, calls[call - 1], call, how)


def _of_every_kind(calls: str, points: int) -> list[int]:
    """Calls spread from first to last, with the first of every kind among them."""
    firsts = {calls.index(kind) + 1 for kind in set(calls)}
    return sorted(set(spread(calls, points)) | firsts)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.interruptions", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("bench-out/interruptions"), help="folder for workspaces")
    parser.add_argument("--stages", nargs="*", help="steps, or 'whole chain'; all by default")
    parser.add_argument("--kills", type=int, default=20, help="kill points a stage")
    parser.add_argument("--errors", type=int, default=4, help="points a stage at which the disk fails, for each error")
    parser.add_argument("--out", type=Path, help="JSON file of the outcome")
    options = parser.parse_args()
    work = options.work.resolve()
    reload_with_faults("benchmarks.interruptions", work)
    _warm()
    from flows.chain import STEPS

    began = time.monotonic()
    points = []
    for point in sweep(Bench(work, _scans(work)), options.stages or [*STEPS, WHOLE], options.kills, options.errors):
        points.append(point)
        if options.out:  # a sweep that is stopped has told what it found
            _write(options.out, points, began)
        if not point.well:
            print(json.dumps(asdict(point)), flush=True)
    facts = _facts(points)
    print(json.dumps({name: facts[name] for name in ("points", "well", "torn_finals", "by_how")}))


def _write(path: Path, points: list[Point], began: float) -> None:
    facts = _facts(points) | {"seconds": round(time.monotonic() - began)}
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _warm() -> None:
    """Import what stages import, so that a fork need not; no thread may run when the process is forked."""
    from importlib import import_module

    for name in _LIBRARIES:
        import_module(name)
    tasks = Path("/proc/self/task")
    names = {(task / "comm").read_text(encoding="utf-8").strip() for task in tasks.iterdir()}
    strange = names - _HARMLESS - {(tasks / str(os.getpid()) / "comm").read_text(encoding="utf-8").strip()}
    if strange:
        raise SystemExit(f"threads after the imports: {', '.join(sorted(strange))}; a fork would lack them")


def _scans(work: Path) -> Path:
    """Ten phantom heads on a coarse grid."""
    from pipeline.phantom import PhantomGrid
    from pipeline.phantom.cohort import cohort_plan, write_cohort

    folder = work / "scans"
    if not folder.exists():
        grid = PhantomGrid((75, 86, 27), (3.0, 3.0, 6.0), (9.0, 14.0))
        write_cohort(folder, 1, cohort_plan(heads=10, pelves=0), head_grid=grid)
    return folder


def _facts(points: list[Point]) -> dict[str, object]:
    """What is stored: counts, and every point in short."""
    stages = list(dict.fromkeys(point.stage for point in points))
    return {
        "command": "python -m benchmarks.interruptions --out docs/results/interruptions.json",
        "points": len(points),
        "missed": sum(point.missed for point in points),
        "well": sum(point.well for point in points),
        "torn_finals": sum(len(point.torn) for point in points),
        "by_how": dict(Counter(point.how for point in points)),
        "by_kind": dict(Counter(point.kind for point in points)),
        "exit_codes": dict(Counter(f"{point.how}: {point.ended}" for point in points)),
        "by_stage": {
            stage: {
                "points": sum(point.stage == stage for point in points),
                "well": sum(point.well for point in points if point.stage == stage),
            }
            for stage in stages
        },
        "failed": [asdict(point) for point in points if not point.well],
    }


if __name__ == "__main__":
    main()
