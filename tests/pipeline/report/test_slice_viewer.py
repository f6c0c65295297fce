"""Voxels in the page: packing without loss, places in millimeters, and the viewer in a real browser."""

import base64
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.browser import CHROMIUM, Browser
from pipeline.prepared_set import read_volume_set, to_slices
from pipeline.report.case_pictures import ERROR_LIMITS
from pipeline.report.case_slices import body_box
from pipeline.report.packed_slices import packed
from pipeline.report.pictures import diverging
from pipeline.report.slice_viewer import PRESETS, Place, SliceViewer, averaged, slice_viewer
from pipeline.report.stage import write_report

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


def unpacked(text: str, rows: int, columns: int) -> npt.NDArray[np.int64]:
    """What the page's script does, voxel by voxel."""
    content = zlib.decompress(base64.b64decode(text))
    count = rows * columns
    steps = np.zeros((rows + 1, columns + 1), np.int64)
    for place in range(count):
        row, column = divmod(place, columns)
        folded = content[place] | content[count + place] << 8
        left, upper, corner = steps[row + 1, column], steps[row, column + 1], steps[row, column]
        low, high = min(left, upper), max(left, upper)
        foreseen = low if corner >= high else high if corner <= low else left + upper - corner
        steps[row + 1, column + 1] = (foreseen + ((folded >> 1) ^ -(folded & 1))) & 0xFFFF
    return steps[1:, 1:]


@pytest.mark.parametrize(("low", "high"), [(-1024, 3072), (-32768, 32768), (7, 8)])
def test_whole_numbers_come_back_exactly(low: int, high: int) -> None:
    volume = np.random.default_rng(0).integers(low, high, (3, 11, 7)).astype(np.int16)
    stored = packed(volume)
    for plane, text in zip(volume, stored.slices, strict=True):
        assert (unpacked(text, 11, 7) * stored.step + stored.low == plane).all()


@pytest.mark.parametrize("step", [2, 4, 128])
def test_rounding_is_off_by_half_a_step_at_most(step: int) -> None:
    volume = np.random.default_rng(1).integers(-1024, 3072, (2, 9, 8)).astype(np.int16)
    stored = packed(volume, step)
    found = np.stack([unpacked(text, 9, 8) for text in stored.slices]) * step + stored.low
    assert abs(found - volume).max() == step / 2


def test_smooth_slices_take_less_room_than_noise() -> None:
    rows, columns = np.mgrid[:128, :128]
    smooth = (rows + 2 * columns)[None].astype(np.int16)
    noise = np.random.default_rng(2).integers(-1024, 3072, (1, 128, 128)).astype(np.int16)
    assert 40 * packed(smooth).size < packed(noise).size


def test_display_voxels_lie_where_the_affine_of_the_grid_puts_them() -> None:
    rng = np.random.default_rng(3)
    affine, shape = np.vstack([rng.normal(size=(3, 4)), [0, 0, 0, 1]]), (8, 6, 7)
    indices = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    world = indices @ affine[:3, :3].T + affine[:3, 3]
    shown = np.stack([to_slices(world[..., axis]) for axis in range(3)], -1)
    place = Place.of_display(affine.ravel().tolist(), shown.shape, (1.0, 1.0, 1.0)).cut((1, 5, 2, 6), 2)
    assert place.affine is not None
    for slice_, row, column in [(0, 0, 0), (3, 1, 1), (6, 0, 1)]:
        block = shown[slice_, 1 + 2 * row : 3 + 2 * row, 2 + 2 * column : 4 + 2 * column].mean(axis=(0, 1))
        assert place.affine[:3] @ [column, row, slice_, 1] == pytest.approx(block)


def test_means_of_blocks_keep_the_mean() -> None:
    volume = np.random.default_rng(4).integers(0, 100, (2, 8, 6)) * 4
    coarse = averaged(volume, 2)
    assert coarse.shape == (2, 4, 3)
    assert coarse.mean() == pytest.approx(volume.mean(), abs=0.5)
    assert averaged(np.full((1, 5, 5), 9), 2).tolist() == [[[9, 9], [9, 9]]]
    assert averaged(np.array([[[1.6]]]), 4).tolist() == [[[2]]]


def _viewer(room: int) -> SliceViewer:
    voxels = np.random.default_rng(5).integers(-1000, 1000, (8, 32, 32)).astype(np.int16)
    volumes = {"mr": ("MR", voxels), "pseudo_ct": ("Pseudo-CT", voxels), "ct": ("CT", voxels)}
    place = Place(np.eye(4), (3.0, 1.0, 1.0))
    return slice_viewer(volumes, (0, 32, 0, 32), place, unit="HU", oriented=True, error_limit=500, room=room)


def test_less_room_gives_coarser_voxels_and_says_so() -> None:
    found = [_viewer(room) for room in (10**7, 32_000, 8_000, 2_000, 1)]
    assert (found[0].factor, found[0].step) == (1, 1)
    assert all(finer.size > coarser.size for finer, coarser in pairwise(found[:4]))
    assert all(viewer.size <= room for viewer, room in zip(found, (10**7, 32_000, 8_000), strict=False))
    assert (found[-1].factor, found[-1].step) == (8, 4)
    assert found[-1].place.spacing_mm == (3.0, 8.0, 8.0)


def test_the_error_stands_behind_the_ct_and_is_not_stored() -> None:
    viewer = _viewer(10**7)
    assert [key for key, _ in viewer.panels] == ["mr", "pseudo_ct", "ct", "error"]
    assert [volume.key for volume in viewer.volumes] == ["mr", "pseudo_ct", "ct"]


@pytest.fixture(scope="module")
def browser(page_browser: Browser) -> Browser:
    page_browser.evaluate("document.querySelector('.viewer').scrollIntoView({block: 'center', behavior: 'instant'})")
    page_browser.wait("document.querySelector('.viewer').dataset.shown")
    return page_browser


def shown(browser: Browser) -> list[str]:
    return str(browser.evaluate("document.querySelector('.viewer').dataset.shown")).split()


def settle(browser: Browser, wanted: str) -> None:
    browser.wait(f"document.querySelector('.viewer').dataset.shown.startsWith({wanted!r})", 5)


def pixels(browser: Browser, panel: str) -> npt.NDArray[np.uint8]:
    script = f"""(() => {{
      const canvas = document.querySelector('.viewer canvas[data-panel="{panel}"]');
      const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", {{ willReadFrequently: true }});
      copy.drawImage(canvas, 0, 0);
      const data = copy.getImageData(0, 0, canvas.width, canvas.height).data;
      return [canvas.width, canvas.height, ...data];
    }})()"""
    width, height, *values = browser.evaluate(script)
    return np.asarray(values, np.uint8).reshape(height, width, 4)[..., :3]


def middle_of(browser: Browser, panel: str) -> tuple[float, float]:
    box = f"document.querySelector('.viewer canvas[data-panel=\"{panel}\"]').getBoundingClientRect()"
    x, y = browser.evaluate(f"[{box}.x + {box}.width / 2, {box}.y + {box}.height / 2]")
    return x, y


@pytest.fixture
def focused(browser: Browser) -> Browser:
    """The slider has the focus; the middle slice in the soft tissue window."""
    browser.evaluate("document.querySelector('.viewer .viewer-slice').focus()")
    browser.press("Home")
    browser.press("2")
    settle(browser, "axial 0")
    return browser


@pytest.mark.chromium
@needs_chromium
def test_the_script_shows_the_voxels_that_prepare_wrote(fake_run: Any, focused: Browser) -> None:
    for _ in range(5):
        focused.press("ArrowUp")
    settle(focused, "axial 5")
    root = fake_run.workspace.root
    prepared = read_volume_set(fake_run.records["prepare_mr_to_ct"].path(root))
    series = focused.evaluate("document.querySelector('.case .mono').textContent")
    mr = next(row for row in prepared.volumes("MR", ["test"]) if row["series_id"] == series)
    top, bottom, left, right = body_box(prepared.mask(mr))
    ct = prepared.voxels(prepared.row(mr["pair_volume"]))[5, top:bottom, left:right]
    made = fake_run.records["translate_mr_to_ct"].path(root) / "prepared" / f"{series}.npy"
    pseudo_ct = np.load(made)[5, top:bottom, left:right]
    away = np.ones(ct.shape, bool)  # the cross is drawn over the middle
    middle = [int(place) for place in shown(focused)[2:4]]
    away[middle[0] - 3 : middle[0] + 4, middle[1] - 3 : middle[1] + 4] = False
    for number, window in enumerate(PRESETS["HU"], 1):
        focused.press(str(number))
        focused.wait(f"document.querySelector('.viewer').dataset.shown.endsWith(' {number - 1}')")
        for panel, values in (("ct", ct), ("pseudo_ct", pseudo_ct)):
            grey = pixels(focused, panel)
            assert (abs(grey[..., 0].astype(int) - window.apply(values))[away] <= 1).all()
    error = diverging(pseudo_ct.astype(float) - ct, ERROR_LIMITS["HU"])
    assert (abs(pixels(focused, "error").astype(int) - error)[away] <= 2).all()


@pytest.mark.chromium
@needs_chromium
def test_keys_move_as_the_page_says(focused: Browser) -> None:
    for key, wanted in [("End", 7), ("ArrowDown", 6), ("ArrowLeft", 5), ("ArrowRight", 6), ("PageDown", 0)]:
        focused.press(key)
        settle(focused, f"axial {wanted}")
    focused.press("PageUp")
    settle(focused, "axial 7")
    before = [int(place) for place in shown(focused)[1:4]]
    focused.press("ArrowLeft", shift=True)
    settle(focused, f"axial 7 {before[1]} {before[2] - 1}")
    focused.press("ArrowDown", shift=True)
    settle(focused, f"axial 7 {before[1] + 1} {before[2] - 1}")
    assert "slice 8 of 8, S 7.0 mm" in focused.evaluate(
        "document.querySelector('.viewer-slice').getAttribute('aria-valuetext')"
    )


@pytest.mark.chromium
@needs_chromium
def test_the_wheel_scrolls_slices_and_then_the_page(focused: Browser) -> None:
    x, y = middle_of(focused, "ct")
    focused.wheel(x, y, -100)
    settle(focused, "axial 1")
    top = focused.evaluate("scrollY")
    focused.wheel(x, y, 100)
    settle(focused, "axial 0")
    assert focused.evaluate("scrollY") == top
    focused.wheel(x, y, 100)
    focused.wait(f"scrollY > {top}")
    focused.evaluate("document.querySelector('.viewer').scrollIntoView({block: 'center', behavior: 'instant'})")


@pytest.mark.chromium
@needs_chromium
def test_values_and_place_under_the_pointer_are_read_out(focused: Browser) -> None:
    focused.press("End")
    settle(focused, "axial 7")
    for _ in range(3):
        focused.press("ArrowDown")
    settle(focused, "axial 4")
    focused.point(*middle_of(focused, "pseudo_ct"))
    focused.wait("document.querySelector('.viewer .readout').textContent.includes('CT 40 HU')")
    text = focused.evaluate("document.querySelector('.viewer .readout').textContent")
    lowest_first = "pseudo-CT 100 HU · CT 40 HU · error +60 HU"
    assert lowest_first in text
    assert "S 4.0 mm" in text
    assert "MR 0.20" in text


@pytest.mark.chromium
@needs_chromium
def test_other_planes_show_the_same_voxels(focused: Browser) -> None:
    choose = "(plane) => { const list = document.querySelector('.viewer-plane'); list.value = plane; " \
        "list.dispatchEvent(new Event('change')); }"  # fmt: skip
    slices, height = 8, pixels(focused, "ct").shape[0]
    focused.evaluate(f"({choose})('coronal')")
    settle(focused, "coronal")
    assert pixels(focused, "ct").shape[0] == slices
    letters = "[...document.querySelectorAll('.viewer .screen')][0].innerText.split(/\\s+/).join('')"
    assert focused.evaluate(letters) == "RLSI"
    focused.evaluate(f"({choose})('sagittal')")
    settle(focused, "sagittal")
    assert pixels(focused, "ct").shape[:2] == (slices, height)
    assert focused.evaluate(letters) == "APSI"
    focused.evaluate(f"({choose})('axial')")
    settle(focused, "axial")
    assert focused.evaluate(letters) == "RLAP"


@pytest.mark.chromium
@needs_chromium
def test_the_viewer_names_its_parts_and_complains_of_nothing(browser: Browser) -> None:
    names = browser.evaluate(
        "[...document.querySelectorAll('.viewer canvas')].map((c) => c.getAttribute('aria-label'))"
    )
    assert all(name is None or " slice " in name for name in names)
    assert sum(name is not None for name in names) >= 4
    pressed = "[...document.querySelectorAll('.viewer')[0].querySelectorAll('button')].map((b) => b.ariaPressed)"
    assert sorted(browser.evaluate(pressed)) == ["false"] * 4 + ["true"]
    assert browser.complaints == []
    assert browser.requests == []


def test_maps_are_painted_on_their_own_scale_and_read_out_in_their_unit(browser: Browser) -> None:
    last = "[...document.querySelectorAll('.viewer')].at(-1)"
    browser.evaluate(f"{last}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
    browser.wait(f"{last}.dataset.shown", 10)
    text = browser.evaluate(f"{last}.querySelector('.readout').textContent")
    assert text.endswith("uncertainty 75 HU · cycle residual 0.080 MR units")
    for key, grey in (("uncertainty", 64), ("cycle_residual", 41)):  # 255 · 75 / 300 and 255 · 80 / 500
        pixel = f"{last}.querySelector('[data-panel={key}]').getContext('2d').getImageData(0, 0, 1, 1).data[0]"
        assert browser.evaluate(pixel) == grey


def test_without_a_script_the_stills_are_open_and_the_viewer_is_not_there(fake_run: Any) -> None:
    folder = write_report(fake_run.workspace, fake_run.settings, fake_run.records).path(fake_run.workspace.root)
    page = Path(folder / "report.html").read_text(encoding="utf-8")
    assert page.count('<details class="stills" open>') == 3
    viewers = page.count('<div class="viewer" ')
    assert viewers == 3
    assert page.count('hidden>\n  <div class="viewer-bar">') == viewers
