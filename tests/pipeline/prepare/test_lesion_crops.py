import numpy as np
import pytest
from scipy import ndimage
from skimage.color import rgb2gray

from pipeline.errors import InputError
from pipeline.intensity import CT_MAP
from pipeline.prepare.lesion_crops import (
    DisplayVolume,
    crops_of_lesion,
    cut,
    display_volume,
    image_to_square,
    lesion_slices,
)
from pipeline.settings import PrepareLesionsSettings


def one_slice(image, row_mm=1.0, column_mm=1.0):
    return DisplayVolume(image[None].astype(np.float32), row_mm, column_mm)


def grid(shape, center, row_mm, column_mm):
    """Distances in mm from a center given in pixels: down and to the right."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (rows - center[0]) * row_mm, (columns - center[1]) * column_mm


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.6, 0.6), (2.0, 2.0), (0.7, 1.9)])
@pytest.mark.parametrize("center", [(60.0, 60.0), (55.3, 71.8)])
def test_a_blob_lands_in_the_middle_of_its_crop(spacing, center):
    down, right = grid((120, 130), center, *spacing)
    blob = 2 * np.exp(-(down**2 + right**2) / (2 * 6.0**2)) - 1
    crop = cut(one_slice(blob, *spacing), blob > 0, 0, 64, 1.0)
    found = ndimage.center_of_mass(crop + 1)
    assert found == pytest.approx((31.5, 31.5), abs=0.5)


@pytest.mark.parametrize("pixel_mm", [0.5, 1.0, 1.25])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.9, 1.7), (0.5, 0.5)])
def test_a_disk_of_known_diameter_has_it_in_the_crop(spacing, pixel_mm):
    diameter = 20.0
    down, right = grid((140, 140), (70, 70), *spacing)
    disk = np.where(np.hypot(down, right) <= diameter / 2, 1.0, -1.0)
    crop = cut(one_slice(disk, *spacing), disk > 0, 0, 64, pixel_mm)
    area_mm2 = (crop > 0).sum() * pixel_mm**2
    assert 2 * np.sqrt(area_mm2 / np.pi) == pytest.approx(diameter, rel=0.05)
    width, height = (crop > 0).any(axis=0).sum(), (crop > 0).any(axis=1).sum()
    assert (width * pixel_mm, height * pixel_mm) == pytest.approx((diameter, diameter), abs=2 * max(spacing))


def test_the_middle_of_the_crop_samples_the_slice_linearly():
    ramp = np.add.outer(0.01 * np.arange(60), 0.004 * np.arange(80)) - 0.7
    section = np.zeros(ramp.shape, bool)
    section[30:33, 40:43] = True
    crop = cut(one_slice(ramp, 1.0, 2.0), section, 0, 32, 1.0)
    offsets = np.arange(32) - 15.5
    expected = 0.01 * (31 + offsets)[:, None] + 0.004 * (41 + offsets / 2)[None] - 0.7
    np.testing.assert_allclose(crop, expected, atol=1e-5)


def test_beyond_the_slice_there_is_air():
    image = np.full((40, 40), 0.5)
    section = np.zeros(image.shape, bool)
    section[2, 3] = True
    crop = cut(one_slice(image), section, 0, 32, 1.0)
    assert np.all(crop[:13] == -1)  # row 2 is sampled at 15.5 + 0.5
    assert np.all(crop[:, :12] == -1)
    assert np.all(crop[14:, 13:] == 0.5)


def test_coarser_pixels_average_away_what_they_cannot_show():
    checks = np.where(np.indices((128, 128)).sum(0) % 2, 1.0, -1.0)
    section = np.zeros(checks.shape, bool)
    section[60:68, 60:68] = True
    assert np.abs(cut(one_slice(checks), section, 0, 16, 4.0)).max() < 0.05
    assert np.abs(cut(one_slice(checks), section, 0, 16, 1.0)).max() <= 1


@pytest.mark.parametrize(("sections", "wanted"), [(1, 1), (4, 4), (5, 5), (6, 5), (7, 5), (11, 5), (30, 5)])
def test_slices_are_as_many_as_wanted_and_spread_over_the_lesion(sections, wanted):
    mask = np.zeros((40, 10, 10), bool)
    mask[5 : 5 + sections, 2:8, 2:8] = True
    chosen = lesion_slices(mask, PrepareLesionsSettings(slices_per_lesion=5, min_section_px=12))
    assert len(chosen) == wanted == len(set(chosen))
    assert chosen == sorted(chosen)
    middle = 5 + (sections - 1) / 2
    assert np.mean(chosen) == pytest.approx(middle, abs=0.51)
    gaps = np.diff(chosen)
    assert gaps.size == 0 or gaps.max() <= gaps.min() + 1 + (sections > 10)


def test_small_sections_are_left_out():
    mask = np.zeros((6, 10, 10), bool)
    mask[1, 0, :11] = True  # 10 pixels
    mask[2, :3, :4] = True  # 12 pixels
    mask[3, :3, :5] = True
    settings = PrepareLesionsSettings(min_section_px=12)
    assert lesion_slices(mask, settings) == [2, 3]
    assert lesion_slices(mask[:2], settings) == []
    volume = DisplayVolume(np.zeros((6, 10, 10), np.float32), 1.0, 1.0)
    assert [index for index, _ in crops_of_lesion([volume], mask, settings)] == [2, 3]


def test_display_volumes_carry_hu_through_the_ct_map_and_name_row_and_column_spacing():
    hu = np.full((4, 5, 3), -1000, np.int16)
    hu[3, 0, 2] = 40  # right, posterior, superior
    display = display_volume(hu, np.diag([0.7, 1.9, 3.0, 1.0]), "CT", (1.0, 99.0))
    assert display.slices.shape == (3, 5, 4)
    assert display.slices[2, 4, 0] == CT_MAP.encode(np.array(40.0))
    assert (display.row_mm, display.column_mm) == pytest.approx((1.9, 0.7))


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_pictures_without_a_declared_range_are_refused(dtype):
    with pytest.raises(InputError, match="declared intensity range"):
        image_to_square(np.zeros((32, 32), dtype), 32)


def test_an_eight_bit_picture_of_the_right_size_is_only_scaled():
    pixels = np.arange(256, dtype=np.uint8)[: 16 * 16].reshape(16, 16)
    np.testing.assert_allclose(image_to_square(pixels, 16), pixels / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("shape", [(20, 32), (32, 20), (31, 32)])
def test_pictures_that_are_not_square_are_padded_evenly_with_their_darkest_level(shape):
    rng = np.random.default_rng(0)
    pixels = rng.integers(30, 255, shape).astype(np.uint8)
    pixels[0, 0] = 7
    square = image_to_square(pixels, 32)
    top, left = ((32 - side) // 2 for side in shape)
    inner = square[top : top + shape[0], left : left + shape[1]]
    np.testing.assert_allclose(inner, pixels / 127.5 - 1, atol=1e-6)
    border = np.ones(square.shape, bool)
    border[top : top + shape[0], left : left + shape[1]] = False
    assert np.allclose(square[border], 7 / 127.5 - 1)


@pytest.mark.parametrize("size_px", [32, 64, 128])
def test_resizing_keeps_places_and_levels(size_px):
    pixels = np.zeros((100, 100), np.uint8)
    pixels[20:40, 60:90] = 255
    square = image_to_square(pixels, size_px)
    assert square.shape == (size_px, size_px)
    expected = (29.5 + 0.5) * size_px / 100 - 0.5, (74.5 + 0.5) * size_px / 100 - 0.5
    assert ndimage.center_of_mass(square + 1) == pytest.approx(expected, abs=0.5)
    assert float((square + 1).mean()) == pytest.approx(2 * 0.06, rel=0.1)
    assert square.min() >= -1
    assert square.max() <= 1


def test_color_pictures_become_luminance_and_transparency_is_ignored():
    color = np.random.default_rng(1).integers(0, 256, (32, 32, 4)).astype(np.uint8)
    expected = rgb2gray(color[..., :3]) * 2 - 1
    np.testing.assert_allclose(image_to_square(color, 32), expected, atol=1e-6)
