"""Another group's pseudo-CT of real heads, as NIfTI made from their 8-bit slices (HU = grey / 255 · 3000 − 1000)."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from pipeline.evaluate.outside_mr_to_ct import evaluate_outside_mr_to_ct
from pipeline.ingest.outside_volumes import ingest_outside_volumes
from pipeline.prepare.outside_pairs import prepare_outside_pairs
from pipeline.results import read_results
from pipeline.settings import EvaluateMRToCTSettings, EvaluateSettings, RunSettings
from pipeline.workspace import Workspace

DATA = Path(os.environ.get("SCANLOOM_TEST_DATA", "/nonexistent")) / "ct_slices"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason="SCANLOOM_TEST_DATA names no folder with ct_slices"),
]
CASES = ("1BA012", "1BA058", "1BC039")
MIRRORED = "1BC039"
SETTINGS = RunSettings(
    tracks=("mr_to_ct",), evaluate=EvaluateSettings(mr_to_ct=EvaluateMRToCTSettings(wepl_directions=2, bootstrap=100))
)


def heads(case):
    """CT and pseudo-CT of 8 slices in HU, (i, j, k)."""
    both = [DATA / "real" / f"GT_{case}-{number:03d}.png" for number in range(80, 200)]
    pairs = [(path, DATA / "model" / path.name.replace("GT", "Out")) for path in both]
    readable = [pair for pair in pairs if all(path.is_file() for path in pair)][:8]
    volumes = [np.stack([np.asarray(Image.open(pair[side]).convert("L")) for pair in readable]) for side in (0, 1)]
    return [np.rint(grey / 255 * 3000 - 1000).astype(np.int16).transpose(2, 1, 0)[:, ::-1] for grey in volumes]


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    root = tmp_path_factory.mktemp("heads")
    errors = []
    for case in CASES:
        ct, made = heads(case)
        mask = (ct > -300).astype(np.int16)
        if case == MIRRORED:
            made = made[:, ::-1]
        errors.append(np.abs(ct[mask > 0].astype(float) - made[mask > 0]).mean())
        for folder, voxels in (("ct", ct), ("made", made), ("mask", mask)):
            (root / folder).mkdir(exist_ok=True)
            image = nib.Nifti1Image(voxels, np.diag([1.0, 1, 1, 1]))
            image.header.set_xyzt_units("mm")
            nib.save(image, root / folder / f"{case}.nii.gz")
    workspace = Workspace.open(root / "work")
    folders = {"ct": "ct", "pseudo_ct": "made", "mask": "mask"}
    catalogs = {
        role: ingest_outside_volumes(workspace, SETTINGS, root / folder, role) for role, folder in folders.items()
    }
    pairs = prepare_outside_pairs(workspace, SETTINGS, catalogs)
    record = evaluate_outside_mr_to_ct(workspace, SETTINGS, pairs, catalogs)
    return read_results(record.path(workspace.root)), errors


def test_errors_are_those_of_the_arrays(judged):
    results, errors = judged
    rows = next(table.rows for table in results.tables if table.key == "mr_to_ct_cases")
    assert sorted(row["mae"] for row in rows) == pytest.approx(sorted(errors))


def test_the_mirrored_head_is_told_from_the_others(judged):
    results, errors = judged
    rows = next(table.rows for table in results.tables if table.key == "mr_to_ct_geometry")
    assert sorted(row["agrees"] for row in rows) == [False, True, True]
    assert "1 of 3" in next(verdict.sentence for verdict in results.verdicts if verdict.key == "geometry")
    assert errors[CASES.index(MIRRORED)] == max(errors)
