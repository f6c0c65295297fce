import nibabel as nib
import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.evaluate.pair_files import PairFiles, score_pair
from pipeline.metrics.mae import mae
from pipeline.metrics.pairs import DIALECTS
from pipeline.metrics.ssim import ssim
from pipeline.settings import EvaluateMRToCTSettings

SETTINGS = EvaluateMRToCTSettings(mask_dilation_px=2, dialect="synthrad2023", wepl_directions=6)
AFFINE = np.diag([-1.5, 1.5, 3.0, 1.0])  # stored toward the left, as scanners often do
SHAPE = (40, 36, 10)


def head(seed=0):
    """(i, j, k) HU: a body with bone off the plane of symmetry and an air pocket."""
    rng = np.random.default_rng(seed)
    i, j, _ = np.indices(SHAPE)
    body = ((i - 20) / 16) ** 2 + ((j - 18) / 14) ** 2 < 1
    ct = np.where(body, 40 + rng.integers(-15, 15, SHAPE), -1000)
    ct[np.hypot(i - 12, j - 20) < 4] = 900
    ct[np.hypot(i - 26, j - 14) < 3] = -600
    return ct.astype(np.int16)


def save(path, voxels, affine=AFFINE):
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


@pytest.fixture
def folder(tmp_path):
    save(tmp_path / "ct.nii.gz", head())
    save(tmp_path / "pseudo.nii.gz", (head() + 10).astype(np.int16))
    save(tmp_path / "mask.nii.gz", (head() > -900).astype(np.int16))
    return tmp_path


def test_figures_are_those_of_the_arrays(folder):
    mask = head() > -900
    found = score_pair(PairFiles(folder / "ct.nii.gz", folder / "pseudo.nii.gz", folder / "mask.nii.gz"), SETTINGS)
    ct, made = head().astype(float), head() + 10.0
    assert found.cells["mae"] == pytest.approx(mae(ct, made, mask)) == 10
    assert found.cells["ssim"] == pytest.approx(ssim(ct, made, mask, DIALECTS["synthrad2023"]))
    assert found.geometry.agrees
    assert found.mirrored is None
    assert found.cells["dice_bone"] == found.cells["dice_body"] == 1
    assert found.cells["wepl_mean"] > 0


def test_the_headers_trap_a_pseudo_ct_stored_from_the_other_side_is_refused(folder):
    save(folder / "flipped.nii.gz", (head() + 10).astype(np.int16)[::-1], AFFINE * [[-1], [1], [1], [1]])
    with pytest.raises(InputError, match="axes run"):
        score_pair(PairFiles(folder / "ct.nii.gz", folder / "flipped.nii.gz"), SETTINGS)


def test_mirrored_voxels_under_a_copied_header_are_named(folder):
    save(folder / "mirrored.nii.gz", np.ascontiguousarray((head() + 10).astype(np.int16)[::-1]))
    found = score_pair(PairFiles(folder / "ct.nii.gz", folder / "mirrored.nii.gz"), SETTINGS)
    assert found.geometry.agrees
    assert found.mirrored == 2, "columns run from right to left"
    assert found.cells["mae"] > 50


def test_without_a_mask_the_body_outline_of_the_ct_is_taken(folder):
    found = score_pair(PairFiles(folder / "ct.nii.gz", folder / "pseudo.nii.gz"), SETTINGS)
    assert found.cells["mae"] == 10
    body = (head() > -900).sum()
    assert body < found.cells["voxels"] < 2 * body


def test_label_maps_of_a_segmenter_are_scored_and_absent_structures_skipped(folder):
    labels = (head() > 250).astype(np.int16)
    worse = labels.copy()
    worse[:, :18] = 0
    save(folder / "a.nii.gz", labels)
    save(folder / "b.nii.gz", worse)
    files = PairFiles(
        folder / "ct.nii.gz",
        folder / "pseudo.nii.gz",
        ct_labels=folder / "a.nii.gz",
        pseudo_ct_labels=folder / "b.nii.gz",
        label_names={1: "skull", 2: "mandible"},
    )
    found = score_pair(files, SETTINGS)
    expected = 2 * worse.sum() / (labels.sum() + worse.sum())
    assert found.structures["skull"].dice == pytest.approx(expected) == found.mean_dice
    assert found.structures["mandible"].dice is None
    assert found.mean_hd95_mm == found.structures["skull"].hd95_mm > 0


def test_one_label_map_alone_or_an_unreadable_file_is_refused(folder):
    with pytest.raises(InputError, match="both images"):
        score_pair(PairFiles(folder / "ct.nii.gz", folder / "pseudo.nii.gz", ct_labels=folder / "ct.nii.gz"), SETTINGS)
    (folder / "broken.nii.gz").write_bytes(b"no image")
    with pytest.raises(InputError, match="must be readable") as caught:
        score_pair(PairFiles(folder / "ct.nii.gz", folder / "broken.nii.gz"), SETTINGS)
    assert str(folder) not in str(caught.value)


def test_a_pseudo_ct_half_a_slice_off_is_refused(folder):
    moved = AFFINE.copy()
    moved[2, 3] = 1.5
    save(folder / "moved.nii.gz", head(), moved)
    with pytest.raises(InputError, match=r"1\.5 mm apart"):
        score_pair(PairFiles(folder / "ct.nii.gz", folder / "moved.nii.gz"), SETTINGS)
