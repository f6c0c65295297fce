"""Groups of images without geometry: sizes, odd ones, grey levels; and the small histograms of the contact sheet."""

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from PIL import Image

from pipeline.catalog import LESION_SCHEMA, QUARANTINE_SCHEMA, SERIES_SCHEMA, Catalog
from pipeline.report.histograms import HEIGHT, WIDTH, histogram
from pipeline.report.image_groups import COLUMNS, MAX_SHEET_BYTES, SHOWN, TILE_PX, image_groups
from pipeline.report.pictures import Bytes


def catalog_of(
    folder: Path, stack: npt.NDArray[Any], modality: str | None = None
) -> tuple[Catalog, list[dict[str, Any]]]:
    (folder / "stacks").mkdir(exist_ok=True)
    np.save(folder / "stacks" / "a.npy", stack)
    rows = [
        {
            "series_id": f"ser-{number:04d}",
            "subject_id": f"sub-{number // 2}",
            "modality": modality,
            "shape": list(stack.shape[1:]),
            "path": "stacks/a.npy",
            "stack_index": number,
        }
        for number in range(len(stack))
    ]
    empty = [pl.DataFrame(schema=schema) for schema in (SERIES_SCHEMA, LESION_SCHEMA, QUARANTINE_SCHEMA)]
    return Catalog(folder, *empty), rows


def pixels_of(uri: str) -> Bytes:
    with Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))) as opened:
        return np.asarray(opened.convert("L"))


def noise(number: int, rows: int = 40, columns: int = 40) -> Bytes:
    return np.random.default_rng(7).integers(90, 110, (number, rows, columns)).astype(np.uint8)


def test_groups_are_classes_and_modalities(tmp_path: Path) -> None:
    catalog, rows = catalog_of(tmp_path, noise(6))
    rows[5]["modality"] = "CT"
    classes = {row["series_id"]: "glioma" for row in rows[:3]} | {rows[5]["series_id"]: "glioma"}
    groups = image_groups(catalog, rows, classes)
    assert [(group.title, group.count) for group in groups] == [("glioma", 3), ("glioma, CT", 1), ("no class", 2)]
    assert groups[0].subjects == 2
    assert groups[0].sizes == (("40 × 40", 3),)
    assert groups[0].unlike is None, "all are shown anyway"


def test_the_odd_image_leads_the_unlike_ones_and_constant_ones_are_counted(tmp_path: Path) -> None:
    stack = noise(60)
    stack[41] = 255
    catalog, rows = catalog_of(tmp_path, stack)
    (group,) = image_groups(catalog, rows, {})
    assert group.constant == 1
    assert group.sample.count == SHOWN
    assert group.unlike is not None
    first = pixels_of(group.unlike.uri)[:TILE_PX, :TILE_PX]
    assert first.mean() > 240
    others = pixels_of(group.unlike.uri)[:TILE_PX, TILE_PX + 8 : 2 * TILE_PX]
    assert others.mean() < 120


def test_images_keep_their_proportions(tmp_path: Path) -> None:
    stack = np.full((1, 20, 60), 200, np.uint8)
    catalog, rows = catalog_of(tmp_path, stack)
    tile = pixels_of(image_groups(catalog, rows, {})[0].sample.uri)[:TILE_PX, :TILE_PX]
    bright = np.flatnonzero(tile[:, TILE_PX // 2] > 100)
    assert len(bright) == pytest.approx(TILE_PX / 3, abs=2)
    assert (tile[TILE_PX // 2] > 100).all()


def test_color_is_shown_as_grey(tmp_path: Path) -> None:
    stack = np.zeros((2, 30, 30, 3), np.uint8)
    stack[..., 0] = 240
    catalog, rows = catalog_of(tmp_path, stack)
    (group,) = image_groups(catalog, rows, {})
    assert group.sizes == (("30 × 30 × 3", 2),)
    assert pixels_of(group.sample.uri)[5:60, 5:60].mean() == pytest.approx(80, abs=4)


def test_a_sheet_of_noise_stays_small(tmp_path: Path) -> None:
    stack = np.random.default_rng(1).integers(0, 256, (40, 64, 64)).astype(np.uint8)
    catalog, rows = catalog_of(tmp_path, stack)
    (group,) = image_groups(catalog, rows, {})
    assert group.unlike is not None
    for sheet in (group.sample, group.unlike):
        assert len(base64.b64decode(sheet.uri.split(",", 1)[1])) <= MAX_SHEET_BYTES
        assert sheet.width == COLUMNS * (TILE_PX + 4) - 4


def heights(path: str) -> list[float]:
    return [HEIGHT - float(top) for top in re.findall(r"V([\d.]+)H", path)]


def test_bars_are_as_high_as_the_roots_of_counts() -> None:
    shown = heights(histogram([0, 1, 4, 9, 9], (0, 5), (), "Counts").path)
    assert np.allclose(np.array(shown) / shown[-1], [0, 1 / 3, 2 / 3, 1, 1], atol=0.01)
    assert shown[-1] == pytest.approx(HEIGHT / 1.15, abs=0.1)


def test_one_tall_bin_is_cut_so_that_the_others_are_seen() -> None:
    shown = heights(histogram([10**6, 100, 25], (0, 3), (), "Counts").path)
    assert shown[0] == HEIGHT
    assert shown[1] > 0.8 * HEIGHT
    assert shown[2] == pytest.approx(shown[1] / 2, abs=0.1)


def test_marks_lie_where_their_values_do_and_those_outside_are_left_out() -> None:
    shown = histogram([1] * 4, (-1000, 1000), ((-1000, "air"), (0, "water"), (3000, "metal")), "HU")
    assert [(mark.text, mark.place) for mark in shown.marks] == [("air", 0), ("water", WIDTH / 2)]
    assert "−1000" in shown.description


def test_crowded_marks_go_on_two_rows() -> None:
    shown = histogram([1] * 4, (0, 100), ((1, "1 %"), (5, "50 %"), (99, "99 %")), "Signal")
    assert [mark.row for mark in shown.marks] == [0, 1, 0]


@pytest.mark.parametrize("counts", [[0] * 8, [5] + [0] * 7, [3]])
def test_empty_and_single_bins_are_drawn(counts: list[int]) -> None:
    shown = heights(histogram(counts, (0, 1), (), "Counts").path)
    assert len(shown) == len(counts)
    assert all(0 <= height <= HEIGHT for height in shown)
