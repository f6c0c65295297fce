import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.metrics.dice import overlap_by_tissue, structure_overlap

GRID = np.mgrid[:24, :22, :20]


def ball(center: tuple[float, float, float], radius: float) -> np.ndarray:
    offset = np.array(center)[:, None, None, None]
    return np.asarray(np.sqrt(((GRID - offset) ** 2).sum(axis=0)) <= radius)


def test_hand_computed_boxes() -> None:
    truth, guess = np.zeros((10, 10, 1), bool), np.zeros((10, 10, 1), bool)
    truth[2:6, 2:6] = True
    guess[2:6, 4:8] = True
    overlap = structure_overlap(truth, guess, (1.0, 1.5, 9.0))
    assert overlap.dice == 0.5
    assert overlap.hd95_mm == 3.0
    assert overlap.reference_voxels == 16


def test_equal_masks_are_perfect_and_one_voxel_works() -> None:
    structure = ball((10, 10, 10), 5)
    assert structure_overlap(structure, structure, (1, 1, 1)).dice == 1
    assert structure_overlap(structure, structure, (1, 1, 1)).hd95_mm == 0
    assert structure_overlap(np.ones((1, 1, 1)), np.ones((1, 1, 1)), (1, 1, 1)).hd95_mm == 0


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
def test_equals_monai_on_balls_with_anisotropic_voxels() -> None:
    from monai.metrics import compute_dice, compute_hausdorff_distance

    truth, guess, spacing = ball((11, 10, 9), 6), ball((13, 11, 9), 5), (1.0, 2.0, 3.0)
    tensors = [torch.from_numpy(mask)[None, None].float() for mask in (truth, guess)]
    overlap = structure_overlap(truth, guess, spacing)
    expected = compute_hausdorff_distance(
        tensors[1], tensors[0], include_background=True, percentile=95, spacing=spacing
    )
    assert overlap.hd95_mm == pytest.approx(float(expected), rel=1e-5)
    assert overlap.dice == pytest.approx(float(compute_dice(tensors[1], tensors[0])))


def test_absent_structure_has_no_score_and_says_why() -> None:
    structure, nothing = ball((10, 10, 10), 4), np.zeros(GRID.shape[1:], bool)
    for guess in (nothing, structure):
        overlap = structure_overlap(nothing, guess, (1, 1, 1))
        assert (overlap.dice, overlap.hd95_mm, overlap.reason) == (None, None, "absent in the reference")
    missed = structure_overlap(structure, nothing, (1, 1, 1))
    assert (missed.dice, missed.hd95_mm, missed.reason) == (0.0, None, "absent in the prediction")


def test_order_of_the_masks_changes_nothing() -> None:
    first, second = ball((11, 10, 9), 6), ball((12, 12, 9), 4)
    one, two = structure_overlap(first, second, (1, 1, 2)), structure_overlap(second, first, (1, 1, 2))
    assert (one.dice, one.hd95_mm) == (two.dice, two.hd95_mm)


def test_tissues_come_from_hu_inside_the_mask() -> None:
    ct = np.where(ball((11, 10, 9), 8), 40.0, -1000.0)
    ct[ball((11, 10, 9), 3)] = 900
    worse = np.where(ball((11, 10, 9), 2), 900, np.where(ct > 250, 40, ct))
    body = ball((11, 10, 9), 8)
    overlap = overlap_by_tissue(ct, worse, body, (1, 1, 1))
    assert overlap["air"].reason == "absent in the reference"
    small, large = ball((11, 10, 9), 2).sum(), ball((11, 10, 9), 3).sum()
    assert overlap["bone"].dice == pytest.approx(2 * small / (small + large))
    assert overlap_by_tissue(ct, worse, None, (1, 1, 1))["air"].dice == 1


def test_unequal_grids_are_refused() -> None:
    with pytest.raises(InputError, match="one grid"):
        structure_overlap(np.ones((3, 3)), np.ones((3, 3)), (1, 1, 1))
