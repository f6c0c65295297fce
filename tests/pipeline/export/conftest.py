"""A small lesion track on disk, in the documented formats, as export finds it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.files import write_json
from pipeline.prepared_set import write_image_set
from pipeline.records import StageRecord
from pipeline.settings import ExportSettings
from pipeline.stage_runner import Stage, StageContext, run_stage
from pipeline.workspace import Workspace

CLASSES = ["=cmd|' /C calc'!A0", "glioma", "../../escape"]
SPLITS = ["train", "train", "train", "validation", "test", "test"]
SIZE = 16


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "workspace", identity_key=bytes(32))


def _record(workspace: Workspace, name: str, fill: Callable[[Path], None]) -> StageRecord:
    def body(context: StageContext) -> dict[str, object]:
        fill(context.folder)
        return {}

    return run_stage(workspace, Stage(name, "pipeline.prepared_set", body), ExportSettings(), records={})


@pytest.fixture
def classes() -> list[str]:
    """Names that a hostile input could bring; another module may ask for others."""
    return CLASSES


@pytest.fixture
def lesion_records(workspace: Workspace, classes: list[str]) -> Callable[[bool], dict[str, StageRecord]]:
    """Records of prepare, synthesize and evaluate; the argument says whether the gate is closed."""
    rng = np.random.default_rng(5)

    def prepare(folder: Path) -> None:
        number = len(classes) * len(SPLITS)
        images = rng.integers(-16384, 16385, (number, 1, SIZE, SIZE)).astype(np.int16)
        images[0, 0, 0, :3] = (-16384, 0, 16384)
        images[1, 0, 0, 0] = 20000  # beyond the unit range
        table = pl.DataFrame(
            {
                "image": list(range(number)),
                "subject_id": [f"sub-{row:02d}" for row in range(number)],
                "series_id": [f"ser-{row:02d}" for row in range(number)],
                "lesion_id": [f"les-{row:02d}" for row in range(number)],
                "lesion_class": [name for name in classes for _ in SPLITS],
                "split": SPLITS * len(classes),
                "slice_index": [-1] * number,
            }
        )
        write_image_set(folder, images, table, {"classes": classes, "pixel_mm": 1.0, "intensity": {"map": "mr"}})

    def synthesize(folder: Path) -> None:
        images = rng.integers(-16384, 16385, (9, 1, SIZE, SIZE)).astype(np.int16)
        np.save(folder / "images.npy", images)
        pl.DataFrame(
            {
                "image": list(range(9)),
                "lesion_class": [name for name in classes for _ in range(3)],
                "seed": [2**40 + row for row in range(9)],
                "truncation": [0.8] * 9,
            }
        ).write_parquet(folder / "cohort.parquet")
        write_json(folder / "cohort.json", {"classes": classes, "recipe": {"per_class": 3}, "model_sha256": "ab" * 32})

    def make(blocked: bool) -> dict[str, StageRecord]:
        def evaluate(folder: Path) -> None:
            gate = {
                "blocked": blocked,
                "flags": 2,
                "reason": "2 of 9 images exceed a correlation of 0.970 with a training image; chance explains up to 1",
                "threshold": 0.97,
                "rate": 0.01,
                "allowed_flags": 1 if blocked else 3,
                "held_out": 120,
            }
            write_json(folder / "gate.json", gate)
            pl.DataFrame(
                {
                    "image": [1, 4],
                    "lesion_class": [classes[0], classes[1]],
                    "correlation": [0.99, 0.98],
                    "nearest_image": [0, 6],
                }
            ).write_parquet(folder / "flagged.parquet")

        fills = {"prepare_lesions": prepare, "synthesize_lesions": synthesize, "evaluate_lesions": evaluate}
        return {name: _record(workspace, name, fill) for name, fill in fills.items()}

    return make
