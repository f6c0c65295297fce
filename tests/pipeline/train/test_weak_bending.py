"""Bends of planes whose true displacement is known."""

import numpy as np
import pytest
import SimpleITK
from scipy import ndimage

from pipeline.train.weak_bending import bent_onto

SIDE = 96
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE].astype(np.float64)


def ring(row: float, column: float, dent: float = 0.0) -> np.ndarray:
    """A skull of 900 HU around a brain of 40 HU in air, dented at its left by so many pixels."""
    down, right = ROWS - row, COLUMNS - column
    radius = np.hypot(down, right) + dent * np.exp(-((np.arctan2(down, right) / 0.6) ** 2))
    return np.select([radius < 28, radius < 34], [40.0, 900.0], -1000.0).astype(np.float32)


def tissue_map(plane: np.ndarray) -> np.ndarray:
    return (np.searchsorted((-300, 250), plane, side="right") - 1).astype(np.float32)


def bone_dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * ((first > 250) & (second > 250)).sum() / ((first > 250).sum() + (second > 250).sum())


@pytest.mark.parametrize("moved", [ring(50, 48), ring(48, 45.5), ring(48, 48, dent=6), ring(46, 49, dent=-4)])
def test_a_skull_that_lies_elsewhere_comes_to_lie_on_the_target(moved: np.ndarray) -> None:
    target = ring(48, 48)
    (bent,) = bent_onto(tissue_map(target), moved[None], tissue_map(moved)[None])
    assert 1 - bone_dice(bent, target) < 0.4 * (1 - bone_dice(moved, target))


def test_what_lies_right_stays_to_the_last_bit() -> None:
    planes = np.stack([ring(48, 48), ring(50, 47)])
    for plane in planes:
        assert np.array_equal(bent_onto(tissue_map(plane), plane[None], tissue_map(plane)[None])[0], plane)


def test_each_slice_is_bent_by_its_own_map_and_no_value_is_new() -> None:
    target, planes = ring(48, 48), np.stack([ring(50, 48), ring(46, 49)])
    maps = np.stack([tissue_map(plane) for plane in planes])
    both = bent_onto(tissue_map(target), planes, maps)
    for n in range(2):
        assert np.array_equal(both[n], bent_onto(tissue_map(target), planes[n : n + 1], maps[n : n + 1])[0])
    assert both.min() >= planes.min()
    assert both.max() <= planes.max()


def test_a_bend_is_smooth_so_that_a_hole_which_others_lack_is_not_closed() -> None:
    target, moved = ring(48, 48), ring(48, 48)
    sinus = np.hypot(ROWS - 40, COLUMNS - 48) < 6
    moved[sinus] = -1000
    (bent,) = bent_onto(tissue_map(target), moved[None], tissue_map(moved)[None])
    assert (bent < -300)[ndimage.binary_erosion(sinus, iterations=3)].all()


def test_no_slices_are_no_slices_and_threads_are_given_back() -> None:
    before = SimpleITK.ProcessObject.GetGlobalDefaultNumberOfThreads()
    none = np.empty((0, SIDE, SIDE), np.float32)
    assert bent_onto(tissue_map(ring(48, 48)), none, none).shape == none.shape
    assert SimpleITK.ProcessObject.GetGlobalDefaultNumberOfThreads() == before
