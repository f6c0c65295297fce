import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from pipeline.errors import InputError
from pipeline.geometry import (
    Geometry,
    affine_from_dicom,
    axial_geometry_for,
    canonical_view,
    dicom_planes,
    geometry_with_spacing,
    is_oblique,
    is_sheared,
    lps_to_ras,
    ras_to_lps,
    slice_normal,
    to_canonical,
    to_dicom_axial,
)
from pipeline.resampling import resample

Array = NDArray[np.float64]
SHAPE = (4, 5, 6)


def orientations() -> list[Array]:
    """The 48 axis-aligned affines with spacing 1.0, 1.3, 2.1 mm and an odd origin."""
    affines = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            affine = np.zeros((4, 4))
            for axis, (world, sign, spacing) in enumerate(zip(order, signs, (1.0, 1.3, 2.1), strict=True)):
                affine[world, axis] = sign * spacing
            affine[:, 3] = (-17.25, 31.5, 4.125, 1.0)
            affines.append(affine)
    return affines


def oblique_affine(angles: tuple[float, float, float], spacing: tuple[float, float, float]) -> Array:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * spacing
    affine[:3, 3] = (10.0, -20.0, 30.0)
    return affine


def ramp(geometry: Geometry) -> Array:
    grid = np.stack(np.meshgrid(*(np.arange(size) for size in geometry.shape), indexing="ij"), axis=-1)
    return np.asarray(geometry.to_world(grid) @ [0.7, -1.1, 0.4] + 3.0)


def test_there_are_48_distinct_orientations() -> None:
    assert len({affine.tobytes() for affine in orientations()}) == 48


@pytest.mark.parametrize("affine", orientations())
def test_canonical_round_trip_is_exact_in_every_orientation(affine: Array) -> None:
    array = np.arange(120, dtype=np.int16).reshape(SHAPE)
    canonical, target, reordering = to_canonical(array, affine)
    assert (np.diag(target)[:3] > 0).all()
    assert np.count_nonzero(target[:3, :3]) == 3
    np.testing.assert_array_equal(reordering.restore(canonical), array)
    np.testing.assert_array_equal(reordering.source.affine, affine)
    index = np.array([1, 3, 2])
    world = Geometry(SHAPE, affine).to_world(index)
    moved = np.rint(Geometry(canonical.shape, target).to_index(world)).astype(int)
    assert canonical[tuple(moved)] == array[tuple(index)]


@pytest.mark.parametrize("affine", orientations())
def test_axial_grid_holds_the_same_points_in_every_orientation(affine: Array) -> None:
    array = np.arange(120, dtype=np.float64).reshape(SHAPE)
    target = axial_geometry_for(Geometry(SHAPE, affine))
    np.testing.assert_allclose(target.direction, np.diag([-1, -1, 1]), atol=1e-12)
    reordered, reordered_affine, _ = to_dicom_axial(array, affine)
    assert target.matches(Geometry(reordered.shape, reordered_affine), 1e-9)
    np.testing.assert_allclose(resample(array, affine, target), reordered, atol=1e-9)


def test_axial_grid_of_an_axial_grid_is_itself() -> None:
    geometry = Geometry(SHAPE, np.diag([-1.0, -1.0, 3.0, 1.0]))
    assert axial_geometry_for(geometry) is geometry


def test_axial_grid_covers_an_oblique_one() -> None:
    geometry = Geometry((20, 22, 9), oblique_affine((12, -7, 25), (1.0, 1.1, 3.0)))
    target = axial_geometry_for(geometry)
    assert not is_oblique(target.affine)
    assert is_oblique(geometry.affine)
    corners = np.array(list(itertools.product((0, 19), (0, 21), (0, 8))))
    index = target.to_index(geometry.to_world(corners))
    assert (index > -0.01).all()
    assert (index < np.array(target.shape) - 0.99).all()
    np.testing.assert_allclose(target.spacing_mm, geometry.spacing_mm)


def test_lps_and_ras_are_mirror_images_of_each_other() -> None:
    np.testing.assert_array_equal(lps_to_ras([1.0, 2.0, 3.0, 1.0]), [-1.0, -2.0, 3.0, 1.0])
    affine = oblique_affine((5, 6, 7), (1, 2, 3))
    np.testing.assert_array_equal(ras_to_lps(lps_to_ras(affine)), affine)


def test_dicom_affine_by_hand_keeps_row_and_column_spacing_apart() -> None:
    # Rows 0.7 mm apart, columns 1.1 mm: the column index moves along +x (left), the row index along +y (posterior).
    affine = affine_from_dicom([1, 0, 0, 0, 1, 0], [0.7, 1.1], [-10.0, -20.0, 5.0], [0.0, 0.0, 2.5])
    expected = [[-1.1, 0, 0, 10.0], [0, -0.7, 0, 20.0], [0, 0, 2.5, 5.0], [0, 0, 0, 1]]
    np.testing.assert_allclose(affine, expected, atol=1e-15)


@given(
    st.tuples(*[st.floats(-179, 179)] * 3),
    st.tuples(*[st.floats(0.3, 6.0)] * 3),
)
@settings(max_examples=60, deadline=None)
def test_dicom_planes_invert_affine_from_dicom(
    angles: tuple[float, float, float], spacing: tuple[float, float, float]
) -> None:
    geometry = Geometry((7, 5, 4), oblique_affine(angles, spacing))
    planes = dicom_planes(geometry)
    step = (np.array(planes.positions[-1]) - planes.positions[0]) / 3
    back = affine_from_dicom(planes.image_orientation_patient, planes.pixel_spacing, planes.positions[0], step)
    np.testing.assert_allclose(back, geometry.affine, atol=1e-9)
    assert abs(slice_normal(planes.image_orientation_patient) @ step) == pytest.approx(spacing[2])


@given(st.tuples(*[st.floats(-179, 179)] * 3), st.tuples(*[st.floats(0.3, 6.0)] * 3))
@settings(max_examples=60, deadline=None)
def test_canonical_axes_lie_within_55_degrees_of_the_patient(
    angles: tuple[float, float, float], spacing: tuple[float, float, float]
) -> None:
    array = np.arange(120).reshape(SHAPE)
    canonical, affine, reordering = to_canonical(array, oblique_affine(angles, spacing))
    direction = Geometry(canonical.shape, affine).direction
    assert np.trace(direction) >= 1.0 - 1e-6
    np.testing.assert_array_equal(reordering.restore(canonical), array)


def test_spacing_keeps_the_outer_corner_and_the_field_of_view() -> None:
    geometry = Geometry((10, 12, 8), oblique_affine((10, 20, 30), (1.0, 1.5, 3.0)))
    finer = geometry_with_spacing(geometry, (0.5, 0.75, 1.0))
    assert finer.shape == (20, 24, 24)
    np.testing.assert_allclose(finer.to_world([-0.5] * 3), geometry.to_world([-0.5] * 3), atol=1e-12)
    np.testing.assert_allclose(finer.to_world([19.5, 23.5, 23.5]), geometry.to_world([9.5, 11.5, 7.5]), atol=1e-12)
    assert geometry_with_spacing(finer, (1.0, 1.5, 3.0)).matches(geometry, 1e-9)


def test_linear_ramp_survives_resampling_to_an_oblique_grid_exactly() -> None:
    source = Geometry((30, 32, 28), oblique_affine((4, 5, -6), (1.0, 1.1, 1.2)))
    inner = np.eye(4)
    inner[:3, :3] = oblique_affine((25, -10, 40), (0.9, 0.8, 1.0))[:3, :3]
    inner[:3, 3] = source.to_world([14.5, 15.5, 13.5]) - inner[:3, :3] @ [4, 4, 4]
    target = Geometry((9, 9, 9), inner)
    result = resample(ramp(source), source.affine, target)
    np.testing.assert_allclose(result, ramp(target), atol=1e-9)


def test_a_displaced_ramp_is_the_ramp_beside() -> None:
    source = Geometry((30, 32, 28), oblique_affine((4, 5, -6), (1.0, 1.1, 1.2)))
    inner = np.eye(4)
    inner[:3, :3] = oblique_affine((25, -10, 40), (0.9, 0.8, 1.0))[:3, :3]
    inner[:3, 3] = source.to_world([14.5, 15.5, 13.5]) - inner[:3, :3] @ [4, 4, 4]
    target = Geometry((9, 8, 7), inner)
    beside = np.random.default_rng(5).uniform(-2, 2, (*target.shape, 3))
    result = resample(ramp(source), source.affine, target, displacement_mm=beside)
    np.testing.assert_allclose(result, ramp(target) + beside @ [0.7, -1.1, 0.4], atol=1e-9)


def test_resampling_agrees_with_scipy() -> None:
    rng = np.random.default_rng(3)
    source = Geometry((12, 14, 16), np.diag([1.0, 1.2, 2.0, 1.0]))
    target = Geometry((9, 8, 10), oblique_affine((3, 4, 5), (1.0, 1.0, 1.5)))
    array = rng.normal(size=source.shape)
    mapping = np.linalg.inv(source.affine) @ target.affine
    grid = np.stack(np.meshgrid(*(np.arange(size) for size in target.shape), indexing="ij"), axis=0)
    index = np.tensordot(mapping[:3, :3], grid, 1) + mapping[:3, 3][:, None, None, None]
    expected = ndimage.map_coordinates(array, index, order=1, mode="nearest")
    limits = np.array(source.shape)[:, None, None, None] - 0.5
    outside = ((index < -0.5) | (index > limits)).any(axis=0)
    result = resample(array, source.affine, target, fill=-7.0)
    np.testing.assert_allclose(result, np.where(outside, -7.0, expected), atol=1e-9)


def test_nearest_keeps_dtype_and_values_and_cubic_reproduces_samples() -> None:
    rng = np.random.default_rng(4)
    mask = rng.integers(0, 5, size=(8, 9, 10)).astype(np.int16)
    source = Geometry(mask.shape, np.eye(4))
    result = resample(mask, source.affine, geometry_with_spacing(source, (0.5, 0.5, 0.5)), order=0)
    assert result.dtype == np.int16
    np.testing.assert_array_equal(result, mask.repeat(2, 0).repeat(2, 1).repeat(2, 2))
    np.testing.assert_allclose(resample(mask, source.affine, source, order=3), mask, atol=1e-4)
    flags = mask > 2
    np.testing.assert_array_equal(resample(flags, source.affine, source, order=0), flags)


def test_antialiasing_removes_what_the_coarse_grid_cannot_show() -> None:
    stripes = np.tile(np.array([0.0, 1.0]), (16, 16, 16))
    source = Geometry(stripes.shape, np.eye(4))
    coarse = geometry_with_spacing(source, (1.0, 1.0, 4.0))
    shifted = Geometry(coarse.shape, coarse.affine - np.array([[0.0] * 4, [0.0] * 4, [0, 0, 0, 0.5], [0.0] * 4]))
    plain = resample(stripes, source.affine, shifted)
    smooth = resample(stripes, source.affine, shifted, antialias=True)
    assert np.abs(plain - 0.5).max() == pytest.approx(0.5)
    assert np.abs(smooth[:, :, 1:-1] - 0.5).max() < 0.02
    np.testing.assert_array_equal(
        resample(stripes, source.affine, source, antialias=True), resample(stripes, source.affine, source)
    )


def test_resampling_leaves_its_input_alone_and_repeats_exactly() -> None:
    array = np.random.default_rng(5).normal(size=(20, 21, 22)).astype(np.float32)
    before = array.copy()
    target = geometry_with_spacing(Geometry(array.shape, np.eye(4)), (1.3, 0.9, 1.1))
    first = resample(array, np.eye(4), target, antialias=True)
    np.testing.assert_array_equal(first, resample(array, np.eye(4), target, antialias=True))
    np.testing.assert_array_equal(array, before)
    assert first.dtype == np.float32


@pytest.mark.parametrize(
    ("affine", "words"),
    [
        (np.diag([1.0, 0.0, 1.0, 1.0]), "voxel size"),
        (np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "determinant"),
        (np.full((4, 4), np.nan), "non-finite"),
        (np.eye(3), "shape"),
        (np.eye(4) * 2, "last row"),
    ],
)
def test_unusable_affines_are_refused_with_what_is_wrong(affine: Array, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Geometry(SHAPE, affine)


def test_empty_grids_wrong_shapes_orders_and_spacings_are_refused() -> None:
    geometry = Geometry(SHAPE, np.eye(4))
    with pytest.raises(InputError, match="three axes"):
        Geometry((3, 0, 2), np.eye(4))
    with pytest.raises(InputError, match="three axes"):
        to_canonical(np.zeros((2, 2)), np.eye(4))
    with pytest.raises(InputError, match="interpolation order"):
        resample(np.zeros(SHAPE), np.eye(4), geometry, order=2)
    with pytest.raises(InputError, match="three positive"):
        geometry_with_spacing(geometry, (1.0, -1.0, 1.0))
    with pytest.raises(InputError, match="shape of its grid"):
        to_canonical(np.zeros(SHAPE), np.eye(4))[2].restore(np.zeros((1, 1, 1)))
    with pytest.raises(InputError, match="perpendicular unit vectors"):
        slice_normal([1, 0, 0, 0.5, 1, 0])


def test_sheared_grids_are_named_and_not_written_as_dicom_planes() -> None:
    affine = np.eye(4)
    affine[0, 2] = np.tan(np.radians(15.0))
    assert is_sheared(affine)
    assert not is_sheared(oblique_affine((10, 20, 30), (1, 2, 3)))
    with pytest.raises(InputError, match="perpendicular axes"):
        dicom_planes(Geometry(SHAPE, affine))


def test_grids_match_within_tolerance_only() -> None:
    affine = np.eye(4)
    moved = affine.copy()
    moved[0, 3] = 5e-4
    tilted = oblique_affine((0.1, 0, 0), (1, 1, 1))
    tilted[:3, 3] = 0
    geometry = Geometry((100, 100, 100), affine)
    assert geometry.matches(Geometry((100, 100, 100), moved))
    assert not geometry.matches(Geometry((100, 100, 100), moved), tolerance_mm=1e-4)
    assert not geometry.matches(Geometry((100, 100, 100), tilted))
    assert not geometry.matches(Geometry((100, 100, 99), affine))


def test_a_geometry_cannot_be_changed_afterwards() -> None:
    affine = np.eye(4)
    geometry = Geometry(SHAPE, affine)
    affine[0, 0] = 9.0
    assert geometry.affine[0, 0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        geometry.affine[0, 0] = 2.0


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", list(itertools.product((1.0, -1.0), repeat=3)))
def test_the_canonical_view_shows_what_the_copy_holds_without_copying(axes, signs):
    array = np.arange(24).reshape(2, 3, 4)
    affine = np.eye(4)
    affine[:3, :3] = np.diag(signs)[:, list(axes)]
    view = canonical_view(array, affine)
    np.testing.assert_array_equal(view, to_canonical(array, affine)[0])
    assert np.shares_memory(view, array)
