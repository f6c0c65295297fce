import re

import pytest

from pipeline.export.csv_cells import inert_cell
from pipeline.export.data_card import card_markdown
from pipeline.export.metadata import class_folders


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_formula_starts_are_made_inert(text: str) -> None:
    assert inert_cell(text) == "'" + text


@pytest.mark.parametrize("text", ["", "glioma", "a=b", "class-1", "'quoted"])
def test_plain_text_stays(text: str) -> None:
    assert inert_cell(text) == text


def test_folders_are_safe_and_distinct_whatever_the_classes_are_called() -> None:
    classes = ["a/b", "a_b", "..", ".", "", "A", "a", "con:", "x" * 300, "größe", "a\\b", "-rf", "ok.", "meningioma"]
    names = class_folders(classes)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}", name) for name in names.values())
    assert len({name.lower() for name in names.values()}) == len(classes)
    assert names["meningioma"] == "meningioma"


def test_class_names_cannot_start_markup_in_the_card() -> None:
    card = {
        "intended_use": "use",
        "counts": {"real": {"train": {"a|b\n<script>": 2}}},
        "synthetic": {"made": 1, "exported": 1, "model_sha256": "0"},
        "gate": {"decision": "open"},
        "pixels": {
            "format": "PNG",
            "size_px": [8, 8],
            "pixel_mm": None,
            "unit_from_grey": "u",
            "clipped_pixels": 0,
        },
        "provenance": {},
        "csv": "",
    }
    text = card_markdown(card)
    assert r"| real | train | a\|b \<script\> | 2 |" in text
    assert "pixel size unknown" in text
