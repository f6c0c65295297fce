import itertools

import numpy as np
import pytest

from pipeline.errors import QuarantineError
from pipeline.geometry import Geometry
from pipeline.ingest.segment_frames import segment_voxels
from pipeline.scan_io.segmentation import Frame

ANGLE = np.deg2rad(33)
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = np.array(
    [[np.cos(ANGLE), -np.sin(ANGLE), 0], [np.sin(ANGLE), np.cos(ANGLE), 0], [0, 0, 1]]
) @ np.diag([1.2, 1.2, 1.2])
OBLIQUE[:3, 3] = [-40, 12, 77]
SHAPE = (24, 9, 7)
GRID = Geometry(SHAPE, OBLIQUE)


class _Frames:
    """Frames in place of a file; their values are label numbers."""

    def __init__(self, *frames):
        self._frames = frames

    def frames(self):
        return (frame for frame, _ in self._frames)

    def values(self, frame):
        return next(values for known, values in self._frames if known is frame)


def _frame(number, affine, segment=1, spacing=None):
    return Frame(number, affine, segment, spacing)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=2)))
def test_planes_along_any_two_axes_in_any_direction_give_the_same_voxels(order, signs):
    """Columns and rows run along two axes of an isotropic image, slices along the third."""
    truth = np.random.default_rng(0).random(SHAPE) < 0.3
    column, row, across = order
    frames = []
    for place in np.random.default_rng(1).permutation(SHAPE[across]):
        start = np.zeros(3)
        start[across] = place
        affine = np.eye(4)
        plane = np.moveaxis(truth, (row, column, across), (0, 1, 2))[:, :, place]
        for index, (axis, sign) in enumerate(zip((column, row), signs, strict=True)):
            affine[:3, index] = sign * OBLIQUE[:3, axis]
            start[axis] = 0 if sign > 0 else SHAPE[axis] - 1
        affine[:3, 2] = OBLIQUE[:3, across]
        affine[:3, 3] = GRID.to_world(start)
        frames.append((_frame(len(frames), affine, 4), plane[:: signs[1], :: signs[0]] * np.uint16(4)))
    (voxels,) = segment_voxels(_Frames(*frames), [4], GRID).values()
    np.testing.assert_array_equal(np.sort(voxels), np.flatnonzero(truth))


def test_pixels_that_drift_off_by_whole_voxels_are_no_voxels_of_the_image():
    """At five per cent the twentieth pixel lies on a voxel again, and it is another one."""
    affine = OBLIQUE.copy()
    affine[:3, 0] *= 1.05
    values = np.zeros((9, 21), np.uint16)
    values[:, [0, 20]] = 1
    (found,) = segment_voxels(_Frames((_frame(0, affine), values)), [1], GRID).values()
    assert isinstance(found, QuarantineError)
    assert found.reason == "MASK_GRID_MISMATCH"


def test_a_frame_smaller_than_the_image_and_empty_pixels_outside_it_are_fine():
    affine = OBLIQUE.copy()
    affine[:3, 3] = GRID.to_world([20, 7, 3])
    values = np.zeros((6, 8), np.uint16)
    values[:2, :4] = 1
    (voxels,) = segment_voxels(_Frames((_frame(0, affine), values)), [1], GRID).values()
    expected = np.zeros(SHAPE, bool)
    expected[20:24, 7:9, 3] = True
    np.testing.assert_array_equal(np.sort(voxels), np.flatnonzero(expected))
    values[2, 0] = 1
    (found,) = segment_voxels(_Frames((_frame(0, affine), values)), [1], GRID).values()
    assert (found.reason, found.found) == ("OUTSIDE_GRID", "a segment that reaches 1.2 mm beyond the image")
