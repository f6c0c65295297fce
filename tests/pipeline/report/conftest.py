"""A whole small run on disk, in the documented formats, with markup planted wherever outside text can get in."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from PIL import Image

from benchmarks.browser import CHROMIUM, Browser
from pipeline.catalog import LESION_SCHEMA, SERIES_SCHEMA
from pipeline.files import write_json
from pipeline.prepared_set import VolumeSetWriter, write_image_set
from pipeline.records import StageRecord
from pipeline.report.stage import write_report
from pipeline.results import Column, Headline, Results, ResultTable, Verdict, write_results
from pipeline.settings import FrozenSettings, RunSettings
from pipeline.settings_loading import validate
from pipeline.stage_runner import Stage, StageContext, run_stage
from pipeline.workspace import Workspace

MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
CLASSES = ["ring", "solid", MARKUP]
SIZE = 32


class NoSettings(FrozenSettings):
    """Nothing."""


@dataclass(frozen=True)
class FakeRun:
    """Workspace, settings and the records of every stage."""

    workspace: Workspace
    settings: RunSettings
    records: Mapping[str, StageRecord]


def seal(workspace: Workspace, name: str, facts: dict[str, object], fill: Callable[[Path], None]) -> StageRecord:
    """Run a stage that fills its folder with ``fill``."""

    def body(context: StageContext) -> dict[str, object]:
        fill(context.folder)
        return facts

    return run_stage(workspace, Stage(name, "pipeline.prepared_set", body), NoSettings(), records={})


def lesion(kind: int, rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """A disk, a ring or a square with noise, int16 (1, SIZE, SIZE)."""
    rows, columns = np.mgrid[:SIZE, :SIZE] - SIZE / 2 + rng.uniform(-2, 2, (2, 1, 1))
    far = np.hypot(rows, columns) if kind < 2 else np.maximum(abs(rows), abs(columns))
    inside = far < rng.uniform(7, 10)
    inside &= (far > 5) if kind == 0 else True
    unit = np.where(inside, 0.5, -0.5) + rng.normal(0, 0.08, (SIZE, SIZE))
    return np.rint(unit[None] * 16384).astype(np.int16)


def head(shift: float) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """MR, CT and mask of an ellipsoid with a skull, (8, 48, 40)."""
    z, y, x = np.mgrid[-1:1:8j, -1.2:1.2:48j, -1.2:1.2:40j]
    far = np.sqrt(0.5 * z**2 + y**2 + (x - shift / 20) ** 2)
    ct = np.select([far < 0.8, far < 0.92, far < 1.0], [40, 900, 10], -1000).astype(np.int16)
    mr = np.select([far < 0.8, far < 0.92, far < 1.0], [0.2, -0.9, 0.5], -1.0)
    return np.rint(mr * 16384).astype(np.int16), ct, (far < 1.0).astype(np.uint8)


def _ingest(folder: Path) -> None:
    pl.DataFrame(
        {
            "path_hash": ["a1", "b2", "c3"],
            "files": [1, 4, 2],
            "reason": ["TRUNCATED", "TRUNCATED", "UNREADABLE"],
            "found": ["12 of 40 slices " + MARKUP, "", "ValueError while parsing"],
            "advice": ["Copy it again.", "Copy it again.", "Open it in a viewer."],
        }
    ).write_parquet(folder / "quarantine.parquet")
    for name, schema in (("series", SERIES_SCHEMA), ("lesions", LESION_SCHEMA)):
        pl.DataFrame(schema=schema).write_parquet(folder / f"{name}.parquet")


def _prepare_lesions(folder: Path) -> None:
    rng = np.random.default_rng(1)
    splits = ["train"] * 6 + ["validation"] + ["test"] * 2
    kinds = [kind for kind in range(3) for _ in splits]
    number = len(kinds)
    table = pl.DataFrame(
        {
            "image": list(range(number)),
            "subject_id": [f"sub-{row // 2:03d}" for row in range(number)],
            "series_id": [f"ser-{row:03d}" for row in range(number)],
            "lesion_id": [f"les-{row:03d}" for row in range(number)],
            "lesion_class": [CLASSES[kind] for kind in kinds],
            "split": splits * 3,
            "slice_index": [-1] * number,
        }
    )
    write_image_set(folder, np.stack([lesion(kind, rng) for kind in kinds]), table, {"classes": CLASSES})


def _train(terms: list[str], seed: int) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        rng = np.random.default_rng(seed)
        steps = np.arange(1, 121)
        columns = {name: np.exp(-steps / 40) + 0.4 + rng.normal(0, 0.08, len(steps)) for name in terms}
        columns["images_per_s"] = rng.uniform(100, 200, len(steps))
        pl.DataFrame({"images": steps * 512} | columns).write_parquet(folder / "log.parquet")
        (folder / "grids").mkdir()
        for images in (0, 4096, 16384, 61440):
            pixels = rng.integers(0, 255, (40, 60)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "grids" / f"{images:010d}.png")

    return fill


def _synthesize(folder: Path) -> None:
    rng = np.random.default_rng(2)
    kinds = [kind for kind in range(3) for _ in range(5)]
    np.save(folder / "images.npy", np.stack([lesion(kind, rng) for kind in kinds]))
    rows = {"image": list(range(15)), "lesion_class": [CLASSES[kind] for kind in kinds], "seed": list(range(15))}
    pl.DataFrame(rows | {"truncation": [1.0] * 15}).write_parquet(folder / "cohort.parquet")
    write_json(folder / "cohort.json", {"classes": CLASSES, "recipe": {}, "model_sha256": "cd" * 32})


def lesion_results() -> Results:
    """Results with intervals, a missing number, words, a yes and planted markup."""
    columns = (
        Column(key="lesion_class", title="Class"),
        Column(
            key="kid",
            title="KID",
            unit="10⁻³",
            definition="Unbiased MMD². " + MARKUP,
            digits=1,
            low_key="low",
            high_key="high",
        ),
        Column(key="n", title="Images"),
        Column(key="ok", title="Checked"),
    )
    rows = (
        {"lesion_class": CLASSES[0], "kid": 12.34, "low": 11.91, "high": 12.79, "n": 12345, "ok": True},
        {"lesion_class": CLASSES[1], "kid": -0.04, "low": None, "high": None, "n": 3, "ok": False},
        {"lesion_class": CLASSES[2], "kid": None, "low": None, "high": None, "n": None, "ok": True},
    )
    return Results(
        track="lesions",
        headlines=(
            Headline(
                key="auc",
                text="Accuracy on synthetic lesions",
                value=0.8125,
                reference=1 / 3,
                reference_text="by chance",
            ),
            Headline(key="none", text="Not measured", value=None),
        ),
        verdicts=(
            Verdict(key="v", outcome="good", sentence="Synthetic lesions are recognized.", rule="accuracy > chance"),
            Verdict(
                key="w", outcome="neutral", sentence="Adding them made no difference " + MARKUP, rule="interval holds 0"
            ),
        ),
        tables=(ResultTable(key="fidelity", title="Fidelity", caption="Per class.", columns=columns, rows=rows),),
        warnings=("Few images in class " + MARKUP,),
    )


def _evaluate_lesions(folder: Path) -> None:
    write_results(folder, lesion_results())
    flagged = {"image": [3, 7], "lesion_class": [CLASSES[0], CLASSES[1]], "correlation": [0.981, 0.997]}
    pl.DataFrame(flagged | {"nearest_image": [0, 10]}).write_parquet(folder / "flagged.parquet")
    write_json(folder / "gate.json", {"blocked": False, "flags": 2, "threshold": 3, "rate": 0.01})


def _prepare_mr_to_ct(folder: Path, oriented: bool, unit: str) -> None:
    writer = VolumeSetWriter(folder)
    affine = np.eye(4).ravel().tolist() if oriented else None
    for case in range(3):
        mr, ct, mask = head(case)
        common = {
            "subject_id": f"sub-{case}",
            "split": "test",
            "pair_volume": -1,
            "affine": affine,
            "mr_low": 0.0,
            "mr_high": 1.0,
        }
        ct = ct if unit == "HU" else np.clip(ct // 8 + 100, 0, 255).astype(np.int16)
        one = writer.add(common | {"modality": "MR", "series_id": f"ser-mr{case}", "own_grid": True}, mr, mask)
        two = writer.add(common | {"modality": "CT", "series_id": f"ser-ct{case}", "own_grid": False}, ct, mask)
        writer.link(one, two)
    writer.close({"unit": unit, "spacing_mm": [1.0, 2.0, 3.0] if oriented else None})


def _translate(unit: str) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        (folder / "prepared").mkdir()
        rows = []
        for case in range(3):
            _, ct, _ = head(case)
            scale, offset = (1, 0) if unit == "HU" else (0.125, 100)
            pseudo = np.rint((ct + 60 * (3 - case)) * scale + offset).astype(np.int16)
            np.save(folder / "prepared" / f"ser-mr{case}.npy", pseudo)
            rows.append(
                {
                    "series_id": f"ser-mr{case}",
                    "subject_id": f"sub-{case}",
                    "split": "test",
                    "volume": 2 * case,
                    "prepared_path": f"prepared/ser-mr{case}.npy",
                    "nifti_path": None,
                    "dicom_folder": None,
                    "dicom_refusal": "the source has no geometry",
                    "residual": 0.1,
                    "uncertainty": None,
                    "cycle_residual": None,
                }
            )
        for name, value in (("uncertainty", 75), ("cycle_residual", 80)):  # of the case shown last
            rows[0][name] = f"prepared/{name}.npy"
            np.save(folder / "prepared" / f"{name}.npy", np.full(pseudo.shape, value, np.int16))
        pl.DataFrame(rows).write_parquet(folder / "cases.parquet")

    return fill


SPREADSHEET_TRAPS = ("=1+1", "+1", "-1", "@SUM(A1)", "=cmd|' /C calc'!A0", '"quoted", twice', "plain")
CASE_ROWS = 30


def case_table() -> ResultTable:
    """Many rows, whose words are what a spreadsheet might run."""
    columns = (
        Column(key="note", title="=Note", definition="Words."),
        Column(key="error", title="Error", unit="HU", definition="Signed.", digits=1, low_key="low", high_key="high"),
    )
    rows = []
    for case in range(CASE_ROWS):
        note = f"{SPREADSHEET_TRAPS[case % len(SPREADSHEET_TRAPS)]} {case:02d}"
        rows.append({"note": note, "error": 10.5 - case, "low": 9.25 - case, "high": 11.125 - case})
    return ResultTable(key="cases", title="Every case", caption="Many.", columns=columns, rows=tuple(rows))


def _evaluate_mr_to_ct(folder: Path) -> None:
    columns = (
        Column(key="arm", title="Method"),
        Column(
            key="mae",
            title="MAE",
            unit="HU",
            definition="Mean |error| in the mask.",
            digits=1,
            low_key="lo",
            high_key="hi",
        ),
    )
    rows = (
        {"arm": "pseudo-CT", "mae": 71.26, "lo": 60.0, "hi": 82.55},
        {"arm": "intensity lookup", "mae": 1234.5, "lo": 1200.0, "hi": 1300.25},
    )
    write_results(
        folder,
        Results(
            track="mr_to_ct",
            headlines=(Headline(key="mae", text="MAE, HU", value=71.26, reference=1234.5, reference_text="by lookup"),),
            verdicts=(Verdict(key="x", outcome="bad", sentence="Bone is missed.", rule="bone Dice < 0.5"),),
            tables=(
                ResultTable(key="mae", title="HU error", caption="Held out.", columns=columns, rows=rows),
                case_table(),
            ),
            warnings=("One subject only.",),
        ),
    )


def build_run(root: Path, *, unit: str = "HU", oriented: bool = True) -> FakeRun:
    """Write the whole run."""
    workspace = Workspace.open(root, identity_key=bytes(32))
    settings = validate({"name": "planted", "report": {"title": "Report " + MARKUP, "images_per_class": 4}}, "test")
    per_class = dict.fromkeys(CLASSES, 5)
    counts = {split: dict.fromkeys(CLASSES, number) for split, number in (("train", 6), ("validation", 1), ("test", 2))}
    facts: dict[str, dict[str, object]] = {
        "ingest": {
            "layout": "scans", "layout_reason": "DICOM was found " + MARKUP, "series": 1045, "subjects": 31,
            "lesions": 27, "quarantined": 7, "modalities": {"MR": 40, "CT": 5},
            "subject_source": ["patient_id", "near_duplicates"],
        },
        "prepare_lesions": {
            "classes": CLASSES, "size_px": SIZE, "counts": counts, "subjects": {"train": 20, "test": 7},
        },
        "train_lesions": {
            "images": 61440, "seconds": 81.234567, "device": "cpu", "parameters": {"generator": 123456},
            "model_sha256": "ef" * 32,
        },
        "synthesize_lesions": {"images": 15, "per_class": per_class, "model_sha256": "ef" * 32},
        "evaluate_lesions": {},
        "export_lesions": {
            "released": True, "reason": "The release gate is open.", "real": 27, "synthetic": 13, "left_out": 2,
            "counts": {"synthetic": {"train": {CLASSES[0]: 4, CLASSES[1]: 4, CLASSES[2]: 5}}},
        },
        "prepare_mr_to_ct": {"unit": unit, "mr_volumes": 3, "ct_volumes": 3, "pairs": 3, "subjects": {"test": 3}},
        "train_mr_to_ct": {"images": 61440, "seconds": 99.5, "device": "cpu", "parameters": {}},
        "translate_mr_to_ct": {"cases": 3, "dicom_series": 0},
        "evaluate_mr_to_ct": {},
    }  # fmt: skip
    fills: dict[str, Callable[[Path], None]] = {
        "ingest": _ingest,
        "prepare_lesions": _prepare_lesions,
        "train_lesions": _train(["d_loss", "g_loss", "p_real_over_fake", "d_grad_norm"], 3),
        "synthesize_lesions": _synthesize,
        "evaluate_lesions": _evaluate_lesions,
        "export_lesions": lambda folder: None,
        "prepare_mr_to_ct": lambda folder: _prepare_mr_to_ct(folder, oriented, unit),
        "train_mr_to_ct": _train(["g_loss", "cycle_ct", "brand_new_term"], 4),
        "translate_mr_to_ct": _translate(unit),
        "evaluate_mr_to_ct": _evaluate_mr_to_ct,
    }
    records = {name: seal(workspace, name, facts[name], fill) for name, fill in fills.items()}
    return FakeRun(workspace, settings, records)


@pytest.fixture(scope="session")
def fake_run(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    return build_run(tmp_path_factory.mktemp("run") / "workspace")


@pytest.fixture(scope="session")
def page_browser(fake_run: FakeRun) -> Iterator[Browser]:
    """A browser that shows the run's report, 1280 pixels wide."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    folder = write_report(fake_run.workspace, fake_run.settings, fake_run.records).path(fake_run.workspace.root)
    with Browser() as opened:
        opened.resize(1280)
        opened.open(folder / "report.html")
        yield opened


@pytest.fixture(scope="session")
def grey_run(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    return build_run(tmp_path_factory.mktemp("grey") / "workspace", unit="grey", oriented=False)
