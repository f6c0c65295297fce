"""The contact sheet as a page: from a catalog on disk to HTML in a browser."""

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from PIL import Image

from pipeline.catalog import LOOK_ALIKES_FILE, write_catalog
from pipeline.records import StageRecord
from pipeline.report.contact_pictures import MAX_BYTES
from pipeline.report.contact_stage import ContactSheet, read_sheet
from pipeline.report.contact_view import CARDS_IN_REPORT, CARDS_ON_A_PAGE, report_view, sheet_views
from pipeline.report.stage import write_report
from pipeline.settings import FrozenSettings
from pipeline.settings_loading import validate
from pipeline.stage_runner import Stage, StageContext, run_stage
from pipeline.workspace import Workspace

MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
SHAPE, SPACING = (40, 48, 30), (4.0, 4.0, 6.0)
CHROMIUM = shutil.which("chromium")
QUIET_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
    "--v=0", "--dump-dom",
)  # fmt: skip


class NoSettings(FrozenSettings):
    """Nothing."""


class Tags(HTMLParser):
    """Every tag with its attributes, and all visible text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.raw: dict[str, str] = {}
        self.inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside in {"script", "style"}:
            self.raw[self.inside] = self.raw.get(self.inside, "") + data
        else:
            self.words.append(data)

    def all(self, tag: str, name: str = "") -> list[dict[str, str | None]]:
        return [attributes for own, attributes in self.tags if own == tag and name in str(attributes.get("class"))]

    @property
    def visible(self) -> str:
        return " ".join(" ".join(self.words).split())


@dataclass(frozen=True)
class Made:
    """A report on a catalog."""

    folder: Path
    sheet: ContactSheet

    def page(self, name: str = "contact_sheet.html") -> str:
        return (self.folder / name).read_text(encoding="utf-8")


def head(modality: str, seed: int) -> npt.NDArray[np.int16]:
    """An ellipsoid with a skull, and noise."""
    x, y, z = (np.linspace(-1.3, 1.3, size) for size in SHAPE)
    far = np.sqrt(x[:, None, None] ** 2 + y[:, None] ** 2 + z**2)
    values = {"CT": [40, 900, -1000], "MR": [600, 1000, 5]}[modality]
    noise = np.random.default_rng(seed).normal(0, 5, SHAPE)
    clean = np.select([far < 0.9, far < 1.0], values[:2], values[2])
    return np.rint(clean + (noise if modality == "CT" else abs(noise))).astype(np.int16)


def volume(folder: Path, number: int, modality: str, **facts: Any) -> dict[str, Any]:
    path = f"volumes/{number}.nii"
    affine = np.diag([*SPACING, 1.0])
    nib.save(nib.Nifti1Image(head(modality, number), affine), folder / path)
    return {
        "series_id": f"ser-{number:03d}", "subject_id": f"sub-{number:03d}", "subject_source": "file",
        "kind": "volume", "source": "nifti", "modality": modality, "body_part": "HEAD", "flags": [],
        "unit": "HU" if modality == "CT" else "signal", "shape": list(SHAPE), "spacing_mm": list(SPACING),
        "affine": affine.ravel().tolist(), "path": path, "stack_index": -1, "slice_index": -1,
        "content_sha256": f"{number:064d}",
    } | facts  # fmt: skip


def image(number: int, size: int) -> dict[str, Any]:
    return {
        "series_id": f"img-{number:03d}", "subject_id": f"sub-i{number:02d}", "subject_source": "near_duplicates",
        "kind": "image", "source": "class_folders", "flags": [], "unit": "grey", "shape": [size, size],
        "path": f"stacks/{size}.npy", "stack_index": number % 30, "slice_index": -1, "content_sha256": f"{number:064x}",
    }  # fmt: skip


def lesion(number: int, series: dict[str, Any], name: str, mask: str | None, value: int) -> dict[str, Any]:
    return {
        "lesion_id": f"les-{number:03d}", "subject_id": series["subject_id"], "series_id": series["series_id"],
        "lesion_class": name, "mask_path": mask, "mask_value": value, "volume_mm3": 960.0 if mask else None,
    }  # fmt: skip


def planted(folder: Path) -> None:
    """Two MR (one with lesions, one that ingest flagged and that looks like the first), a CT, and images."""
    for name in ("volumes", "masks", "stacks"):
        (folder / name).mkdir()
    one = volume(folder, 1, "MR", sequence="T1 " + MARKUP, volume_label="echo 2", patient_position="HFS")
    two = volume(folder, 2, "MR", sequence="T1", flags=["TILT_CORRECTED", "BRAND_NEW_FLAG"], tilt_degrees=-12.5)
    mask = np.zeros(SHAPE, np.int16)
    mask[10:14, 20:25, 15:18], mask[26:29, 20:23, 15:17] = 1, 2
    nib.save(nib.Nifti1Image(mask, np.diag([*SPACING, 1.0])), folder / "masks/1.nii")
    rng = np.random.default_rng(5)
    np.save(folder / "stacks/48.npy", rng.integers(0, 256, (30, 48, 48)).astype(np.uint8))
    np.save(folder / "stacks/64.npy", np.full((30, 64, 64), 128, np.uint8))
    images = [*(image(number, 48) for number in range(30)), *(image(number, 64) for number in range(30, 33))]
    lesions = [lesion(1, one, MARKUP, "masks/1.nii", 1), lesion(2, one, "ring", "masks/1.nii", 2)]
    lesions += [lesion(10 + place, row, "nodule", None, -1) for place, row in enumerate(images)]
    write_catalog(folder, [one, two, volume(folder, 3, "CT"), *images], lesions, [])
    pair = {"series_id": ["ser-001"], "subject_id": ["sub-001"], "other_series_id": ["ser-002"]}
    pair |= {"other_subject_id": ["sub-002"], "kind": ["near copy"], "similarity": [0.9876]}
    pl.DataFrame(pair).write_parquet(folder / LOOK_ALIKES_FILE)


def made(root: Path, fill: Callable[[Path], None]) -> Made:
    workspace = Workspace.open(root, identity_key=bytes(32))

    def body(context: StageContext) -> dict[str, Any]:
        fill(context.folder)
        return {}

    ingest = run_stage(workspace, Stage("ingest", "pipeline.catalog", body), NoSettings(), records={})
    record: StageRecord = write_report(workspace, validate({"name": "checked"}, "test"), {"ingest": ingest})
    (sheet,) = workspace.root.glob("contact_sheet/*/sheet.json")
    return Made(record.path(workspace.root), read_sheet(sheet.parent))


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made(tmp_path_factory.mktemp("checked") / "workspace", planted)


@pytest.fixture(params=["contact_sheet.html", "report.html"])
def tags(checked: Made, request: pytest.FixtureRequest) -> Tags:
    return Tags(checked.page(request.param))


def test_both_pages_show_a_card_for_every_series(tags: Tags) -> None:
    assert {card["data-series"] for card in tags.all("article", "card")} == {"ser-001", "ser-002", "ser-003"}
    assert len(tags.all("figure", "plane")) == 3 + 3 + 4
    assert tags.visible.count("6 mm") >= 3
    for text in ("echo 2", "HFS", "−12.5°", "RAS, axial slices", "40 × 48 × 30", "4 × 4 × 6 mm", "160 × 192 × 180 mm"):
        assert text in tags.visible


def test_letters_are_text_at_the_edges_and_in_the_alternative_text(tags: Tags) -> None:
    assert len(tags.all("span", "edge-left")) == len(tags.all("span", "edge-top")) == 10
    alts = [str(found["alt"]) for found in tags.all("img")]
    assert all(alts)
    axial = [alt for alt in alts if alt.startswith("Axial")]
    assert len(axial) == 4
    assert all("left edge R, right L, top A, bottom P" in alt for alt in axial)


def test_pictures_are_small_and_of_the_size_that_is_told(tags: Tags) -> None:
    for found in tags.all("img"):
        content = base64.b64decode(str(found["src"]).removeprefix("data:image/webp;base64,"))
        with Image.open(io.BytesIO(content)) as opened:
            assert str(found["alt"]).find("ser-") < 0 or (len(content) <= MAX_BYTES and max(opened.size) <= 144)
            assert opened.size[0] / opened.size[1] == pytest.approx(
                int(str(found["width"])) / int(str(found["height"])), rel=0.05
            )


def test_planted_markup_is_text_and_nothing_is_loaded(checked: Made, tags: Tags) -> None:
    assert len(tags.all("script")) == len(tags.all("style")) == 1
    assert tags.visible.count("<script>alert(1)</script>") >= 2
    for tag, attributes in tags.tags:
        assert "style" not in attributes, tag
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "action"):
            value = attributes.get(name)
            allowed = ("data:", "#", "contact_sheet.html", "report.html")
            assert value is None or value.startswith(allowed), (tag, value[:40])


def test_the_policy_names_the_page_s_own_style_and_script(tags: Tags) -> None:
    policy = next(str(tag["content"]) for tag in tags.all("meta") if "http-equiv" in tag)
    assert policy.startswith("default-src 'none'; img-src data:;")
    for kind in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(tags.raw[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_identifiers_are_unique_and_references_lead_somewhere(tags: Tags) -> None:
    identifiers = [attributes["id"] for _, attributes in tags.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    named = [attributes["aria-labelledby"] for _, attributes in tags.tags if "aria-labelledby" in attributes]
    assert set(named) <= set(identifiers)


def test_flags_of_ingest_rules_and_look_alikes_are_on_card_table_and_in_numbers(checked: Made, tags: Tags) -> None:
    cards = {card["data-series"]: str(card["data-flags"]).split() for card in tags.all("article", "card")}
    assert set(cards["ser-002"]) == {"LOOK_ALIKE", "TILT_CORRECTED", "BRAND_NEW_FLAG"}
    assert cards["ser-001"] == ["LOOK_ALIKE"]
    assert cards["ser-003"] == []
    assert "near copy: ser-001 of sub-001" in tags.visible
    assert "0.9876" in tags.visible
    numbers = json.loads(checked.page("report.json"))["quality"]
    assert numbers["series"] == 3
    assert numbers["flags"]["LOOK_ALIKE"] == 2


def test_the_most_suspicious_series_comes_first(tags: Tags) -> None:
    order = [card["data-series"] for card in tags.all("article", "card")]
    assert order == ["ser-002", "ser-001", "ser-003"]


def test_lesions_are_outlined_by_class_with_a_legend(tags: Tags) -> None:
    assert {path["class"] for path in tags.all("path", "lesion-")} == {"lesion-0", "lesion-1"}
    assert len(tags.all("span", "swatch")) == 2
    assert "largest lesion, slice 16 of 30" in tags.visible.replace("Axial, largest", "largest")


def test_images_come_as_a_group_with_sizes_and_constant_ones_counted(tags: Tags) -> None:
    assert "33 images" in tags.visible
    assert "48 × 48: 30, 64 × 64: 3" in tags.visible
    assert "3 of one grey level" in tags.visible
    assert len(tags.all("article", "group")) == 1


def test_a_catalog_without_series_has_no_sheet(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "w", identity_key=bytes(32))

    def body(context: StageContext) -> dict[str, Any]:
        write_catalog(context.folder, [], [], [])
        return {}

    ingest = run_stage(workspace, Stage("ingest", "pipeline.catalog", body), NoSettings(), records={})
    folder = write_report(workspace, validate({}, "test"), {"ingest": ingest}).path(workspace.root)
    assert not (folder / "contact_sheet.html").exists()
    assert "Contact sheet</h2>" not in (folder / "report.html").read_text(encoding="utf-8")


def many(sheet: ContactSheet, number: int) -> ContactSheet:
    """A sheet of ``number`` cards, the first tenth of them flagged."""
    flagged, plain = sheet.cards[0], sheet.cards[-1]
    cards = [
        (flagged if place < number // 10 else plain).model_copy(update={"series_id": f"ser-{place:05d}"})
        for place in range(number)
    ]
    return ContactSheet(cards=tuple(cards), groups=())


@pytest.mark.parametrize("number", [3, 60, 61, 500, 2500])
def test_the_report_holds_few_and_the_sheet_every_series_once(checked: Made, number: int) -> None:
    sheet = many(checked.sheet, number)
    shown = [card.series_id for card in report_view(sheet, []).cards]
    assert len(shown) == len(set(shown)) == min(number, CARDS_IN_REPORT)
    assert shown == sorted(shown)
    if number >= 500:
        assert shown[:45] == [card.series_id for card in sheet.cards[:45]]
        assert int(shown[-1][4:]) > 0.9 * number
    pages = sheet_views(sheet, [])
    assert len(pages) == -(-number // CARDS_ON_A_PAGE)
    assert [card for _, view in pages for card in view.cards] == list(sheet.cards)


@pytest.mark.chromium
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("name", ["contact_sheet.html", "report.html"])
def test_a_real_browser_opens_it_without_a_complaint(checked: Made, name: str, tmp_path: Path) -> None:
    browser = subprocess.run(
        [str(CHROMIUM), *QUIET_FLAGS, f"--user-data-dir={tmp_path}", (checked.folder / name).as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in browser.stderr
    assert re.search(r'id="shown"[^>]*>3 of 3 series shown<', browser.stdout)
    assert 'class="controls" role="search" aria-label="Series">' in browser.stdout, "the filters stay hidden"
