import numpy as np
import pytest

from pipeline.evaluate.cohorts import Cohort
from pipeline.evaluate.fidelity import fidelity_rows, ranking_disagreements
from pipeline.evaluate.fidelity_tables import distance_table, fidelity_table
from pipeline.features import TextureExtractor
from pipeline.records import silent
from pipeline.settings import EvaluateLesionsSettings

SETTINGS = EvaluateLesionsSettings(kid_subsets=10, neighbors=3, bootstrap=100)


@pytest.fixture(scope="module")
def sides(draws):
    return draws.cohort((30, 30), 2), draws.cohort((30, 30), 1), draws.cohort((30, 30), 3)


def rows_of(draws, train, held_out, synthetic):
    study = draws.study(train=train, held_out=held_out, synthetic=synthetic)
    rows = fidelity_rows(study, [TextureExtractor()], SETTINGS, 0, silent)
    return {(row["lesion_class"], row["comparison"]): row for row in rows}


@pytest.fixture(scope="module")
def plain(draws, sides):
    """Rows of fresh draws of both classes."""
    return rows_of(draws, *sides)


def test_fresh_draws_score_as_well_as_training_images_and_noise_far_worse(plain):
    pooled = {side: plain["all classes", side] for side in ("synthetic", "floor", "ceiling")}
    assert abs(pooled["synthetic"]["kid"] - pooled["floor"]["kid"]) < 0.02 * pooled["ceiling"]["kid"]
    assert pooled["ceiling"]["coverage"] < 0.2 < 0.6 < pooled["synthetic"]["coverage"]
    assert pooled["ceiling"]["precision"] < 0.2 < 0.6 < pooled["synthetic"]["precision"]


def test_a_cohort_that_repeats_one_image_has_precision_but_no_recall(draws, sides):
    train, held_out, synthetic = sides
    one = Cohort(synthetic.images[:1].repeat(60, 1, 1, 1), synthetic.classes, synthetic.subjects)
    collapsed = rows_of(draws, train, held_out, one)["all classes", "synthetic"]
    assert collapsed["recall"] < 0.1
    assert collapsed["coverage"] < 0.2


def test_images_of_the_wrong_class_show_within_the_classes_only(draws, sides, plain):
    train, held_out, synthetic = sides
    swapped = Cohort(synthetic.images, 1 - synthetic.classes, synthetic.subjects)
    wrong = rows_of(draws, train, held_out, swapped)
    assert wrong["all classes", "synthetic"]["kid"] == plain["all classes", "synthetic"]["kid"]
    for name in draws.names:
        assert wrong[name, "synthetic"]["kid"] > plain[name, "synthetic"]["kid"]


def test_rows_name_sides_and_counts(draws, sides):
    train, held_out, synthetic = sides
    rows = rows_of(draws, train, held_out, synthetic.part(np.arange(60) < 40))
    assert len(rows) == 11
    flat, steep = draws.names
    assert [rows[name, "synthetic"]["images"] for name in ("all classes", flat, steep)] == [40, 30, 10]
    assert [rows[name, "ceiling"]["images"] for name in ("all classes", flat, steep)] == [60, 30, 30]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_classes_with_too_few_images_are_left_blank(draws, sides, count):
    train, held_out, synthetic = sides
    rows = rows_of(draws, train, held_out, synthetic.part(np.arange(60) < count))
    assert rows["all classes", "synthetic"]["kid"] is None
    assert rows[draws.names[1], "synthetic"]["coverage"] is None
    assert rows["all classes", "floor"]["kid"] is not None


def test_relative_kid_is_0_for_training_images_and_1_for_noise(draws, plain):
    for name in ("all classes", *draws.names):
        assert plain[name, "floor"]["kid_relative"] == 0
        assert plain[name, "ceiling"]["kid_relative"] == pytest.approx(1)
    assert abs(plain["all classes", "synthetic"]["kid_relative"]) < 0.05


def test_kid_of_noise_is_of_the_order_of_1_not_of_a_million(plain):
    assert 0.05 < plain["all classes", "ceiling"]["kid"] < 56


def test_shuffled_classes_are_a_ceiling_within_classes(draws, plain):
    assert ("all classes", "shuffled") not in plain
    for name in draws.names:
        assert plain[name, "shuffled"]["kid"] > plain[name, "floor"]["kid"]


def test_intervals_hold_their_values_and_fid_is_flagged_where_images_are_fewer_than_features(plain):
    for row in plain.values():
        assert row["too_few_for_fid"], "60 images, 267 features"
        for name in ("precision", "recall", "density", "coverage"):
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    ceiling = plain["all classes", "ceiling"]
    assert ceiling["kid_low"] <= ceiling["kid"] <= ceiling["kid_high"]
    assert ceiling["fid"] > plain["all classes", "floor"]["fid"] > 0


def test_the_tables_name_every_feature_space_with_its_hash_and_say_where_fid_is_not_to_be_trusted(plain):
    extractors = [TextureExtractor(), TextureExtractor(edge=64)]
    caption = fidelity_table(list(plain.values()), extractors, SETTINGS).caption
    for extractor in extractors:
        assert f"{extractor.name} version {extractor.version}, SHA-256 {extractor.sha256[:12]}" in caption
    assert extractors[0].sha256 != extractors[1].sha256
    assert "flagged" in distance_table(list(plain.values())).caption


def test_the_line_behind_fid_infinity_states_its_error(plain):
    row = plain["all classes", "synthetic"]
    assert 0 < row["fid_infinity_se"] < abs(row["fid_infinity"]) + row["fid"]
    assert row["fid_infinity"] < row["fid"], "the bias of few images is taken away"


def line(extractor, name, comparison, low, high):
    return {"extractor": extractor, "lesion_class": name, "comparison": comparison, "kid_low": low, "kid_high": high}


def test_a_ranking_that_depends_on_the_extractor_is_said_to():
    def space(extractor, first, second):
        floor = line(extractor, "all classes", "floor", 0.0, 0.1)
        pooled = line(extractor, "all classes", "synthetic", 0.05, 0.2)
        return [floor, pooled, line(extractor, "a", "synthetic", *first), line(extractor, "b", "synthetic", *second)]

    near, far, wide = (0.0, 0.1), (0.2, 0.3), (0.0, 0.3)
    assert ranking_disagreements(space("x", near, far) + space("y", near, far)) == []
    assert ranking_disagreements(space("x", near, far) + space("y", wide, wide)) == [], "y does not rank them"
    said = ranking_disagreements(space("x", near, far) + space("y", far, near))
    assert said == ["Which of a and b is closer to real depends on the features (x: a, y: b)."]


def test_seeing_a_difference_in_one_space_alone_is_said():
    rows = []
    for name, ends in (("x", (0.0, 0.1)), ("y", (0.5, 0.6))):
        rows += [line(name, "all classes", "floor", 0.0, 0.1), line(name, "all classes", "synthetic", *ends)]
    assert ranking_disagreements(rows)[0].endswith("(x: no difference shown, y: farther from held-out ones).")
