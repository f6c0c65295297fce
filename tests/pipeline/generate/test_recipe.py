"""Recipes are checked whole against what the generator knows."""

import pytest
import yaml

from pipeline.errors import InputError, SettingsError
from pipeline.generate.recipe import SEED_SPACING, counts_by_class, resolve_recipe
from pipeline.generate_settings import CohortLine, GenerateLesionsSettings
from pipeline.lesion_attributes import LesionAttribute
from pipeline.settings_loading import load, to_yaml, validate

CLASSES = ("b", "a")
SIZE = LesionAttribute(name="size_mm", low=4, high=20, thirds=(8, 12))
SEQUENCE = LesionAttribute(name="sequence", levels=("T1", "T2"))


def recipe(**changes):
    return GenerateLesionsSettings.model_validate(changes)


def counts(lines):
    return counts_by_class(lines, CLASSES)


def line(**changes):
    return {"lesion_class": "a", "count": 2} | changes


def test_one_number_asks_for_every_class():
    assert counts(resolve_recipe(recipe(per_class=4), CLASSES)) == {"b": 4, "a": 4}


def test_a_mapping_asks_for_what_it_names():
    lines = resolve_recipe(recipe(per_class={"a": 2, "b": 0}), CLASSES)
    assert counts(lines) == {"b": 0, "a": 2}
    assert len(lines) == 1


@pytest.mark.parametrize(("per_class", "found"), [({"c": 1, "a": 1}, "c"), ({"a": 0}, "no image"), ({}, "no image")])
def test_recipes_for_unknown_classes_or_nothing_are_refused(per_class, found):
    with pytest.raises(InputError, match="recipe") as caught:
        resolve_recipe(recipe(per_class=per_class), CLASSES)
    assert caught.value.found == found
    assert caught.value.allowed == "b, a"


def test_lines_take_the_place_of_classes_and_keep_their_order():
    lines = resolve_recipe(recipe(lines=[line(), line(lesion_class="b"), line(count=5)]), CLASSES)
    assert [(each.lesion_class, each.count) for each in lines] == [("a", 2), ("b", 2), ("a", 5)]
    assert counts(lines) == {"b": 2, "a": 7}


def test_a_near_name_is_offered():
    with pytest.raises(InputError) as caught:
        resolve_recipe(recipe(lines=[line(lesion_class="Meningoma")]), ["glioma", "meningioma"])
    assert caught.value.change == "Did you mean `meningioma`?"


@pytest.mark.parametrize(
    "attributes",
    [{"size_mm": "small"}, {"size_mm": "Large"}, {"size_mm": 7}, {"size_mm": [4, 20]}, {"sequence": "t2"}, {}],
)
def test_known_values_are_taken(attributes):
    assert resolve_recipe(recipe(lines=[line(attributes=attributes)]), CLASSES, [SIZE, SEQUENCE])


@pytest.mark.parametrize(
    ("attributes", "allowed"),
    [
        ({"size_mm": "tiny"}, "small, medium, large"),
        ({"size_mm": 3}, "from 4 to 20"),
        ({"size_mm": [4, 21]}, "from 4 to 20"),
        ({"sequence": "FLAIR"}, "T1, T2"),
        ({"grade": "high"}, "size_mm"),
    ],
)
def test_values_that_training_never_saw_are_refused(attributes, allowed):
    with pytest.raises(InputError) as caught:
        resolve_recipe(recipe(lines=[line(attributes=attributes)]), CLASSES, [SIZE, SEQUENCE])
    assert allowed in caught.value.allowed


def test_words_are_thirds_of_the_training_images():
    assert [SIZE.resolve(word) for word in ("small", "medium", "large")] == [(4, 8), (8, 12), (12, 20)]
    assert SIZE.resolve(5.0) == (5, 5)


def test_limits_read_off_a_message_are_taken_as_they_are_shown():
    odd = LesionAttribute(name="size_mm", low=4.0123456, high=20.987654, thirds=(8, 12))
    low, high = (float(f"{limit:g}") for limit in (odd.low, odd.high))
    assert odd.resolve((low, high)) == (max(low, odd.low), min(high, odd.high))


@pytest.mark.parametrize(
    ("value", "expected"),
    [(4, -1), (20, 1), (12, 0), (25, 1), (0, -1)],
    ids=["low", "high", "middle", "above", "below"],
)
def test_numbers_are_mapped_to_the_units_of_networks(value, expected):
    assert SIZE.encode(value) == expected


def test_levels_are_mapped_to_their_index_and_what_is_missing_to_nan():
    assert SEQUENCE.encode("T2") == 1
    assert [str(each.encode(None)) for each in (SIZE, SEQUENCE)] == ["nan", "nan"]
    assert str(SEQUENCE.encode("FLAIR")) == "nan"


@pytest.mark.parametrize("value", [[5, 4], [float("nan"), 3], float("inf")])
def test_ranges_are_ordered_and_finite(value):
    with pytest.raises(ValueError, match="low not above high"):
        CohortLine(lesion_class="a", count=1, attributes={"size_mm": value})


def test_what_is_stored_says_which_recipe_holds():
    stored = yaml.safe_load(to_yaml(load(None, [f"generate.lesions.lines=[{line()}]"], {})))
    assert stored["generate"]["lesions"]["per_class"] is None
    assert validate(stored, "stored").generate.lesions.lines == (CohortLine(lesion_class="a", count=2),)


@pytest.mark.parametrize(
    "both", [["per_class=5", f"lines=[{line()}]"], ["per_class=null"], ["per_class=null", "lines=[]"]]
)
def test_a_recipe_is_per_class_or_line_by_line(both):
    with pytest.raises(SettingsError) as caught:
        load(None, [f"generate.lesions.{override}" for override in both], {})
    assert "either per_class or lines" in str(caught.value)


@pytest.mark.parametrize("bad", [{"count": 0}, {"lesion_class": "a<b>"}, {"truncation": 0}, {"colour": "red"}])
def test_lines_are_validated_with_the_settings(bad):
    with pytest.raises(SettingsError):
        load(None, [f"generate.lesions.lines=[{line(**bad)}]"], {})


def test_more_candidates_than_seeds_are_refused():
    half = SEED_SPACING // 2
    assert resolve_recipe(recipe(lines=[line(count=half), line(count=half)]), CLASSES)
    with pytest.raises(InputError, match="seed"):
        resolve_recipe(recipe(lines=[line(count=half), line(count=half + 1)]), CLASSES)
    with pytest.raises(InputError, match="seed"):
        resolve_recipe(recipe(per_class=half, filter={"manifold": True, "attempts": 2}), CLASSES)
