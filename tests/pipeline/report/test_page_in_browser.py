"""The page as a reader meets it: tables, keyboard, narrow and dark screens, paper."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.browser import CHROMIUM, Browser
from pipeline.export.csv_cells import inert_cell
from pipeline.results import read_results

pytestmark = [pytest.mark.chromium, pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")]
CASES = "document.querySelector('table[data-name=cases]')"
ROWS = f"[...{CASES}.tBodies[0].rows]"


@pytest.fixture
def browser(page_browser: Browser) -> Iterator[Browser]:
    """The page as it was opened: wide, light, on a screen."""
    yield page_browser
    page_browser.prefer()
    page_browser.resize(1280)


def shown_errors(browser: Browser) -> list[float]:
    script = f"{ROWS}.filter((row) => !row.hidden).map((row) => Number(row.cells[1].dataset.sort))"
    return list(browser.evaluate(script))


def tool(text: str) -> str:
    tools = f"[...{CASES}.closest('.result').querySelectorAll('.table-tools button')]"
    return f"{tools}.find((button) => button.textContent.includes('{text}'))"


def test_long_tables_fold_and_sorting_sorts_every_row(browser: Browser) -> None:
    assert shown_errors(browser) == [10.5 - case for case in range(12)]
    heading = f"{CASES}.tHead.rows[0].cells[1]"
    browser.evaluate(f"{heading}.querySelector('button').focus()")
    for direction, wanted in (
        ("ascending", [-18.5 + case for case in range(12)]),
        ("descending", [10.5 - case for case in range(12)]),
    ):
        browser.press("Enter")
        assert browser.evaluate(f"{heading}.getAttribute('aria-sort')") == direction
        assert shown_errors(browser) == wanted
    assert browser.evaluate(f"{CASES}.querySelectorAll('[aria-sort]').length") == 1
    browser.evaluate(f"{tool('Show all 30 rows')}.click()")
    assert len(shown_errors(browser)) == 30
    assert browser.evaluate(f"{tool('Show the first')}.getAttribute('aria-expanded')") == "true"
    browser.evaluate(f"{tool('Show the first 12 rows')}.click()")
    assert len(shown_errors(browser)) == 12


_SAVED = """(async () => {
  const made = [];
  const [create, click] = [URL.createObjectURL, HTMLAnchorElement.prototype.click];
  URL.createObjectURL = (blob) => { made.push(blob); return "blob:none"; };
  HTMLAnchorElement.prototype.click = function () { made.push(this.download); };
  BUTTON.click();
  [URL.createObjectURL, HTMLAnchorElement.prototype.click] = [create, click];
  return made[1] + "|" + new TextDecoder("utf-8", { ignoreBOM: true }).decode(await made[0].arrayBuffer());
})()"""
"""What a click on the button would save: name and content."""


def test_a_saved_table_is_whole_and_runs_nothing_in_a_spreadsheet(fake_run: Any, browser: Browser) -> None:
    browser.evaluate(f"{CASES}.tHead.rows[0].cells[1].querySelector('button').click()")
    text = browser.evaluate(_SAVED.replace("BUTTON", tool("Save as CSV")))
    name, content = text.split("|", 1)
    assert name == "cases.csv"
    assert content.startswith("\ufeff")
    rows = list(csv.reader(io.StringIO(content.removeprefix("\ufeff"))))
    assert rows[0] == ["'=Note", "Error [HU]", "Error [HU], lower end", "Error [HU], upper end"]
    table = next(table for table in _tables(fake_run) if table["key"] == "cases")
    wanted = [
        [inert_cell(str(row["note"])), *(repr(float(row[name])) for name in ("error", "low", "high"))]
        for row in table["rows"]
    ]
    assert sorted(rows[1:]) == sorted(wanted)
    assert sum(row[0].startswith("'") for row in rows[1:]) >= 20


def _tables(fake_run: Any) -> list[dict[str, Any]]:
    folder = fake_run.records["evaluate_mr_to_ct"].path(fake_run.workspace.root)
    tables: list[dict[str, Any]] = [table.model_dump() for table in read_results(folder).tables]
    return tables


def test_every_table_can_be_saved(browser: Browser) -> None:
    counts = browser.evaluate(
        "[document.querySelectorAll('table').length, "
        "[...document.querySelectorAll('.table-tools button')].filter((b) => b.textContent === 'Save as CSV').length]"
    )
    assert counts[0] == counts[1] > 4


@pytest.mark.parametrize("width", [1280, 768, 400, 320])
def test_the_page_never_scrolls_sideways(browser: Browser, width: int) -> None:
    browser.resize(width)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


_CONTRAST = """(() => {
  const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const parse = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const poor = [];
  let count = 0;
  const paper = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  for (const element of document.body.querySelectorAll("*")) {
    const words = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!words || !element.checkVisibility()) continue;
    if (element.closest("script, style, .screen, .tile, .hung, .hidden, .skip")) continue;
    const style = getComputedStyle(element);
    const ink = parse(element instanceof SVGElement ? style.fill : style.color);
    const [one, two] = [luminance(ink), luminance(paper(element))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (two + 0.05);
    count += 1;
    if (ratio < 4.5) poor.push(`${element.tagName}.${element.getAttribute("class")}: ${ratio.toFixed(2)}`);
  }
  return [count, [...new Set(poor)]];
})()"""


@pytest.mark.parametrize(("medium", "scheme"), [("", "light"), ("", "dark"), ("print", "light"), ("print", "dark")])
def test_words_stand_out_from_what_they_stand_on(browser: Browser, medium: str, scheme: str) -> None:
    browser.prefer(medium, prefers_color_scheme=scheme)
    paper = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (medium == "print" or scheme == "light")
    count, poor = browser.evaluate(_CONTRAST)
    assert count > 150
    assert poor == []


def test_nothing_moves_for_readers_who_ask_for_that(browser: Browser) -> None:
    behavior = "getComputedStyle(document.documentElement).scrollBehavior"
    assert browser.evaluate(behavior) == "smooth"
    browser.prefer(prefers_reduced_motion="reduce")
    assert browser.evaluate(behavior) == "auto"
    assert browser.evaluate("document.getAnimations().length") == 0


def test_paper_shows_every_row_and_every_still_and_no_buttons(browser: Browser, tmp_path: Path) -> None:
    browser.prefer("print")
    visible = "(selector) => [...document.querySelectorAll(selector)].filter((e) => e.checkVisibility()).length"
    assert browser.evaluate(f"({visible})('.table-tools, .viewer, nav, .skip')") == 0
    assert browser.evaluate(f"({visible})('table[data-name=cases] tbody tr')") == 30
    browser.print_pdf(tmp_path / "report.pdf")
    content = (tmp_path / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF-")
    pages = len(re.findall(rb"/Type\s*/Page\b", content))
    assert 4 <= pages <= 30
    assert len(re.findall(rb"/Subtype\s*/Image", content)) > 20


def test_no_table_is_wider_than_a_sheet_of_paper(browser: Browser) -> None:
    browser.resize(718)  # A4 with margins of 1 cm
    browser.prefer("print")
    browser.evaluate(
        "document.querySelectorAll('table[data-name=cases] tr').forEach((row) => {"
        " for (let more = 0; more < 10; more += 1) row.append(row.lastElementChild.cloneNode(true)); })"
    )  # 11 figures with intervals, as the table of a pseudo-CT has
    wide = "[...document.querySelectorAll('table')].filter((e) => e.scrollWidth > 719).map((e) => e.dataset.name)"
    assert browser.evaluate(wide) == []


def test_every_control_can_be_reached_with_tab_and_shows_where_it_is(browser: Browser) -> None:
    browser.evaluate("document.querySelector('.skip').focus(); document.activeElement.dataset.reached = 1")
    seen = set()
    for _ in range(400):
        browser.press("Tab")
        found = browser.evaluate(
            "(() => { const e = document.activeElement; if (e === document.body) return null; "
            "const s = getComputedStyle(e); e.dataset.reached = 1; "
            "return [e.tagName, s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0]; })()"
        )
        if found is None:
            break
        seen.add((found[0], bool(found[1])))
    assert {name for name, _ in seen} >= {"A", "BUTTON", "INPUT", "SELECT", "SUMMARY", "DIV"}
    assert all(outlined for _, outlined in seen), seen
    controls = "[...document.querySelectorAll('button, input, select, summary, a')]"
    assert browser.evaluate(f"{controls}.filter((e) => e.checkVisibility() && !e.dataset.reached).length") == 0


def test_planted_markup_runs_nothing(browser: Browser) -> None:
    assert browser.complaints == []
    assert browser.requests == []
    assert browser.evaluate("document.scripts.length") == 1
