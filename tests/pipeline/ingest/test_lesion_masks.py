import itertools

import numpy as np
import pytest

from pipeline.errors import QuarantineError
from pipeline.geometry import Geometry
from pipeline.ingest.lesion_masks import MaskTask, read_mask, reordered

AFFINE = np.array([[-1.5, 0, 0, 20.0], [0, -1.5, 0, 30.0], [0, 0, 4.0, -50.0], [0, 0, 0, 1]])


def _oblique():
    angle = np.deg2rad(20)
    turn = np.eye(4)
    turn[:3, :3] = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    return turn @ AFFINE


@pytest.mark.parametrize("affine", [AFFINE, _oblique()], ids=["axial", "oblique"])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
def test_every_order_of_voxels_is_brought_back_exactly(affine, order, signs):
    truth = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7)
    stored, stored_affine = truth.transpose(order), affine.copy()
    stored_affine[:3, :3] = affine[:3, order]
    for axis, sign in enumerate(signs):
        if sign < 0:
            stored_affine[:3, 3] += stored_affine[:3, axis] * (stored.shape[axis] - 1)
            stored_affine[:3, axis] *= -1
            stored = np.flip(stored, axis)
    found = reordered(stored, Geometry(stored.shape, stored_affine), Geometry(truth.shape, affine))
    np.testing.assert_array_equal(found, truth)


@pytest.mark.parametrize("change", [(0, 3, 0.01), (2, 2, 0.01), (0, 1, 0.2)])
def test_another_grid_is_no_order_of_voxels(change):
    row, column, amount = change
    other = AFFINE.copy()
    other[row, column] += amount
    assert reordered(np.zeros((5, 6, 7), np.int16), Geometry((5, 6, 7), other), Geometry((5, 6, 7), AFFINE)) is None
    assert reordered(np.zeros((5, 6, 8), np.int16), Geometry((5, 6, 8), AFFINE), Geometry((5, 6, 7), AFFINE)) is None


def _task(path, *grids):
    return MaskTask(path, tuple((shape, tuple(affine.ravel().tolist())) for shape, affine in grids))


def test_the_one_image_that_fits_is_found(inputs):
    mask = np.zeros((5, 6, 7), np.int16)
    mask[1, 2, 3] = 4
    path = inputs.nifti("m.nii", mask, AFFINE)
    aligned = read_mask(_task(path, ((9, 9, 9), AFFINE), ((5, 6, 7), AFFINE)))
    assert aligned.grid == 1
    np.testing.assert_array_equal(aligned.voxels, mask)


@pytest.mark.parametrize(
    ("voxels", "grids", "reason"),
    [
        (np.zeros((5, 6, 7), np.int16), [((5, 6, 8), AFFINE)], "MASK_GRID_MISMATCH"),
        (np.zeros((5, 6, 7), np.int16), [((5, 6, 7), AFFINE)] * 2, "AMBIGUOUS_REFERENCE"),
        (np.full((5, 6, 7), 0.5, np.float32), [((5, 6, 7), AFFINE)], "MASK_NOT_INTEGER"),
    ],
)
def test_masks_that_cannot_be_trusted_are_refused(inputs, voxels, grids, reason):
    path = inputs.nifti("m.nii", voxels, AFFINE)
    with pytest.raises(QuarantineError) as caught:
        read_mask(_task(path, *grids))
    assert caught.value.reason == reason
