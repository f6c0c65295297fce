import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.filters import threshold_otsu

from pipeline.body_mask import ct_body_mask, dilate_in_plane, mr_body_mask, mr_noise_threshold
from pipeline.errors import InputError

SIZE = 96
SPACING = (2.0, 2.0, 3.0)
GRID_I, GRID_J = np.mgrid[:SIZE, :SIZE] - SIZE / 2 + 0.5


def disk(radius_mm: float, center_mm: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    return np.asarray(np.hypot(2 * GRID_I - center_mm[0], 2 * GRID_J - center_mm[1]) <= radius_mm)


def stack(plane: np.ndarray, slices: int = 3) -> np.ndarray:
    return np.repeat(plane[:, :, None], slices, axis=2)


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))


def mr_head(rng: np.random.Generator, slices: int) -> np.ndarray:
    """Bright scalp, dark skull, bright brain, Rician noise."""
    plane = np.where(disk(70), 300.0, 0.0)
    plane = np.where(disk(66), 0.0, plane)
    plane = np.where(disk(58), 500.0, plane)
    signal = stack(plane, slices)
    return np.hypot(signal + rng.normal(0, 8, signal.shape), rng.normal(0, 8, signal.shape))


@pytest.mark.parametrize("slices", [1, 4])
def test_mr_mask_holds_scalp_dark_skull_and_brain(slices: int) -> None:
    mask = mr_body_mask(mr_head(np.random.default_rng(0), slices), SPACING)
    head = stack(disk(70), slices)
    assert mask[head & ~stack(disk(67), slices)].mean() > 0.95
    assert mask[stack(disk(67), slices)].all()
    assert dice(mask, head) > 0.98


def test_mr_mask_closes_a_gap_in_the_scalp() -> None:
    mr = mr_head(np.random.default_rng(1), 2)
    mr[(np.abs(2 * GRID_I) < 5) & (GRID_J < 0) & ~disk(60)] = 8.0
    mask = mr_body_mask(mr, SPACING)
    assert mask[stack(disk(64), 2)].all()


def test_mr_threshold_lies_above_the_noise_and_below_the_tissue() -> None:
    mr = mr_head(np.random.default_rng(2), 3)
    threshold = mr_noise_threshold(mr)
    assert threshold == pytest.approx(3.87 * 8, rel=0.15)
    assert (mr[stack(~disk(72), 3)] > threshold).mean() < 0.003


def test_mr_mask_does_not_depend_on_the_gain_of_the_scanner() -> None:
    mr = mr_head(np.random.default_rng(3), 2)
    np.testing.assert_array_equal(mr_body_mask(mr, SPACING), mr_body_mask(16.0 * mr, SPACING))


def test_mr_mask_works_on_a_background_of_exact_zeros() -> None:
    mr = mr_head(np.random.default_rng(4), 2)
    mr[stack(~disk(70), 2)] = 0
    assert dice(mr_body_mask(mr, SPACING), stack(disk(70), 2)) > 0.98


def test_ct_mask_keeps_skin_bone_and_inner_air() -> None:
    hu = np.where(disk(70), 40, -1000)
    hu = np.where(disk(60) & ~disk(50), 1200, hu)
    hu = np.where(disk(15), -1000, hu)
    mask = ct_body_mask(stack(hu), SPACING)
    assert mask[stack(disk(15))].all()
    assert dice(mask, stack(disk(70))) > 0.99


@pytest.mark.parametrize("gap_mm", [0, 6])
def test_ct_mask_drops_the_couch_beside_and_under_the_body(gap_mm: int) -> None:
    body = disk(60, (0.0, -10.0))
    below = 2 * GRID_J - 50 - gap_mm
    couch = ((below >= 0) & (below < 4)) | ((below >= 30) & (below < 34))
    mask = ct_body_mask(stack(np.where(body, 30, np.where(couch, 200, -1000))), SPACING)
    assert dice(mask, stack(body)) > 0.98
    assert not mask[stack(couch & ~body & (np.abs(2 * GRID_I) > 30))].any()


def test_ct_mask_keeps_lungs_behind_a_thin_chest_wall() -> None:
    hu = np.where(disk(80), 30, -1000)
    lungs = disk(30, (36.0, 0.0)) | disk(30, (-36.0, 0.0))
    mask = ct_body_mask(stack(np.where(lungs, -850, hu)), SPACING)
    assert mask[stack(lungs)].all()
    assert dice(mask, stack(disk(80))) > 0.99


def test_ct_mask_keeps_two_legs_and_drops_loose_debris() -> None:
    legs = disk(36, (45.0, 0.0)) | disk(33, (-45.0, 0.0))
    debris = disk(7, (0.0, 80.0))
    mask = ct_body_mask(stack(np.where(legs | debris, 30, -1000)), SPACING)
    assert dice(mask, stack(legs)) > 0.98
    assert not mask[stack(debris)].any()


def test_masks_follow_a_mirror_and_do_not_change_their_input() -> None:
    hu = stack(np.where(disk(50, (15.0, -9.0)), 40.0, -1000.0))
    kept = hu.copy()
    mask = ct_body_mask(hu, SPACING)
    np.testing.assert_array_equal(ct_body_mask(hu[::-1], SPACING), mask[::-1])
    np.testing.assert_array_equal(hu, kept)


def test_empty_scans_give_empty_masks() -> None:
    assert not ct_body_mask(np.full((20, 20, 2), -1000), SPACING).any()
    assert not mr_body_mask(np.zeros((20, 20, 2)), SPACING).any()


@pytest.mark.parametrize(("shape", "spacing"), [((8, 8), SPACING), ((8, 8, 1), (1.0, 0.0, 1.0))])
def test_malformed_input_is_refused(shape: tuple[int, ...], spacing: tuple[float, float, float]) -> None:
    with pytest.raises(InputError, match="voxel size"):
        ct_body_mask(np.zeros(shape), spacing)


@pytest.mark.real_data
def test_mr_mask_holds_the_skull_of_registered_real_heads_where_otsu_loses_it() -> None:
    root = os.environ.get("SCANLOOM_TEST_DATA")
    if root is None or not (Path(root) / "mr_ct_head_pairs").is_dir():
        pytest.skip("SCANLOOM_TEST_DATA does not name a folder with mr_ct_head_pairs")
    kept, kept_by_otsu = [], []
    for path in sorted((Path(root) / "mr_ct_head_pairs" / "MR").glob("*.png"))[::4]:
        mr = np.asarray(Image.open(path).convert("L"))
        bone = np.asarray(Image.open(path.parents[1] / "CT" / path.name).convert("L")) >= 250
        kept.append(mr_body_mask(mr[:, :, None], (1.0, 1.0, 1.0))[bone].mean())
        kept_by_otsu.append((mr > threshold_otsu(mr))[bone].mean())
    # The rest is couch and head frame, saturated like bone, and one case scanned before and after surgery.
    assert np.median(kept) > 0.94
    assert np.median(kept_by_otsu) < 0.6


@pytest.mark.parametrize("radius", [0, 1, 3, 2.5])
def test_in_plane_dilation_equals_the_morphological_one_and_never_leaves_its_slice(radius):
    mask = np.zeros((3, 21, 24), np.uint8)
    mask[1, 8:11, 9:13] = 1
    reach = int(radius)
    disk = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1]) <= radius
    expected = ndimage.binary_dilation(mask > 0, structure=disk[None])
    assert np.array_equal(dilate_in_plane(mask, radius), expected)
    assert not dilate_in_plane(mask, radius)[[0, 2]].any()
