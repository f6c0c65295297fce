import numpy as np
import pytest

from pipeline.slice_stacks import COORDINATE_LIMIT, BodyFrame, neighbors, window


@pytest.mark.parametrize(
    ("index", "slices", "expected"),
    [(2, 1, [2]), (2, 3, [1, 2, 3]), (0, 3, [0, 0, 1]), (4, 5, [2, 3, 4, 4, 4])],
)
def test_neighbors_repeat_the_edge(index, slices, expected):
    assert neighbors(index, slices, 5).tolist() == expected


def test_frame_spans_minus_one_to_one_over_the_body():
    mask = np.zeros((6, 10, 12), np.uint8)
    mask[1:4, 2:9, 3:6] = 1
    frame = BodyFrame.of(mask)
    assert (frame.low, frame.high) == ((1, 2, 3), (3, 8, 5))
    channels = frame.coordinates(3, np.arange(2, 9), np.arange(3, 6))
    assert np.all(channels[0] == 1)
    np.testing.assert_allclose(channels[1][:, 0], np.linspace(-1, 1, 7), atol=1e-6)
    np.testing.assert_allclose(channels[2][0], [-1, 0, 1], atol=1e-6)


def test_far_positions_are_clipped():
    frame = BodyFrame((0, 10, 10), (1, 12, 12))
    assert frame.coordinates(0, np.array([500]), np.array([-500]))[1:].ravel().tolist() == [
        COORDINATE_LIMIT,
        -COORDINATE_LIMIT,
    ]


def test_an_empty_mask_frames_the_whole_volume():
    assert BodyFrame.of(np.zeros((2, 3, 4), np.uint8)).high == (1, 2, 3)


@pytest.mark.parametrize(("top", "left"), [(0, 0), (-3, -2), (4, 5), (-20, 0), (6, 40)])
def test_window_equals_a_cut_from_a_padded_volume(top, left):
    volume = np.random.default_rng(0).integers(0, 99, (3, 8, 9)).astype(np.int16)
    padded = np.pad(volume, ((0, 0), (50, 50), (50, 50)), constant_values=-7)
    indices = np.array([0, 2])
    expected = padded[indices, top + 50 : top + 56, left + 50 : left + 56]
    assert np.array_equal(window(volume, indices, top, left, 6, -7), expected)
