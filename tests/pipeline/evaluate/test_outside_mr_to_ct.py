"""Planted pairs through ingest, matching and scoring; truths are closed forms."""

from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from pipeline.errors import InputError
from pipeline.evaluate.outside_mr_to_ct import evaluate_outside_mr_to_ct
from pipeline.ingest.outside_volumes import ingest_outside_volumes
from pipeline.metrics.mae import mae
from pipeline.prepare.outside_pairs import prepare_outside_pairs
from pipeline.results import read_results
from pipeline.scan_io import Acquisition, SeriesIdentity, write_dicom_series
from pipeline.settings import EvaluateMRToCTSettings, EvaluateSettings, RunSettings
from pipeline.workspace import Workspace

SHAPE = (40, 36, 10)
AFFINE = np.array([[1.5, 0, 0, -30], [0, 1.5, 0, -27], [0, 0, 3, 5], [0, 0, 0, 1.0]])
SETTINGS = RunSettings(
    tracks=("mr_to_ct",),
    evaluate=EvaluateSettings(mr_to_ct=EvaluateMRToCTSettings(mask_dilation_px=0, wepl_directions=2, bootstrap=100)),
)


def head(seed=0):
    """(i, j, k) HU: a body with bone off the plane of symmetry and an air pocket."""
    rng = np.random.default_rng(seed)
    i, j, _ = np.indices(SHAPE)
    body = ((i - 20) / 16) ** 2 + ((j - 18) / 14) ** 2 < 1
    ct = np.where(body, 40 + rng.integers(-15, 15, SHAPE), -1000)
    ct[np.hypot(i - 12, j - 20) < 4] = 900
    ct[np.hypot(i - 26, j - 14) < 3] = -600
    return ct.astype(np.int16)


def save(path: Path, voxels, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def moved(millimeters):
    affine = AFFINE.copy()
    affine[2, 3] += millimeters
    return affine


def judged(root: Path, workspace: Workspace, **folders: str):
    """Everything that `scanloom evaluate mr-to-ct` does before the report."""
    catalogs = {
        role: ingest_outside_volumes(workspace, SETTINGS, root / folder, role) for role, folder in folders.items()
    }
    pairs = prepare_outside_pairs(workspace, SETTINGS, catalogs)
    record = evaluate_outside_mr_to_ct(workspace, SETTINGS, pairs, catalogs)
    results = read_results(record.path(workspace.root))
    return SimpleNamespace(
        record=record,
        results=results,
        tables={table.key: list(table.rows) for table in results.tables},
        verdicts={verdict.key: verdict for verdict in results.verdicts},
    )


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    root = tmp_path_factory.mktemp("planted")
    made = (head() + 10).astype(np.int16)
    cases = ("good", "mirrored", "shifted", "coarse", "turned", "cropped", "lonely")
    for case in cases:
        save(root / "ct" / f"{case}Ruth_ct.nii.gz", head())
    save(root / "made" / "goodRuth_sCT.nii.gz", made)
    save(root / "made" / "mirroredRuth_sct.nii.gz", made[::-1].copy())
    save(root / "made" / "shiftedRuth_pseudo-CT.nii.gz", made, moved(3))
    save(root / "made" / "coarseRuth.nii.gz", made, AFFINE @ np.diag([1, 1, 1.1, 1]))
    turned = AFFINE @ np.array([[-1, 0, 0, SHAPE[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    save(root / "made" / "turnedRuth.nii.gz", made[::-1].copy(), turned)
    save(root / "made" / "croppedRuth.nii.gz", made[:, :, 1:].copy(), moved(3))
    save(root / "made" / "strayRuth.nii.gz", made)
    (root / "made" / "brokenRuth.nii.gz").write_bytes(b"\x1f\x8bnothing")
    workspace = Workspace.open(root / "work")
    found = judged(root, workspace, ct="ct", pseudo_ct="made")
    again = judged(root, workspace, ct="ct", pseudo_ct="made")
    rows = found.tables["mr_to_ct_geometry"]
    return SimpleNamespace(
        found=found, again=again, workspace=workspace, findings=sorted(str(r["finding"]) for r in rows)
    )


def test_every_fault_of_geometry_is_named_and_nothing_is_resampled(planted):
    assert len(planted.findings) == 6
    for words in (
        "agrees",
        "agrees; stored with axes LAS, the CT with RAS",
        "fits the CT better with its columns reversed",
        "equal voxels lie up to 3 mm apart",
    ):
        assert words in planted.findings
    assert sum("voxel sizes differ by 0.3 mm" in finding for finding in planted.findings) == 1
    assert sum("(40, 36, 9) voxels, (40, 36, 10) expected" in finding for finding in planted.findings) == 1
    assert planted.found.verdicts["geometry"].sentence.startswith("4 of 6")
    assert planted.found.verdicts["geometry"].outcome == "bad"


def test_pairs_on_one_grid_have_the_error_that_was_planted(planted):
    rows = planted.found.tables["mr_to_ct_cases"]
    errors = sorted(round(row["mae"], 6) for row in rows)
    assert len(rows) == 3  # good, turned and mirrored
    assert errors[:2] == [10, 10]
    assert errors[2] > 50
    assert sum(row["mean_error"] == pytest.approx(10) for row in rows) >= 2


def test_what_has_no_partner_and_what_was_refused_is_listed(planted):
    unmatched = planted.found.tables["unmatched"]
    assert sorted(row["role"] for row in unmatched) == ["CT", "pseudo-CT"]
    (refused,) = planted.found.tables["refused"]
    assert refused["side"] == "pseudo-CT"
    assert refused["files"] == 1


def test_a_second_call_finds_it_done(planted):
    assert not planted.found.record.cached
    assert planted.again.record.cached
    assert planted.again.record.key == planted.found.record.key


def test_names_of_files_stay_in_the_identity_folder(planted):
    root = planted.workspace.root
    files = [path for path in root.rglob("*") if path.is_file()]
    holding = {path.relative_to(root).parts[0] for path in files if b"Ruth" in path.read_bytes()}
    holding |= {path.relative_to(root).parts[0] for path in files if "Ruth" in path.name}
    assert holding == {"identity"}


def test_baselines_only_where_an_mr_was_given(planted):
    assert {row["method"] for row in planted.found.tables["mr_to_ct_cases"]} == {"pseudo_ct"}
    assert "against_lookup" not in planted.found.verdicts


def mr_of(ct, order):
    """An MR that tells the tissue of a CT; ``order`` gives the brightness of air pocket, soft tissue and bone."""
    mr = np.zeros(ct.shape, np.int16)
    for low, high, level in ((-700, -200, order[0]), (-200, 250, order[1]), (250, 2000, order[2])):
        mr[(ct > low) & (ct <= high)] = level
    return mr


@pytest.mark.parametrize(("third", "trusted"), [((300, 600, 900), True), ((900, 300, 600), False)])
def test_a_baseline_knows_the_other_subjects_alone(tmp_path, third, trusted):
    """A subject whose MR has another contrast than all others is predicted badly; fitted on itself it would not be."""
    for number, order in enumerate([(300, 600, 900), (300, 600, 900), third]):
        ct = head(number)
        save(tmp_path / "ct" / f"c{number}.nii", ct)
        save(tmp_path / "made" / f"c{number}.nii", (ct + 200).astype(np.int16))
        save(tmp_path / "mr" / f"c{number}.nii", mr_of(ct, order))
    found = judged(tmp_path, Workspace.open(tmp_path / "work"), ct="ct", pseudo_ct="made", mr="mr")
    lookup = [row["mae"] for row in found.tables["mr_to_ct_cases"] if row["method"] == "intensity_lookup"]
    assert len(lookup) == 3
    assert (max(lookup) < 60) is trusted
    assert found.verdicts["against_lookup"].outcome == ("bad" if trusted else "good")


def test_methods_are_compared_on_the_same_cases(tmp_path):
    """A pseudo-CT that is far off has no MR: the verdict is that of the cases with one."""
    for number in range(3):
        ct = head(number)
        save(tmp_path / "ct" / f"c{number}.nii", ct)
        save(tmp_path / "made" / f"c{number}.nii", ct if number < 2 else (ct + 2000).astype(np.int16))
        if number < 2:
            save(tmp_path / "mr" / f"c{number}.nii", mr_of(ct, (300, 600, 900)))
    found = judged(tmp_path, Workspace.open(tmp_path / "work"), ct="ct", pseudo_ct="made", mr="mr")
    assert found.verdicts["against_lookup"].outcome == "good"
    assert {headline.value for headline in found.results.headlines} == {0}
    means = {row["method"]: row["mae"] for row in found.tables["mr_to_ct_summary"]}
    assert means["pseudo_ct"] == pytest.approx(2000 / 3)
    assert "No baseline for 1 cases" in " ".join(found.results.warnings)


def test_given_masks_decide_what_is_compared(tmp_path):
    ct, mask = head(), np.zeros(SHAPE, np.int16)
    mask[10:30, 10:26] = 1
    made = np.where(mask > 0, ct, 3000).astype(np.int16)
    for case in ("one", "two", "three"):
        save(tmp_path / "ct" / case / "ct.nii.gz", ct)
        save(tmp_path / "made" / case / "sct.nii.gz", made)
    save(tmp_path / "masks" / "one" / "mask.nii.gz", mask)
    save(tmp_path / "masks" / "two" / "mask.nii.gz", mask, moved(6))
    found = judged(tmp_path, Workspace.open(tmp_path / "work"), ct="ct", pseudo_ct="made", mask="masks")
    (row,) = found.tables["mr_to_ct_cases"]
    assert row["mae"] == 0
    assert row["voxels"] == mask.sum()
    findings = [row["finding"] for row in found.tables["mr_to_ct_geometry"]]
    assert sorted(findings) == ["agrees", "no mask on the grid of the CT", "no mask on the grid of the CT"]


def test_metaimage_against_nifti(tmp_path):
    save(tmp_path / "ct" / "a_ct.nii.gz", head())
    image = SimpleITK.GetImageFromArray((head() - 25).astype(np.int16).transpose(2, 1, 0))
    image.SetSpacing((1.5, 1.5, 3))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))  # LPS+
    image.SetOrigin((30, 27, 5))
    (tmp_path / "made").mkdir()
    SimpleITK.WriteImage(image, str(tmp_path / "made" / "a_sct.mha"))
    found = judged(tmp_path, Workspace.open(tmp_path / "work"), ct="ct", pseudo_ct="made")
    (row,) = found.tables["mr_to_ct_cases"]
    assert row["mae"] == pytest.approx(25)
    assert found.verdicts["geometry"].outcome == "good"


@pytest.mark.parametrize("patient", ["P1", "OTHER"])
def test_derived_dicom_is_matched_by_patient_or_frame_of_reference(tmp_path, patient):
    places = {"ct": ("P1", (), 0), "made": (patient, ("DERIVED", "PRIMARY", "AXIAL"), 40)}
    for number, (folder, (who, kind, offset)) in enumerate(places.items()):
        identity = SeriesIdentity(who, f"1.2.3.{number}", f"1.2.3.4.{number}", "1.2.3.9")
        write_dicom_series(
            tmp_path / folder, (head() + offset).astype(np.int16), AFFINE, "CT", identity, Acquisition(image_type=kind)
        )
    found = judged(tmp_path, Workspace.open(tmp_path / "work"), ct="ct", pseudo_ct="made")
    (row,) = found.tables["mr_to_ct_cases"]
    assert row["mae"] == pytest.approx(40)


def test_the_figure_is_that_of_the_arrays(tmp_path):
    rng = np.random.default_rng(3)
    ct, made = head(), (head() + rng.normal(0, 60, SHAPE)).astype(np.int16)
    mask = (rng.random(SHAPE) < 0.4).astype(np.int16)
    for folder, voxels in (("ct", ct), ("made", made), ("masks", mask)):
        save(tmp_path / folder / "a.nii.gz", voxels)
    found = judged(tmp_path, Workspace.open(tmp_path / "work"), ct="ct", pseudo_ct="made", mask="masks")
    (row,) = found.tables["mr_to_ct_cases"]
    assert row["mae"] == pytest.approx(mae(ct, made, mask))
    assert row["mae"] == pytest.approx(np.abs(ct[mask > 0].astype(float) - made[mask > 0]).mean())


def test_nothing_in_common_is_an_error_with_advice(tmp_path):
    save(tmp_path / "ct" / "a.nii", head())
    save(tmp_path / "made" / "b.nii", head())
    with pytest.raises(InputError, match="matched by case") as refused:
        judged(tmp_path, Workspace.open(tmp_path / "work"), ct="ct", pseudo_ct="made")
    assert "2 volumes" in refused.value.found


def test_a_folder_without_volumes_is_an_error_with_advice(tmp_path):
    (tmp_path / "ct").mkdir()
    (tmp_path / "ct" / "a.png").write_bytes(b"picture")
    with pytest.raises(InputError, match="usable volume"):
        ingest_outside_volumes(Workspace.open(tmp_path / "work"), SETTINGS, tmp_path / "ct", "ct")
