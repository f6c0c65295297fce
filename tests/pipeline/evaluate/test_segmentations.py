"""Planted label maps of CT and pseudo-CT through ingest, matching and scoring; truths are counted by hand."""

from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from pipeline.evaluate.outside_mr_to_ct import evaluate_outside_mr_to_ct
from pipeline.evaluate.segmentations import MEAN
from pipeline.ingest.outside_volumes import ingest_outside_volumes
from pipeline.prepare.outside_pairs import prepare_outside_pairs
from pipeline.results import read_results
from pipeline.settings import EvaluateMRToCTSettings, EvaluateSettings, RunSettings
from pipeline.workspace import Workspace

SHAPE = (40, 36, 10)
AFFINE = np.array([[1.5, 0, 0, -30], [0, 1.5, 0, -27], [0, 0, 3, 5], [0, 0, 0, 1.0]])
SETTINGS = RunSettings(
    tracks=("mr_to_ct",),
    evaluate=EvaluateSettings(
        mr_to_ct=EvaluateMRToCTSettings(
            mask_dilation_px=0,
            wepl_directions=2,
            bootstrap=100,
            label_names={1: "femur", 2: "bladder", 3: "prostate"},
        )
    ),
)
CASES = ("one", "two", "three", "moved", "fractions", "alone")


def head():
    i, j, _ = np.indices(SHAPE)
    ct = np.where(((i - 20) / 16) ** 2 + ((j - 18) / 14) ** 2 < 1, 40, -1000)
    ct[np.hypot(i - 12, j - 20) < 4] = 900
    return ct.astype(np.int16)


def boxes(**starts: int):
    """Label maps of boxes of 8 x 8 x 6 voxels; each starts where it is said along the first axis."""
    labels = np.zeros(SHAPE, np.uint8)
    for number, name in enumerate(("femur", "bladder", "prostate"), 1):
        if name in starts:
            labels[starts[name] : starts[name] + 8, 2 + 10 * number - 10 : 10 * number, 2:8] = number
    return labels


def save(path: Path, voxels, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    root = tmp_path_factory.mktemp("segmented")
    for case in CASES:
        save(root / "ct" / f"{case}Ruth_ct.nii.gz", head())
        save(root / "made" / f"{case}Ruth_sct.nii.gz", (head() + 5).astype(np.int16))
    ct = boxes(femur=10, bladder=20)
    save(root / "ct_labels" / "oneRuth_seg.nii.gz", ct)
    save(root / "made_labels" / "oneRuth_sct_seg.nii.gz", boxes(femur=10, bladder=22))  # 2 of 8 voxels off
    save(root / "ct_labels" / "twoRuth_seg.nii.gz", ct)
    save(root / "made_labels" / "twoRuth_seg.nii.gz", boxes(femur=14, prostate=5))  # half off; no bladder; one invented
    turned = AFFINE @ np.array([[-1, 0, 0, SHAPE[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    save(root / "ct_labels" / "threeRuth_seg.nii.gz", ct[::-1].copy(), turned)  # the same place, other axes
    save(root / "made_labels" / "threeRuth_seg.nii.gz", ct)
    save(root / "ct_labels" / "movedRuth_seg.nii.gz", ct)
    moved = AFFINE.copy()
    moved[2, 3] += 3
    save(root / "made_labels" / "movedRuth_seg.nii.gz", ct, moved)
    save(root / "ct_labels" / "fractionsRuth_seg.nii.gz", (ct * np.float32(0.5)))
    save(root / "made_labels" / "fractionsRuth_seg.nii.gz", ct)
    save(root / "ct_labels" / "aloneRuth_seg.nii.gz", ct)
    folders = {"ct": "ct", "pseudo_ct": "made", "ct_labels": "ct_labels", "pseudo_ct_labels": "made_labels"}
    workspace = Workspace.open(root / "work")
    catalogs = {
        role: ingest_outside_volumes(workspace, SETTINGS, root / folder, role) for role, folder in folders.items()
    }
    pairs = prepare_outside_pairs(workspace, SETTINGS, catalogs)
    record = evaluate_outside_mr_to_ct(workspace, SETTINGS, pairs, catalogs)
    results = read_results(record.path(workspace.root))
    tables = {table.key: list(table.rows) for table in results.tables}
    return SimpleNamespace(
        means={row["structure"]: row for row in tables["mr_to_ct_segmentations"]},
        cases=tables["mr_to_ct_segmentation_cases"],
        warnings=results.warnings,
        text=results.model_dump_json(),
        summary=tables["mr_to_ct_summary"],
    )


def scores(judged, structure, name):
    """Values of a score over cases, ascending, those without one last."""
    found = [row[name] for row in judged.cases if row["structure"] == structure]
    return sorted(found, key=lambda value: (value is None, value))


def test_dice_of_shifted_boxes_is_the_share_that_overlaps(judged):
    assert scores(judged, "femur", "dice") == [0.5, 1, 1]
    assert scores(judged, "bladder", "dice") == [0, 0.75, 1]
    assert {row["voxels"] for row in judged.cases if row["structure"] == "femur"} == {8 * 8 * 6}


def test_surface_distance_of_shifted_boxes_is_the_shift_in_millimeters(judged):
    assert scores(judged, "femur", "hd95") == pytest.approx([0, 0, 4 * 1.5])
    assert scores(judged, "bladder", "hd95") == [0, pytest.approx(2 * 1.5), None], "a missed structure has no distance"


def test_a_structure_that_the_ct_lacks_is_listed_but_not_scored(judged):
    (row,) = [row for row in judged.cases if row["structure"] == "prostate"]
    assert (row["dice"], row["hd95"], row["finding"]) == (None, None, "absent in the reference")
    assert (judged.means["prostate"]["cases"], judged.means["prostate"]["absent"]) == (0, 1)
    assert judged.means["prostate"]["dice"] is None


def test_means_are_over_cases_with_intervals_over_subjects(judged):
    femur, bladder = judged.means["femur"], judged.means["bladder"]
    assert (femur["cases"], femur["missed"]) == (3, 0)
    assert femur["dice"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert femur["dice_low"] < femur["dice"] < femur["dice_high"] <= 1
    assert (bladder["cases"], bladder["missed"]) == (3, 1)
    assert bladder["dice"] == pytest.approx((0 + 0.75 + 1) / 3)
    assert bladder["hd95"] == pytest.approx((0 + 3) / 2)
    assert judged.means[MEAN]["dice"] == pytest.approx(np.mean([1, (1 + 0.75) / 2, 0.5 / 2]))


def test_maps_that_do_not_lie_on_the_ct_are_no_maps_or_come_alone_are_named(judged):
    words = " ".join(judged.warnings)
    assert "in 1 of 6 pairs: label map of the pseudo-CT: equal voxels lie up to 3 mm apart." in words
    assert "in 1 of 6 pairs: label map of the CT: values that are not whole numbers of 0 or more." in words
    assert "in 1 of 6 pairs: no label map of the pseudo-CT." in words
    assert judged.summary[0]["cases"] == 6, "the HU of all cases are scored all the same"
    assert "Ruth" not in judged.text


def test_without_names_structures_are_called_by_number_and_names_need_letters():
    assert EvaluateMRToCTSettings().label_names == {}
    with pytest.raises(ValueError, match="at least 1 character"):
        EvaluateMRToCTSettings(label_names={1: ""})
