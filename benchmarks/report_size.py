"""How large the report of a large run is, and how long a browser takes to open it.

    python -m benchmarks.report_size --out docs/results

The run is made of noise and ellipsoids, which compress worse than scans: a cohort of 10 000 synthetic lesion images
beside as many real ones, one MR, CT and pseudo-CT of 256³ voxels, and a table of 1000 cases. Opening is measured in
headless Chromium, from the click to the load event, and to the first slice on the screen; seconds of CPU are those of
the page's main thread until the load event, which other work on the machine disturbs less.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import JsonValue

from benchmarks.browser import CHROMIUM, Browser
from pipeline.files import write_json
from pipeline.prepared_set import VolumeSetWriter, write_image_set
from pipeline.records import StageRecord
from pipeline.report.stage import write_report
from pipeline.results import Cell, Column, Results, ResultTable, write_results
from pipeline.settings import FrozenSettings, RunSettings
from pipeline.stage_runner import Stage, StageContext, run_stage
from pipeline.workspace import Workspace

LARGEST_BYTES = 40_000_000
SLOWEST_SECONDS = 3.0
CLASSES = ["cyst", "glioma", "meningioma"]
SIZE_PX = 64
CASES = 1000


class NoSettings(FrozenSettings):
    """Nothing."""


@dataclass(frozen=True)
class LargeRun:
    """A run on disk.

    Attributes:
        workspace: where it lies.
        records: of the stages that the report shows.
    """

    workspace: Workspace
    records: Mapping[str, StageRecord]


def large_run(root: Path, images: int, side: int) -> LargeRun:
    """Write a run of ``images`` real and synthetic images, and one case of ``side``³ voxels."""
    workspace = Workspace.open(root, identity_key=bytes(32))
    counts: dict[str, JsonValue] = dict.fromkeys(CLASSES, images // len(CLASSES))
    stages: dict[str, tuple[dict[str, JsonValue], Callable[[Path], None]]] = {
        "prepare_lesions": (
            {"classes": list(CLASSES), "size_px": SIZE_PX, "counts": {"train": counts}, "subjects": {}},
            lambda folder: _write_images(folder, images),
        ),
        "synthesize_lesions": ({"images": images, "per_class": counts}, lambda folder: _write_cohort(folder, images)),
        "prepare_mr_to_ct": ({"unit": "HU", "subjects": {"test": 1}}, lambda folder: _write_volumes(folder, side)),
        "translate_mr_to_ct": ({"cases": 1}, lambda folder: _write_pseudo_ct(folder, side)),
        "evaluate_mr_to_ct": ({}, lambda folder: write_results(folder, _results())),
    }
    return LargeRun(workspace, {name: _seal(workspace, name, *made) for name, made in stages.items()})


def _seal(workspace: Workspace, name: str, facts: dict[str, JsonValue], fill: Callable[[Path], None]) -> StageRecord:
    def body(context: StageContext) -> dict[str, JsonValue]:
        fill(context.folder)
        return facts

    return run_stage(workspace, Stage(name, "pipeline.prepared_set", body), NoSettings(), records={})


def _noise_images(images: int, seed: int) -> npt.NDArray[np.int16]:
    return np.random.default_rng(seed).normal(0, 4000, (images, 1, SIZE_PX, SIZE_PX)).astype(np.int16)


def _write_images(folder: Path, images: int) -> None:
    names = [CLASSES[row % len(CLASSES)] for row in range(images)]
    table = pl.DataFrame(
        {
            "image": list(range(images)),
            "subject_id": [f"sub-{row:05d}" for row in range(images)],
            "series_id": [f"ser-{row:05d}" for row in range(images)],
            "lesion_id": [f"les-{row:05d}" for row in range(images)],
            "lesion_class": names,
            "split": ["train"] * images,
            "slice_index": [-1] * images,
        }
    )
    write_image_set(folder, _noise_images(images, 1), table, {"classes": CLASSES})


def _write_cohort(folder: Path, images: int) -> None:
    np.save(folder / "images.npy", _noise_images(images, 2))
    names = [CLASSES[row % len(CLASSES)] for row in range(images)]
    pl.DataFrame({"image": list(range(images)), "lesion_class": names}).write_parquet(folder / "cohort.parquet")
    write_json(folder / "cohort.json", {"classes": CLASSES, "recipe": {}})


def _head(
    side: int,
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16], npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """MR, CT, pseudo-CT and mask of an ellipsoid with a skull, filling the volume, with noise of 15, 15 and 3 HU."""
    rng = np.random.default_rng(3)
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    far = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    inside = [far < 0.85, far < 0.93, far < 1.0]
    tissue = np.select(inside, [40, 900, 10], -1000)
    mr = np.select(inside, [0.2, -0.9, 0.5], -1.0) * 16384

    def with_noise(values: npt.NDArray[Any], spread: float) -> npt.NDArray[np.int16]:
        return np.rint(values + rng.normal(0, spread, values.shape)).astype(np.int16)

    return with_noise(mr, 250), with_noise(tissue, 15), with_noise(tissue, 3), (far < 1.0).astype(np.uint8)


def _write_volumes(folder: Path, side: int) -> None:
    mr, ct, _, mask = _head(side)
    writer = VolumeSetWriter(folder)
    row = {
        "subject_id": "sub-0",
        "split": "test",
        "pair_volume": -1,
        "own_grid": True,
        "affine": np.eye(4).ravel().tolist(),
        "mr_low": 0.0,
        "mr_high": 1.0,
    }
    one = writer.add(row | {"modality": "MR", "series_id": "ser-mr"}, mr, mask)
    writer.link(one, writer.add(row | {"modality": "CT", "series_id": "ser-ct"}, ct, mask))
    writer.close({"unit": "HU", "spacing_mm": [1.0, 1.0, 1.0]})


def _write_pseudo_ct(folder: Path, side: int) -> None:
    np.save(folder / "made.npy", _head(side)[2])
    row = {"series_id": "ser-mr", "subject_id": "sub-0", "split": "test", "volume": 0, "prepared_path": "made.npy"}
    pl.DataFrame([row | {"dicom_refusal": None}], schema_overrides={"dicom_refusal": pl.String}).write_parquet(
        folder / "cases.parquet"
    )


def _results() -> Results:
    rng = np.random.default_rng(4)
    columns = tuple(Column(key=f"score_{number}", title=f"Score {number}", definition="Noise.") for number in range(12))
    rows: tuple[dict[str, Cell], ...] = tuple(
        {"case": f"sub-{case:05d}", **{column.key: float(rng.normal()) for column in columns}} for case in range(CASES)
    )
    table = ResultTable(
        key="cases", title="Every case", caption="", columns=(Column(key="case", title="Case"), *columns), rows=rows
    )
    return Results(track="mr_to_ct", headlines=(), verdicts=(), tables=(table,))


def measure_opening(page: Path, rounds: int) -> dict[str, Any]:
    """Seconds to the load event and to the first slice, each round in a fresh browser; what the page complained of."""
    loads, threads, slices, complaints = [], [], [], []
    for _ in range(rounds):
        with Browser() as browser:
            browser.resize(1280)
            browser.call("Performance.enable", timeDomain="threadTicks")
            began = time.monotonic()
            loads.append(browser.open(page))
            metrics = {entry["name"]: entry["value"] for entry in browser.call("Performance.getMetrics")["metrics"]}
            threads.append(metrics["TaskDuration"])
            browser.evaluate("document.querySelector('.viewer').scrollIntoView({behavior: 'instant'})")
            browser.wait("document.querySelector('.viewer').dataset.shown", 60)
            slices.append(time.monotonic() - began)
            complaints += browser.complaints + browser.requests
    return {
        "seconds_to_load": loads,
        "cpu_seconds_to_load": threads,
        "seconds_to_first_slice": slices,
        "complaints": complaints,
    }


def main() -> None:
    """Make the run, write its report, open it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report_size", description="Size of a large report.")
    parser.add_argument("--images", type=int, default=10_000, help="images of the cohort")
    parser.add_argument("--side", type=int, default=256, help="voxels along each side of the pseudo-CT")
    parser.add_argument("--rounds", type=int, default=5, help="times the page is opened")
    parser.add_argument("--out", type=Path, default=Path("bench-out"), help="folder of the JSON file")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        run = large_run(Path(folder) / "workspace", options.images, options.side)
        before = time.process_time()
        record = write_report(run.workspace, RunSettings(), run.records)
        cpu_seconds = time.process_time() - before
        page = record.path(run.workspace.root) / "report.html"
        opened = measure_opening(page, options.rounds) if CHROMIUM else {}
        size = page.stat().st_size
    content = {
        "benchmark": "report_size",
        "command": f"python -m benchmarks.report_size --images {options.images} --side {options.side} "
        f"--rounds {options.rounds}",
        "images": options.images,
        "voxels": [options.side] * 3,
        "megabytes": size / 1e6,
        "limit_megabytes": LARGEST_BYTES / 1e6,
        "cpu_seconds_to_write": cpu_seconds,
        "limit_seconds": SLOWEST_SECONDS,
        **opened,
        "load_average": os.getloadavg()[0],
        "machine": {"cpus": os.cpu_count(), "architecture": platform.machine(), "python": platform.python_version()},
    }
    write_json(options.out / "report_size.json", content)
    print(f"report_size: {size / 1e6:.1f} MB, written in {cpu_seconds:.1f} s of CPU")
    if opened:
        load, cpu, first = (
            statistics.median(opened[name])
            for name in ("seconds_to_load", "cpu_seconds_to_load", "seconds_to_first_slice")
        )
        print(f"opened in {load:.2f} s ({cpu:.2f} s of CPU), first slice after {first:.2f} s")
        print(f"quickest {min(opened['seconds_to_load']):.2f} s; {os.getloadavg()[0]:.0f} others wanted the processors")
        print(*(opened["complaints"] or ["no complaint of the browser"]), sep="\n")


if __name__ == "__main__":
    main()
