"""What each step costs for one series, one image and one volume: ``python -m benchmarks.sizing --out FILE``.

Every command runs twice in a process of its own; the second run finds everything made. The difference of the two is
what the step costs, without Python's start. Processor time of every process that a command starts counts, also of
those that outlive it.
"""

import argparse
import ctypes
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from skimage.io import imsave

_CHILD_SUBREAPER = 36  # prctl(2): what a child leaves behind becomes a child of ours
_FEW_IMAGES = ("log_every_images", "checkpoint_every_images", "grid_every_images")


@dataclass(frozen=True)
class Step:
    """A command, and what its cost is divided by."""

    name: str
    command: tuple[str, ...]
    units: int
    unit: str


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizing", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("bench-out/sizing"))
    parser.add_argument("--heads", type=int, default=4, help="phantom heads, each an MR and a CT")
    parser.add_argument("--images", type=int, default=2000, help="pictures of 64 x 64 pixels")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    ctypes.CDLL(None, use_errno=True).prctl(_CHILD_SUBREAPER, 1, 0, 0, 0)
    shutil.rmtree(options.work, ignore_errors=True)
    work = options.work.resolve()
    found: dict[str, object] = {"command": "python -m benchmarks.sizing", "machine": _machine()}
    for track, steps in (
        ("volumes", _volumes(work, options.heads)),
        ("images", _images(work, options.images)),
    ):
        for step in steps:
            found[f"{track}: {step.name}"] = measured = _measured(step)
            print(f"{track}: {step.name}", json.dumps(measured), flush=True)
            options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _machine() -> dict[str, object]:
    return {"cpus": os.cpu_count(), "architecture": platform.machine(), "python": platform.python_version()}


def _measured(step: Step) -> dict[str, object]:
    first, again = _cpu_seconds(step.command), _cpu_seconds(step.command)
    return {
        "cpu_s": round(first, 2),
        "cpu_s_found_made": round(again, 2),
        "units": step.units,
        "unit": step.unit,
        "cpu_s_a_unit": round((first - again) / step.units, 6),
    }


def _cpu_seconds(command: Sequence[str]) -> float:
    before = _children()
    program = "from flows.command_line import main; main()"
    subprocess.run([sys.executable, "-c", program, *command], check=True, stdout=subprocess.DEVNULL)
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return _children() - before


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _set(*pairs: str) -> tuple[str, ...]:
    return tuple(word for pair in pairs for word in ("--set", pair))


def _volumes(work: Path, heads: int) -> list[Step]:
    from pipeline.phantom.cohort import cohort_plan, write_cohort

    scans, workspace = work / "heads", str(work / "work-heads")
    write_cohort(scans, 1, cohort_plan(heads=heads, pelves=0))
    few = [f"train.mr_to_ct.{name}=8" for name in _FEW_IMAGES]
    own = ("--workspace", workspace, *_set("tracks=[mr_to_ct]", "train.mr_to_ct.images=8", *few))
    own = (*own, *_set("generate.mr_to_ct.splits=[train,validation,test]"))
    config = ("--config", "mr_to_ct_cpu")
    return [
        Step("ingest", ("ingest", "--input", str(scans), *own, *config), 2 * heads, "series"),
        Step("prepare", ("prepare", *own, *config), 2 * heads, "series"),
        Step("train", ("train", "mr-to-ct", *own, *config), 8, "training image"),
        Step("generate", ("translate", *own, *config), heads, "volume"),
        Step("evaluate", ("evaluate", *own, *config), heads, "volume"),
    ]


def _images(work: Path, images: int) -> list[Step]:
    folder, workspace = work / "images", str(work / "work-images")
    rng = np.random.default_rng(0)
    for number in range(images):
        path = folder / f"class{number % 2}" / f"{number:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        imsave(path, rng.integers(0, 256, (64, 64), np.uint8), check_contrast=False)
    few = [f"train.lesions.{name}=512" for name in _FEW_IMAGES]
    own = ("--workspace", workspace, *_set("tracks=[lesions]", "train.lesions.images=512", *few))
    own = (*own, *_set(f"generate.lesions.per_class={images // 2}"))
    config = ("--config", "lesions_class_folders")
    return [
        Step("ingest", ("ingest", "--input", str(folder), *own, *config), images, "image"),
        Step("prepare", ("prepare", *own, *config), images, "image"),
        Step("train", ("train", "lesions", *own, *config), 512, "training image"),
        Step("generate", ("synthesize", *own, *config), images, "image"),
    ]


if __name__ == "__main__":
    main()
