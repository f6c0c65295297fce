import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.metrics.dice import mean_overlap, overlap_by_label, overlap_by_tissue, structure_overlap

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


def test_label_maps_are_scored_label_by_label_and_absent_ones_are_named_not_scored() -> None:
    truth = np.zeros(GRID.shape[1:], int)
    truth[ball((8, 10, 10), 4)], truth[ball((17, 10, 10), 3)] = 2, 5
    guess = np.where(truth == 5, 0, truth)
    guess[ball((17, 10, 14), 2)] = 7
    found = overlap_by_label(truth, guess, (1, 1, 1), {2: "liver", 5: "kidney", 7: "spleen"})
    assert (found["liver"].dice, found["liver"].hd95_mm) == (1, 0)
    assert (found["kidney"].dice, found["kidney"].hd95_mm, found["kidney"].reason) == (
        0,
        None,
        "absent in the prediction",
    )
    assert (found["spleen"].dice, found["spleen"].reason) == (None, "absent in the reference")
    dice, hd95, left_out = mean_overlap(found)
    assert (dice, hd95) == (0.5, 0)
    assert left_out == ("kidney: absent in the prediction", "spleen: absent in the reference")


def test_no_structure_at_all_is_neither_the_worst_nor_the_best() -> None:
    nothing = np.zeros(GRID.shape[1:], int)
    assert mean_overlap(overlap_by_label(nothing, nothing, (1, 1, 1), {1: "bone"}))[:2] == (None, None)
    assert mean_overlap({})[:2] == (None, None)


@pytest.mark.parametrize("value", [0.5, np.nan])
def test_probabilities_are_no_label_map(value: float) -> None:
    with pytest.raises(InputError, match="whole numbers"):
        overlap_by_label(np.ones((3, 3)), np.full((3, 3), value), (1, 1), {1: "bone"})


@pytest.mark.parametrize(("gap", "spacing"), [(3, (1.0, 1.0, 1.0)), (4, (0.7, 2.0, 2.5)), (2, (5.0, 1.0, 1.0))])
def test_parallel_plates_lie_their_distance_apart(gap: int, spacing: tuple[float, float, float]) -> None:
    truth, guess = np.zeros((20, 12, 12), bool), np.zeros((20, 12, 12), bool)
    truth[4], guess[4 + gap] = True, True
    assert structure_overlap(truth, guess, spacing).hd95_mm == pytest.approx(gap * spacing[0])


def test_one_stray_voxel_in_a_hundred_does_not_move_the_95th_percentile() -> None:
    truth = np.zeros((60, 12, 12), bool)
    truth[4] = True
    guess = truth.copy()
    guess[50, 6, 6] = True
    assert structure_overlap(truth, guess, (1, 1, 1)).hd95_mm == 0
