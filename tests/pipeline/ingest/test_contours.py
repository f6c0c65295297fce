import matplotlib.path
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import QuarantineError
from pipeline.geometry import Geometry
from pipeline.ingest.contours import enclosed, roi_voxels
from pipeline.scan_io.structure_set import Contour, Roi

ANGLE = np.deg2rad(25)
TURN = np.array([[np.cos(ANGLE), -np.sin(ANGLE), 0], [np.sin(ANGLE), np.cos(ANGLE), 0], [0, 0, 1]])
TILT = np.array([[1, 0, 0], [0, np.cos(ANGLE), -np.sin(ANGLE)], [0, np.sin(ANGLE), np.cos(ANGLE)]])
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = TURN @ TILT @ np.diag([-1.5, -1.2, 4.0])
OBLIQUE[:3, 3] = [20.0, -31.0, 7.0]
GRID = Geometry((20, 16, 8), OBLIQUE)
UIDS = {f"1.2.{k}": [k] for k in range(8)}
SQUARE = np.array([[2.5, 3.5], [9.5, 3.5], [9.5, 7.5], [2.5, 7.5]])


def _square(k, points=SQUARE, images=()):
    index = np.column_stack([points, np.full(len(points), float(k))])
    return Contour(GRID.to_world(index), tuple(images))


def _drawn(*contours, open_contours=0, by_images=False):
    roi = Roi(1, "GTV", contours, open_contours)
    mask = np.zeros(GRID.shape, bool)
    mask.ravel()[roi_voxels(roi, GRID, UIDS, by_images=by_images)] = True
    return mask


@given(
    st.integers(0, 7), st.integers(0, 7), st.integers(1, 8), st.integers(1, 8), st.booleans(), st.integers(0, 3)
)  # fmt: skip
def test_a_rectangle_of_whole_sides_encloses_exactly_its_area(left, low, width, height, backwards, start):
    corners = np.array([[left, low], [left + width, low], [left + width, low + height], [left, low + height]], float)
    line = np.roll(corners[::-1] if backwards else corners, start, axis=0)
    for shift in (0.0, 0.5):  # corners on centers, and between them
        expected = np.zeros((16, 16), bool)
        first = int(np.ceil(shift))
        expected[left + first : left + width + first, low + first : low + height + first] = True
        np.testing.assert_array_equal(enclosed((16, 16), [line + shift]), expected)


@pytest.mark.parametrize("radius", [3.3, 9.7, 30.2])
def test_the_area_of_a_circle_is_met_to_its_perimeter(radius):
    angles = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    circle = np.column_stack([40 + radius * np.cos(angles), 41.3 + radius * np.sin(angles)])
    assert abs(enclosed((80, 84), [circle]).sum() - np.pi * radius**2) < 2 * np.pi * radius / 4


@pytest.mark.parametrize("seed", range(20))
def test_star_shapes_equal_the_even_odd_fill_of_matplotlib(seed):
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 37))
    radii = rng.uniform(2, 14, 37)
    line = np.column_stack([15 + radii * np.cos(angles), 17 + radii * np.sin(angles)])
    centers = np.stack(np.meshgrid(np.arange(31), np.arange(34), indexing="ij"), -1).reshape(-1, 2)
    expected = matplotlib.path.Path(line).contains_points(centers).reshape(31, 34)
    np.testing.assert_array_equal(enclosed((31, 34), [line]), expected)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=3, unique=True))
def test_a_line_through_centers_gives_each_of_them_to_one_side(points):
    """A triangle and what is left of the square around it share no center and leave none out."""
    triangle = np.array(points, float)
    square = np.array([[-1, -1], [10, -1], [10, 10], [-1, 10]], float)
    inside, outside = enclosed((10, 10), [triangle]), enclosed((10, 10), [square, triangle])
    np.testing.assert_array_equal(inside, ~outside)


def test_an_inner_contour_is_a_hole_and_a_keyhole_contour_gives_the_same_ring():
    inner = np.array([[4.5, 4.5], [6.5, 4.5], [6.5, 6.5], [4.5, 6.5]])
    ring = enclosed((20, 16), [SQUARE, inner])
    assert ring.sum() == 7 * 4 - 2 * 2
    assert not ring[5:7, 5:7].any()
    keyhole = np.concatenate([SQUARE, SQUARE[:1], inner[[0, 3, 2, 1, 0]]])
    np.testing.assert_array_equal(enclosed((20, 16), [keyhole]), ring)


def test_lines_that_leave_the_grid_are_cut_off_at_it():
    square = np.array([[-5, -5], [3.5, -5], [3.5, 40], [-5, 40]], float)
    expected = np.zeros((8, 9), bool)
    expected[:4] = True
    np.testing.assert_array_equal(enclosed((8, 9), [square]), expected)


def test_contours_of_an_oblique_image_are_drawn_in_its_own_planes():
    mask = _drawn(_square(2), _square(3, images=["1.2.3"]), _square(3, SQUARE + np.array([9, 5])), by_images=True)
    expected = np.zeros(GRID.shape, bool)
    expected[3:10, 4:8, 2:4] = True
    expected[12:19, 9:13, 3] = True
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(_drawn(_square(2), _square(2), open_contours=3), _drawn(_square(2)))
    np.testing.assert_array_equal(_drawn(_square(2.09)), _drawn(_square(2)))


@pytest.mark.parametrize(
    ("contours", "by_images", "reason", "found"),
    [
        ([], False, "NO_CLOSED_CONTOUR", "2 points"),
        ([_square(2.25)], False, "CONTOUR_OFF_SLICE", "1 mm off"),
        ([_square(9)], False, "OUTSIDE_GRID", "8 mm beyond"),
        ([_square(-1)], False, "OUTSIDE_GRID", "4 mm beyond"),
        ([_square(2, SQUARE - np.array([5, 0]))], False, "OUTSIDE_GRID", "3 mm beyond"),
        ([_square(2, images=["1.2.4"])], False, "REFERENCE_CONFLICT", "8 mm from"),
        ([_square(2), _square(3, images=["9.9"])], True, "MISSING_REFERENCE", "1 of 2 contours"),
        ([_square(1), _square(3), _square(5)], False, "CONTOUR_SPACING", "8 mm apart on slices of 4 mm"),
        ([_square(2, SQUARE / 20 + 0.2)], False, "EMPTY_LESION", "1 contours"),
    ],
)
def test_contours_that_cannot_be_trusted_are_refused_with_millimeters(contours, by_images, reason, found):
    with pytest.raises(QuarantineError) as caught:
        _drawn(*contours, open_contours=2, by_images=by_images)
    assert caught.value.reason == reason
    assert found in caught.value.found
