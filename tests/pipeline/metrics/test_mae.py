import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.metrics.mae import error_by_tissue, mae, mean_error

RNG = np.random.default_rng(0)
CT = RNG.uniform(-1000, 2000, (6, 5, 4))
PSEUDO_CT = CT + RNG.normal(0, 100, CT.shape)


def test_hand_computed_case() -> None:
    ct, pseudo_ct = np.array([[0.0, 100.0, 500.0]]), np.array([[10.0, 70.0, 9999.0]])
    mask = np.array([[1, 2, 0]])
    assert mae(ct, pseudo_ct, mask) == 20
    assert mean_error(ct, pseudo_ct, mask) == -10


def test_nothing_is_clipped() -> None:
    assert mae(np.zeros((2, 2)), np.full((2, 2), 9000.0), None) == 9000


def test_mask_none_is_the_whole_image_and_int16_does_not_overflow() -> None:
    assert mae(CT, PSEUDO_CT, None) == pytest.approx(np.abs(CT - PSEUDO_CT).mean())
    assert mae(np.full((2, 2), -30000, np.int16), np.full((2, 2), 30000, np.int16), None) == 60000


def test_values_outside_the_mask_do_not_matter_even_when_they_are_nan() -> None:
    mask = CT < 1000
    spoiled = np.where(mask, PSEUDO_CT, np.nan)
    assert mae(CT, spoiled, mask) == mae(CT, PSEUDO_CT, mask)


def test_errors_follow_a_shift_of_the_prediction() -> None:
    assert mean_error(CT, PSEUDO_CT + 50, None) == pytest.approx(mean_error(CT, PSEUDO_CT, None) + 50)
    assert mae(CT, CT, None) == 0


def test_tissues_split_the_error_exactly() -> None:
    mask = RNG.uniform(size=CT.shape) > 0.3
    tissues = error_by_tissue(CT, PSEUDO_CT, mask)
    assert sum(part.voxels for part in tissues.values()) == mask.sum()
    total = sum(part.voxels * (part.mae or 0) for part in tissues.values())
    assert total / mask.sum() == pytest.approx(mae(CT, PSEUDO_CT, mask))


def test_tissues_are_taken_from_the_reference_and_bounds_are_soft_tissue() -> None:
    ct = np.array([[-201.0, -200.0, 250.0, 251.0]])
    tissues = error_by_tissue(ct, ct + np.array([[1.0, 2.0, 4.0, -600.0]]), None)
    assert (tissues["air"].voxels, tissues["air"].mae) == (1, 1)
    assert (tissues["soft_tissue"].voxels, tissues["soft_tissue"].mae) == (2, 3)
    assert (tissues["bone"].voxels, tissues["bone"].mean_error) == (1, -600)


def test_absent_tissue_is_none_not_zero() -> None:
    bone = error_by_tissue(np.zeros((3, 3)), np.zeros((3, 3)), None)["bone"]
    assert (bone.voxels, bone.mae, bone.mean_error) == (0, None, None)


def test_empty_mask_unequal_shapes_and_nan_are_refused() -> None:
    with pytest.raises(InputError, match="0 voxels inside"):
        mae(CT, PSEUDO_CT, np.zeros(CT.shape))
    with pytest.raises(InputError, match="equal shapes"):
        mae(CT, PSEUDO_CT[1:], None)
    with pytest.raises(InputError, match="1 in the pseudo-CT"):
        mae(np.zeros((2, 2)), np.array([[0, 0], [0, np.nan]]), None)
