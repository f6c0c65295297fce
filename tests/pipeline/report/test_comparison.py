"""Runs side by side: what is comparable, what differs, and how intervals lie."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.browser import CHROMIUM, Browser
from pipeline.errors import InputError
from pipeline.files import write_json
from pipeline.report.comparison import compare, flattened, relation
from pipeline.report.comparison_page import write_comparison
from pipeline.report.stage import write_report
from pipeline.results import Column, Results, ResultTable

MARKUP = "<script>alert(1)</script>"


@pytest.mark.parametrize(
    ("intervals", "words"),
    [
        ({"A": (1.0, 2.0), "B": (1.5, 3.0)}, "overlap"),
        ({"A": (1.0, 2.0), "B": (2.0, 3.0)}, "overlap"),
        ({"A": (1.0, 2.0), "B": (2.1, 3.0)}, "apart: A and B"),
        ({"A": (4.0, 5.0), "B": (2.1, 3.0)}, "apart: A and B"),
        ({"A": (1.0, 2.0), "B": (2.1, 3.0), "C": (1.5, 2.5)}, "apart: A and B"),
        ({"A": (1.0, 2.0), "B": None}, "no intervals to compare"),
        ({"A": (1.0, 2.0), "B": None, "C": (3.0, 4.0)}, "apart: A and C"),
    ],
)
def test_intervals_overlap_or_lie_apart(intervals: dict[str, tuple[float, float] | None], words: str) -> None:
    assert relation(intervals) == words


def test_settings_are_flattened_to_their_leaves() -> None:
    assert flattened({"a": {"b": [1, 2], "c": {}}, "d": None}) == {"a.b": "[1, 2]", "a.c": "{}", "d": "None"}


def numbers(**changes: Any) -> dict[str, Any]:
    columns = (
        Column(key="title", title="method"),
        Column(key="mae", title="MAE", unit="HU", digits=1, low_key="mae_low", high_key="mae_high"),
    )
    mae = changes.get("mae", 70.0)
    row = {"method": "pseudo_ct", "title": "pseudo-CT", "mae": mae, "mae_low": mae - 5, "mae_high": mae + 5}
    other = {"method": "mean_ct", "title": "one value", "mae": 300.0}
    table = ResultTable(key="mr_to_ct_summary", title="T", caption="", columns=columns, rows=(row, other))
    results = Results(track="mr_to_ct", headlines=(), verdicts=(), tables=(table,))
    return {
        "settings": {"name": changes.get("name", "run"), "seed": changes.get("seed", 0), "train": {"images": 10}},
        "stages": {
            "ingest": {"content_sha256": changes.get("ingest", "aa" * 32), "facts": {}},
            "train_mr_to_ct": {"content_sha256": "bb", "facts": {"images": changes.get("images", 1000)}},
        },
        "results": {"mr_to_ct": results.model_dump(mode="json")},
        "decisions": {"mr_to_ct": {"outcome": "good", "advice": "Trust this pseudo-CT", "sentence": MARKUP}},
        "test_sets": {
            "mr_to_ct": {
                "subjects": changes.get("subjects", ["sub-1", "sub-2"]),
                "images": changes.get("voxels", ["h1", "h2"]),
            }
        },
    }


def table(found: Any, key: str) -> dict[str, list[str]]:
    shown = next(table for table in found.tables if table.key == key)
    return {row[0].text: [f"{cell.text} {cell.interval}".strip() for cell in row[1:]] for row in shown.rows}


def test_only_what_differs_among_the_settings_is_listed() -> None:
    found = compare([numbers(), numbers(seed=7, name="second")])
    assert table(found, "settings") == {"seed": ["0", "7"], "name": ["run", "second"]}
    assert "2 of 3 settings differ" in next(t.caption for t in found.tables if t.key == "settings")
    assert not any(t.key == "settings" for t in compare([numbers(), numbers()]).tables)


def test_main_measures_stand_side_by_side_with_how_their_intervals_lie() -> None:
    found = table(compare([numbers(), numbers(mae=77.0), numbers(mae=90.0)]), "measures_mr_to_ct")
    assert found == {
        "pseudo-CT: MAE [HU]": [
            "70.000 [65.000, 75.000]",
            "77.000 [72.000, 82.000]",
            "90.000 [85.000, 95.000]",
            "apart: A and C, B and C",
        ]
    }


def test_lengths_of_trainings_and_content_of_data_are_compared() -> None:
    found = compare([numbers(), numbers(images=2000, ingest="cc" * 32)])
    assert table(found, "trainings")["CycleGAN, training images"] == ["1 000".replace(" ", "\u202f"), "2\u202f000"]
    assert table(found, "data")["ingest"] == ["aaaaaaaaaaaa", "cccccccccccc", "differ"]


@pytest.mark.parametrize(
    ("change", "outcome", "words"),
    [
        ({}, "good", "Tested on the same voxels (2 test subjects, 2 images or volumes)."),
        ({"subjects": ["other-1", "other-2"]}, "good", "Tested on the same voxels"),
        ({"voxels": ["x1", "x2"]}, "neutral", "The same test subjects"),
        ({"subjects": ["sub-1"], "voxels": ["h1"]}, "bad", "NOT COMPARABLE: test subjects differ. Of the first"),
        ({"subjects": ["sub-8"], "voxels": ["h8"]}, "bad", "0 of 2 are in the others too"),
        ({"subjects": [], "voxels": []}, "bad", "does not say what it was tested on"),
    ],
)
def test_runs_are_comparable_on_the_same_test_set_alone(change: dict[str, Any], outcome: str, words: str) -> None:
    footing = compare([numbers(), numbers(**change)]).footings[0]
    assert footing.outcome == outcome
    assert words in footing.sentence


def reports(folder: Path, *found: dict[str, Any]) -> list[Path]:
    places = []
    for place, content in enumerate(found):
        (folder / str(place)).mkdir(parents=True)
        write_json(folder / str(place) / "report.json", content)
        places.append(folder / str(place))
    return places


def test_a_report_of_an_older_release_is_refused_by_name_of_what_it_lacks(tmp_path: Path) -> None:
    old = numbers()
    del old["test_sets"]
    with pytest.raises(InputError, match="report 2 without test_sets"):
        write_comparison(reports(tmp_path, numbers(), old), tmp_path)


@pytest.mark.parametrize("count", [1, 27])
def test_a_comparison_is_of_two_to_twenty_six_runs(tmp_path: Path, count: int) -> None:
    with pytest.raises(InputError, match="two or more"):
        write_comparison([tmp_path] * count, tmp_path)


def test_real_reports_are_compared_and_the_page_runs_nothing(fake_run: Any, tmp_path: Path) -> None:
    folder = write_report(fake_run.workspace, fake_run.settings, fake_run.records).path(fake_run.workspace.root)
    own = json.loads((folder / "report.json").read_text())
    other = copy.deepcopy(own)
    other["settings"]["seed"] = MARKUP
    other["test_sets"]["lesions"]["images"][0] = other["test_sets"]["lesions"]["subjects"][0] = "other"
    found = write_comparison(reports(tmp_path, own, other), tmp_path / "made")
    assert [footing.outcome for footing in found.footings] == ["bad", "good"]
    page = (tmp_path / "made" / "comparison.html").read_text(encoding="utf-8")
    assert MARKUP not in page
    assert "NOT COMPARABLE" in page
    assert "sub-" not in page
    told = json.loads((tmp_path / "made" / "comparison.json").read_text())
    assert told["comparable"]["Synthetic lesions"]["outcome"] == "bad"
    assert told["tables"]["settings"] == [{"Setting": "seed", "A: planted": "0", "B: planted": MARKUP}]
    if CHROMIUM is not None:
        with Browser() as browser:
            browser.resize(400)
            browser.open(tmp_path / "made" / "comparison.html")
            assert browser.evaluate("document.documentElement.scrollWidth") <= 400
            assert browser.complaints == []


def test_test_sets_of_a_report_are_those_of_the_split(fake_run: Any) -> None:
    folder = write_report(fake_run.workspace, fake_run.settings, fake_run.records).path(fake_run.workspace.root)
    tested = json.loads((folder / "report.json").read_text())["test_sets"]
    assert tested["mr_to_ct"]["subjects"] == ["sub-0", "sub-1", "sub-2"]
    assert len(set(tested["mr_to_ct"]["images"])) == 3
    assert len(tested["lesions"]["images"]) == 6
