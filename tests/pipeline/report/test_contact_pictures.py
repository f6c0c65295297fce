"""Sides, proportions and sizes of the contact sheet's pictures, on objects placed in the patient in mm."""

import base64
import io
import itertools
import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pipeline.geometry import Geometry
from pipeline.phantom import PhantomGrid
from pipeline.phantom.subject import phantom_subject
from pipeline.report.contact_pictures import (
    MAX_BYTES,
    PLANES,
    SIDE_PX,
    PlanePicture,
    direction_letters,
    native_plane,
    orientation_code,
    patient_order,
    plane_picture,
    webp_uri,
)

CENTER_MM = np.array([12.0, -30.0, 45.0])
SHAPE = (33, 29, 25)
SPACING = (2.0, 3.0, 4.0)


def orientations() -> list[npt.NDArray[np.float64]]:
    """The 48 ways in which voxel axes can run along patient axes, as grids around `CENTER_MM`."""
    grids = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            affine = np.eye(4)
            affine[:3, :3] = np.eye(3)[:, order] * np.array(signs) * np.array(SPACING)
            affine[:3, 3] = CENTER_MM - affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
            grids.append(affine)
    return grids


def marked(affine: npt.NDArray[np.float64], toward: npt.ArrayLike) -> tuple[npt.NDArray[np.float32], Geometry]:
    """A bright ball 20 mm from the center in the RAS+ direction ``toward``, sampled at the grid's voxel centers."""
    geometry = Geometry(SHAPE, affine)
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    far = np.linalg.norm(world - (CENTER_MM + 20.0 * np.asarray(toward)), axis=-1)
    return np.where(far < 8, 100.0, 10.0).astype(np.float32), geometry


def pixels_of(picture: PlanePicture) -> npt.NDArray[np.float64]:
    with Image.open(io.BytesIO(base64.b64decode(picture.uri.split(",", 1)[1]))) as opened:
        assert opened.size == (picture.width, picture.height)
        return np.asarray(opened.convert("L"), dtype=np.float64)


def hung(voxels: npt.NDArray[Any], geometry: Geometry, plane: str) -> PlanePicture:
    ordered, grid = patient_order(voxels, geometry)
    middle = tuple(size // 2 for size in grid.shape)
    return plane_picture(plane, ordered, grid, (middle[0], middle[1], middle[2]), (0, 100))


def bright_side(picture: PlanePicture) -> tuple[float, float]:
    """Middle of the bright pixels from the picture's middle: (right, down), as shares of its half width and height."""
    pixels = pixels_of(picture)
    rows, columns = np.nonzero(pixels > 150)
    return 2 * columns.mean() / pixels.shape[1] - 1, 2 * rows.mean() / pixels.shape[0] - 1


# (plane, where the ball lies in RAS+, where it must be seen)
LEFT, ANTERIOR, SUPERIOR = (-1, 0, 0), (0, 1, 0), (0, 0, 1)
SEEN = [
    ("axial", LEFT, "right"),
    ("axial", ANTERIOR, "top"),
    ("coronal", LEFT, "right"),
    ("coronal", SUPERIOR, "top"),
    ("sagittal", ANTERIOR, "left"),
    ("sagittal", SUPERIOR, "top"),
]
LETTERS = {
    "axial": ("R", "L", "A", "P"),
    "coronal": ("R", "L", "S", "I"),
    "sagittal": ("A", "P", "S", "I"),
}


@pytest.mark.parametrize("affine", orientations(), ids=lambda affine: orientation_code(Geometry(SHAPE, affine)))
def test_the_sides_of_the_patient_are_where_the_letters_say_however_the_axes_are_stored(
    affine: npt.NDArray[np.float64],
) -> None:
    for plane, toward, edge in SEEN:
        picture = hung(*marked(affine, toward), plane)
        right, down = bright_side(picture)
        place = {"left": -right, "right": right, "top": -down, "bottom": down}
        assert max(place, key=lambda name: place[name]) == edge, (plane, toward, place)
        assert place[edge] > 0.2
        assert (picture.left, picture.right, picture.top, picture.bottom) == LETTERS[plane]


def test_the_48_orientations_have_48_codes() -> None:
    assert len({orientation_code(Geometry(SHAPE, affine)) for affine in orientations()}) == 48


@pytest.mark.parametrize("plane", ["axial", "coronal"])
def test_the_phantom_s_marker_on_the_left_is_on_the_viewer_s_right(plane: str) -> None:
    truth = phantom_subject(3, 0, grid=PhantomGrid((60, 70, 30), (3.6, 3.6, 5.3), (9.0, 12.0)))
    marker = truth.geometry.to_index(truth.anatomy.marker_mm).round().astype(int)
    ordered, grid = patient_order(truth.mr, truth.geometry)
    assert grid.matches(truth.geometry), "the phantom is made in patient order"
    picture = plane_picture(plane, ordered, grid, (int(marker[0]), int(marker[1]), int(marker[2])), (0, 1500))
    across = grid.shape[0] - 1 - marker[0]
    column = round((across + 0.5) / grid.shape[0] * picture.width)
    assert column > picture.width / 2
    height = {"axial": marker[1] / grid.shape[1], "coronal": marker[2] / grid.shape[2]}[plane]
    row = round((1 - height) * picture.height)
    assert pixels_of(picture)[row - 1 : row + 2, column - 1 : column + 2].mean() > 60
    assert picture.right == "L"


@pytest.mark.parametrize("affine", orientations()[::7])
def test_proportions_follow_millimeters_and_planes_share_one_scale(affine: npt.NDArray[np.float64]) -> None:
    voxels, geometry = marked(affine, LEFT)
    _, grid = patient_order(voxels, geometry)
    sides = np.array(grid.shape) * np.array(grid.spacing_mm)
    scale = SIDE_PX / sides.max()
    for plane, (_, down, along) in PLANES.items():
        picture = hung(voxels, geometry, plane)
        assert picture.width == pytest.approx(sides[along] * scale, abs=0.5)
        assert picture.height == pytest.approx(sides[down] * scale, abs=0.5)
    assert max(hung(voxels, geometry, plane).height for plane in PLANES) <= SIDE_PX


@pytest.mark.parametrize(
    ("direction", "letters"),
    [
        ([1, 0, 0], "R"),
        ([-1, 0, 0], "L"),
        ([0, 1, 0], "A"),
        ([0, -2, 0], "P"),
        ([0, 0, 5], "S"),
        ([0, 0, -1], "I"),
        ([np.cos(np.radians(15)), np.sin(np.radians(15)), 0], "R"),
        ([np.cos(np.radians(25)), np.sin(np.radians(25)), 0], "RA"),
        ([0, np.cos(np.radians(60)), -np.sin(np.radians(60))], "IA"),
    ],
)
def test_letters_of_a_direction(direction: list[float], letters: str) -> None:
    assert direction_letters(direction) == letters


@pytest.mark.parametrize("degrees", [0.0, 7.0, 20.0, 40.0])
def test_the_angle_of_an_oblique_stack_is_told(degrees: float) -> None:
    turn = np.radians(degrees)
    affine = np.eye(4)
    affine[:3, :3] = [[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]]
    plane, angle = native_plane(Geometry((4, 4, 4), affine))
    assert (plane, angle) == ("axial", pytest.approx(degrees, abs=1e-5))


@pytest.mark.parametrize(("order", "plane"), [((0, 1, 2), "axial"), ((0, 2, 1), "coronal"), ((1, 2, 0), "sagittal")])
def test_the_plane_of_a_stack_is_that_of_its_slices(order: tuple[int, ...], plane: str) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, order]
    assert native_plane(Geometry((4, 4, 4), affine)) == (plane, 0.0)


@pytest.mark.parametrize("affine", orientations()[::5])
def test_an_outline_runs_around_what_it_outlines(affine: npt.NDArray[np.float64]) -> None:
    voxels, geometry = marked(affine, LEFT)
    ordered, grid = patient_order(voxels, geometry)
    labels, _ = patient_order((voxels > 50).astype(np.int16), geometry)
    middle = (grid.shape[0] // 2, grid.shape[1] // 2, grid.shape[2] // 2)
    picture = plane_picture("axial", ordered, grid, middle, (0, 100), labels, {1: "ball"})
    (outline,) = picture.outlines
    points = np.array([[float(n) for n in pair.split(",")] for pair in re.findall(r"[\d.]+,[\d.]+", outline.path)])
    rows, columns = np.nonzero(pixels_of(picture) > 127)
    np.testing.assert_allclose(points.min(axis=0), [columns.min(), rows.min()], atol=2.5)
    np.testing.assert_allclose(points.max(axis=0), [columns.max() + 1, rows.max() + 1], atol=2.5)


def test_a_slice_without_a_lesion_has_no_outline() -> None:
    voxels, geometry = marked(orientations()[0], LEFT)
    labels = np.zeros(SHAPE, np.int16)
    assert plane_picture("axial", voxels, geometry, (1, 1, 1), (0, 1), labels, {1: "ball"}).outlines == ()


@pytest.mark.parametrize("side", [40, 144, 700])
def test_even_noise_stays_within_the_size_of_a_thumbnail(side: int) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (side, side)).astype(np.uint8)
    content = base64.b64decode(webp_uri(noise).split(",", 1)[1])
    assert len(content) <= MAX_BYTES
    with Image.open(io.BytesIO(content)) as opened:
        assert not set(opened.info) - {"loop", "background", "timestamp", "duration"}
