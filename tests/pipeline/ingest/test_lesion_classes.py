import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SettingsError
from pipeline.ingest.allow_list import is_class_name
from pipeline.ingest.lesion_classes import first_class, lesion_class_of
from pipeline.settings_loading import load, validate


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("GTV", "tumor"),
        ("gtv 2", "tumor"),
        ("  GTVp ", "tumor"),
        ("\uff27\uff34\uff36", "tumor"),
        ("PTV1", "target"),
        ("PTV12", None),
        ("a[1]", "bracket"),
        ("a1", None),
        ("a.b", "dot"),
        ("axb", None),
        ("Liver", None),
        ("", None),
        ("new\nline", "line"),
    ],
)
def test_names_match_with_wildcards_without_case_and_all_else_by_the_letter(name, expected):
    mapping = {"GTV*": "tumor", "PTV?": "target", "A[1]": "bracket", "a.b": "dot", "new*line": "line"}
    assert lesion_class_of(name, mapping) == expected


def test_the_first_key_that_matches_decides():
    assert lesion_class_of("GTV", {"*": "any", "GTV": "tumor"}) == "any"
    assert lesion_class_of("GTV", {"GTV": "tumor", "*": "any"}) == "tumor"
    assert first_class(["label", "Liver"], {"liver": "organ", "label": "other"}) == "organ"


def test_without_a_mapping_a_name_is_its_own_class_and_an_empty_one_leaves_all_out():
    assert lesion_class_of("Liver", None) == "Liver"
    assert lesion_class_of("Liver", {}) is None


@given(st.text(max_size=30))
def test_every_name_matches_itself_and_the_star(name):
    assert lesion_class_of(name, {"*": "any"}) == "any"
    literal = name.replace("*", "x").replace("?", "x")
    assert lesion_class_of(literal, {literal: "own"}) == "own"


def test_a_key_of_many_stars_is_told_quickly():
    start = time.monotonic()
    assert lesion_class_of("a" * 60, {"*" * 60 + "b": "x", "*a*a*a*b": "y"}) is None
    assert time.monotonic() - start < 1


@pytest.mark.parametrize("name", ["=cmd()", "", "a/b", "<b>", "x" * 65, "tumor\n", "-1"])
def test_a_class_that_cannot_be_shown_is_refused_with_the_settings(name):
    assert not is_class_name(name)
    with pytest.raises(SettingsError) as caught:
        validate({"ingest": {"lesion_classes": {"GTV": name}}}, "test")
    assert "ingest.lesion_classes" in caught.value.found
    with pytest.raises(SettingsError):
        validate({"ingest": {"lesion_classes": {"": "tumor"}}}, "test")


def test_classes_of_letters_digits_and_the_usual_signs_are_allowed():
    mapping = {"GTV*": "tumor (primary), 1 + 2", "x": "Läsion", "y": "x" * 64}
    assert validate({"ingest": {"lesion_classes": mapping}}, "test").ingest.lesion_classes == mapping
    assert all(is_class_name(name) for name in mapping.values())


def test_the_order_of_the_mapping_survives_loading():
    given_last = load(None, ['ingest.lesion_classes={"z*": a, "*": b}'], {}).ingest.lesion_classes
    assert list(given_last or ()) == ["z*", "*"]
