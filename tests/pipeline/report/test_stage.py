import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.records import StageRecord
from pipeline.report.stage import write_report
from pipeline.report.tables import table_view
from pipeline.results import read_results

CHROMIUM = shutil.which("chromium")
QUIET_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--v=0",
    "--dump-dom",
)
VOID = {"meta", "link", "img", "br", "input", "rect", "line", "polyline", "stop"}


class Document(HTMLParser):
    """Tags with attributes, visible text, and the text of scripts and styles; complains of tags that do not nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        self.raw[inside].append(data) if inside in self.raw else self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def visible(self) -> str:
        return " ".join(" ".join(self.text).split())


def report_folder(run: Any, only: list[str] | None = None) -> tuple[StageRecord, Path]:
    records = run.records if only is None else {name: run.records[name] for name in only}
    record = write_report(run.workspace, run.settings, records)
    return record, record.path(run.workspace.root)


@pytest.fixture(scope="session")
def page(fake_run: Any) -> str:
    return (report_folder(fake_run)[1] / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def document(page: str) -> Document:
    return Document(page)


def test_nothing_on_the_page_is_loaded_from_elsewhere(document: Document) -> None:
    for tag, attributes in document.tags:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            value = attributes.get(name)
            if value is not None:
                assert value.startswith(("data:image/png;base64,", "#")) or value == "data:,", (tag, name, value[:60])
    assert not re.search(r"url\((?!#)|@import|https?://", "".join(document.raw["style"] + document.raw["script"]))


def test_the_policy_forbids_everything_but_its_own_style_and_script(document: Document) -> None:
    policy = next(tag["content"] for tag in document.all("meta") if tag.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.split(" ", 1) for rule in str(policy).split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for kind in ("style", "script"):
        assert len(document.raw[kind]) == 1
        digest = base64.b64encode(hashlib.sha256(document.raw[kind][0].encode()).digest()).decode()
        assert rules[f"{kind}-src"] == f"'sha256-{digest}'"
    assert not any("style" in attributes for _, attributes in document.tags)


def test_planted_markup_is_shown_as_text(page: str, document: Document) -> None:
    assert len(document.all("script")) == 1
    assert not any(name.startswith("on") for _, attributes in document.tags for name in attributes)
    assert "<script>alert" not in page
    assert document.visible.count("<script>alert(1)</script>") >= 8


def test_every_image_is_a_png_with_an_alternative_text_of_its_own_size(document: Document) -> None:
    images = document.all("img")
    # lesions: 3 classes × 2 sheets, 2 copies × 2, 3 grids; pseudo-CT: 3 cases × 3 slices × 6 tiles, 3 grids
    assert len(images) == 6 + 4 + 3 + 54 + 3
    for image in images:
        assert image["alt"]
        content = base64.b64decode(str(image["src"]).removeprefix("data:image/png;base64,"))
        with Image.open(io.BytesIO(content)) as opened:
            assert opened.size == (int(str(image["width"])), int(str(image["height"])))
            assert not opened.info
    tiles = [image["alt"] for image in images if "ser-mr" in str(image["alt"])]
    assert len(set(tiles)) == 54


def test_every_chart_is_described(document: Document) -> None:
    charts = [tag for tag in document.all("svg") if tag.get("role") == "img"]
    assert all(chart.get("aria-label") for chart in charts)
    assert all(tag.get("role") == "img" or tag.get("aria-hidden") == "true" for tag in document.all("svg"))
    titles = [str(chart["aria-label"]).split(" over training images")[0] for chart in charts]
    assert {"Discriminator loss", "Cycle loss, CT → MR → CT", "brand new term", "d grad norm"} <= set(titles)
    assert not any("images per s" in title for title in titles)


def test_headings_never_skip_a_level(document: Document) -> None:
    levels = [int(tag[1]) for tag, _ in document.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_anchors_lead_somewhere_and_identifiers_are_unique(document: Document) -> None:
    identifiers = [attributes["id"] for _, attributes in document.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    for link in document.all("a"):
        assert str(link["href"])[1:] in identifiers


def test_every_number_of_the_results_is_on_the_page_with_its_interval(fake_run: Any, document: Document) -> None:
    for track in ("lesions", "mr_to_ct"):
        results = read_results(fake_run.records[f"evaluate_{track}"].path(fake_run.workspace.root))
        for table in results.tables:
            for row in table_view(table).rows:
                shown = " ".join(f"{cell.text} {cell.interval}".strip() for cell in row)
                assert " ".join(shown.split()) in document.visible
        for verdict in results.verdicts:
            assert verdict.sentence in document.visible
        for headline in results.headlines:
            assert headline.text in document.visible
    assert "12.3 [11.9, 12.8]" in document.visible
    assert "1 234.5 [1 200.0, 1 300.2]" in document.visible


def test_warnings_come_from_facts_cases_and_evaluations(document: Document) -> None:
    for text in (
        "7 input files were quarantined",
        "The source names no subjects",
        "No DICOM CT series for 3 of 3 cases: the source has no geometry",
        "Few images in class",
        "One subject only.",
    ):
        assert text in document.visible


def test_the_page_says_that_it_is_not_for_clinical_use_before_anything_else(document: Document) -> None:
    assert document.visible.index("Not for clinical use") < document.visible.index("run planted")


def test_the_numbers_file_holds_what_the_page_shows(fake_run: Any) -> None:
    numbers = json.loads((report_folder(fake_run)[1] / "report.json").read_text())
    assert numbers["results"]["lesions"]["tables"][0]["rows"][0]["kid"] == 12.34
    assert numbers["settings"]["name"] == "planted"
    assert set(numbers["stages"]) == set(fake_run.records) | {"contact_sheet"}
    assert numbers["stages"]["train_lesions"]["facts"]["images"] == 61440


def test_equal_runs_give_equal_bytes_whatever_their_speed(fake_run: Any, page: str) -> None:
    first, folder = report_folder(fake_run)
    assert report_folder(fake_run)[0].cached
    shutil.rmtree(folder)
    slower = {
        name: record.model_copy(
            update={"facts": dict(record.facts) | {"seconds": 1e6, "resumed_at_images": 512}, "cached": True}
        )
        for name, record in fake_run.records.items()
    }
    again = write_report(fake_run.workspace, fake_run.settings, slower)
    assert not again.cached
    assert again.key == first.key
    assert again.content_sha256 == first.content_sha256
    assert "81.23" not in page


@pytest.mark.parametrize(
    "only",
    [
        ["ingest"],
        ["prepare_lesions"],
        ["ingest", "prepare_lesions", "train_lesions"],
        ["prepare_lesions", "synthesize_lesions"],
        ["prepare_mr_to_ct", "translate_mr_to_ct"],
        ["evaluate_lesions"],
        [],
    ],
)
def test_any_subset_of_stages_renders(fake_run: Any, only: list[str]) -> None:
    document = Document((report_folder(fake_run, only)[1] / "report.html").read_text(encoding="utf-8"))
    anchors = {attributes.get("id") for tag, attributes in document.tags if tag == "section"}
    assert ("lesions" in anchors) == ("prepare_lesions" in only)
    assert ("pseudo-ct" in anchors) == ("prepare_mr_to_ct" in only)


def test_pictures_without_geometry_claim_neither_side_nor_hounsfield_units(grey_run: Any) -> None:
    document = Document((report_folder(grey_run)[1] / "report.html").read_text(encoding="utf-8"))
    assert not any(attributes.get("class") == "side" for _, attributes in document.tags)
    assert "sides of the patient are unknown" in document.visible
    assert "Error: pseudo-CT − CT, in grey levels" in document.visible
    assert "soft tissue" not in document.visible
    assert "errors are grey levels" in document.visible


def test_volumes_with_geometry_mark_the_right_and_keep_their_proportions(document: Document) -> None:
    assert sum(attributes.get("class") == "side" for _, attributes in document.tags) == 54
    tile = next(image for image in document.all("img") if str(image["alt"]).startswith("MR, ser-mr"))
    # rows lie 2 mm apart, columns 1 mm
    ratio = int(str(tile["height"])) / int(str(tile["width"]))
    assert 1.5 < ratio < 2.6


def test_the_error_map_is_red_where_the_pseudo_ct_is_too_high(document: Document) -> None:
    alt = "Error, ser-mr0, slice 5 of 8"
    source = next(image["src"] for image in document.all("img") if image["alt"] == alt)
    with Image.open(io.BytesIO(base64.b64decode(str(source).split(",", 1)[1]))) as opened:
        pixels = np.asarray(opened).astype(int)
    middle = pixels[pixels.shape[0] // 2, pixels.shape[1] // 2]
    assert middle[0] > middle[2] + 20


@pytest.mark.chromium
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_real_browser_opens_the_file_without_a_complaint(fake_run: Any, tmp_path: Path) -> None:
    _, folder = report_folder(fake_run)
    browser = subprocess.run(
        [str(CHROMIUM), *QUIET_FLAGS, f"--user-data-dir={tmp_path}", (folder / "report.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in browser.stderr
    assert "<title>Report &lt;script&gt;alert(1)" in browser.stdout
    assert "<button" in browser.stdout, "the page's own script did not run"
