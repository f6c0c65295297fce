import base64
import io

import numpy as np
import pytest
from PIL import Image

from pipeline.report.case_pictures import BONE, ERROR_LIMITS, GREY_WINDOW, SOFT_TISSUE
from pipeline.report.pictures import MAX_SIDE_PX, display_size, diverging, montage, picture, resized


def test_windows_put_their_ends_at_black_and_white() -> None:
    assert SOFT_TISSUE.apply(np.array([-1000, -160, 40, 240, 3000])).tolist() == [0, 0, 128, 255, 255]
    assert BONE.apply(np.array([-700, 300, 1300])).tolist() == [0, 128, 255]
    grey = np.arange(256)
    assert GREY_WINDOW.apply(grey).tolist() == grey.tolist()


def test_errors_are_blue_below_white_at_and_red_above_zero() -> None:
    limit = ERROR_LIMITS["HU"]
    low, zero, high, beyond = diverging(np.array([-limit, 0, limit, 10 * limit]), limit).astype(int)
    assert low[2] > low[0] + 100
    assert high[0] > high[2] + 100
    assert zero.min() > 240
    assert beyond.tolist() == high.tolist()


def test_error_colors_grow_darker_evenly_on_both_sides() -> None:
    weights = np.array([0.2126, 0.7152, 0.0722])
    luma = diverging(np.linspace(-1, 1, 101), 1.0) @ weights
    assert (np.diff(luma[:51]) > -1e-9).all()
    assert (np.diff(luma[50:]) < 1e-9).all()


@pytest.mark.parametrize(
    ("rows", "columns", "row_mm", "column_mm"),
    [(100, 100, 1, 1), (1000, 500, 1, 1), (100, 100, 2, 1), (60, 400, 0.5, 1.5), (3, 2, 1, 1)],
)
def test_slices_are_shown_with_true_proportions(rows: int, columns: int, row_mm: float, column_mm: float) -> None:
    width, height = display_size(rows, columns, row_mm, column_mm)
    assert max(width, height) <= MAX_SIDE_PX
    assert width / height == pytest.approx(columns * column_mm / (rows * row_mm), rel=0.03)


def test_small_slices_keep_their_voxels() -> None:
    assert display_size(64, 48, 1, 1) == (48, 64)
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert resized(pixels, 4, 3) is pixels


def test_a_montage_holds_its_tiles_in_reading_order() -> None:
    tiles = [np.full((8, 8), value, np.uint8) for value in (10, 20, 30)]
    sheet = montage(tiles, 2, 16)
    assert sheet.shape == (36, 36)
    assert (sheet[:16, :16] == 10).all()
    assert (sheet[:16, 20:] == 20).all()
    assert (sheet[20:, :16] == 30).all()
    assert montage(tiles[:1], 4, 16).shape == (16, 16)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_pixels_survive_the_way_into_the_page(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    shown = picture(pixels, "noise")
    content = base64.b64decode(shown.uri.removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(content)) as opened:
        assert np.array_equal(np.asarray(opened), pixels)
    assert (shown.width, shown.height, shown.alt) == (7, 5, "noise")
