import numpy as np
import pytest

from pipeline.evaluate.cohorts import Cohort
from pipeline.evaluate.fidelity import fidelity_rows
from pipeline.features import TextureExtractor
from pipeline.records import silent
from pipeline.settings import EvaluateLesionsSettings

SETTINGS = EvaluateLesionsSettings(kid_subsets=10, neighbors=3)


@pytest.fixture(scope="module")
def sides(draws):
    return draws.cohort((30, 30), 2), draws.cohort((30, 30), 1), draws.cohort((30, 30), 3)


def rows_of(draws, train, held_out, synthetic):
    study = draws.study(train=train, held_out=held_out, synthetic=synthetic)
    rows = fidelity_rows(study, [TextureExtractor()], SETTINGS, 0, silent)
    return {(row["lesion_class"], row["comparison"]): row for row in rows}


def test_fresh_draws_score_as_well_as_training_images_and_noise_far_worse(draws, sides):
    rows = rows_of(draws, *sides)
    pooled = {side: rows["all classes", side] for side in ("synthetic", "floor", "ceiling")}
    assert abs(pooled["synthetic"]["kid"] - pooled["floor"]["kid"]) < 0.02 * pooled["ceiling"]["kid"]
    assert pooled["ceiling"]["coverage"] < 0.2 < 0.6 < pooled["synthetic"]["coverage"]
    assert pooled["ceiling"]["precision"] < 0.2 < 0.6 < pooled["synthetic"]["precision"]


def test_a_cohort_that_repeats_one_image_has_precision_but_no_recall(draws, sides):
    train, held_out, synthetic = sides
    one = Cohort(synthetic.images[:1].repeat(60, 1, 1, 1), synthetic.classes, synthetic.subjects)
    collapsed = rows_of(draws, train, held_out, one)["all classes", "synthetic"]
    assert collapsed["recall"] < 0.1
    assert collapsed["coverage"] < 0.2


def test_images_of_the_wrong_class_show_within_the_classes_only(draws, sides):
    train, held_out, synthetic = sides
    swapped = Cohort(synthetic.images, 1 - synthetic.classes, synthetic.subjects)
    right, wrong = rows_of(draws, train, held_out, synthetic), rows_of(draws, train, held_out, swapped)
    assert wrong["all classes", "synthetic"]["kid"] == right["all classes", "synthetic"]["kid"]
    for name in draws.names:
        assert wrong[name, "synthetic"]["kid"] > right[name, "synthetic"]["kid"]


def test_rows_name_sides_and_counts(draws, sides):
    train, held_out, synthetic = sides
    rows = rows_of(draws, train, held_out, synthetic.part(np.arange(60) < 40))
    assert len(rows) == 9
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
