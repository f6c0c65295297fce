"""The filter by planted faults: copies, noise, and what a real image of the same kind may expect."""

import math

import numpy as np
import polars as pl
import pytest

from pipeline.errors import InputError
from pipeline.generate.cohort_filter import ACCEPTED, MEMORIZED, OUT_OF_MANIFOLD, CohortFilter, conformal_limit
from pipeline.generate_settings import CohortFilterSettings
from pipeline.intensity import from_int16, to_int16
from pipeline.prepared_set import IMAGE_SCHEMA, ImageSet

SIZE = 32
BOTH = CohortFilterSettings(manifold=True, memorized=True)


def spots(count: int, rng: np.random.Generator, radius: float) -> np.ndarray:
    """Soft spots of about one radius on a dark ground, each with texture of its own, (N, 1, 32, 32)."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    images = []
    for _ in range(count):
        center = rng.normal(SIZE / 2, 2, 2)
        size = radius * rng.uniform(0.8, 1.25)
        spot = 1 / (1 + np.exp((np.hypot(rows - center[0], columns - center[1]) - size) * rng.uniform(1, 2)))
        images.append(spot * rng.uniform(0.8, 1.2) - 0.8 + rng.normal(0, 0.06, (SIZE, SIZE)))
    return np.clip(np.stack(images)[:, None], -1, 1)


@pytest.fixture(scope="module")
def prepared() -> ImageSet:
    rng = np.random.default_rng(1)
    images, rows = [], []
    for split, count in (("train", 24), ("validation", 24), ("test", 2)):
        for name, radius in (("large", 10.0), ("small", 4.0)):
            images.append(spots(count, rng, radius))
            rows += [{"split": split, "lesion_class": name}] * count
    table = pl.DataFrame([row | {"image": index} for index, row in enumerate(rows)])
    table = table.with_columns(pl.lit("x").alias(name) for name in IMAGE_SCHEMA if name not in table.columns)
    return ImageSet(to_int16(np.concatenate(images)), table, {"classes": ["large", "small"]})


@pytest.fixture(scope="module")
def both(prepared: ImageSet) -> CohortFilter:
    return CohortFilter.fit(prepared, BOTH)


def train(prepared: ImageSet, kind: int) -> np.ndarray:
    rows = [row for row in prepared.rows("train") if prepared.class_indices()[row] == kind]
    return from_int16(prepared.images[rows])


def test_fresh_real_images_pass_but_for_the_share_asked_for(both):
    rng = np.random.default_rng(9)
    for kind, radius in ((0, 10.0), (1, 4.0)):
        verdicts = both.judge(spots(60, rng, radius).astype(np.float32), kind)
        assert verdicts.count(ACCEPTED) >= 0.85 * 60


@pytest.mark.parametrize("kind", [0, 1])
def test_what_is_no_spot_lies_outside(both, kind):
    rng = np.random.default_rng(2)
    noise = rng.uniform(-1, 1, (10, 1, SIZE, SIZE)).astype(np.float32)
    flat = np.full((5, 1, SIZE, SIZE), -0.8, np.float32)
    assert both.judge(noise, kind) == [OUT_OF_MANIFOLD] * 10
    assert both.judge(flat, kind) == [OUT_OF_MANIFOLD] * 5


def test_the_other_class_lies_outside(both):
    rng = np.random.default_rng(3)
    assert both.judge(spots(20, rng, 10.0).astype(np.float32), 1).count(OUT_OF_MANIFOLD) >= 18


@pytest.mark.parametrize("change", ["none", "mirrored", "shifted", "brighter"])
def test_every_planted_copy_is_found(both, prepared, change):
    copies = train(prepared, 0)[:10]
    copies = {
        "none": copies,
        "mirrored": copies[..., ::-1],
        "shifted": np.roll(copies, (2, -1), axis=(2, 3)),
        "brighter": copies * 0.9 + 0.05,
    }[change]
    assert both.judge(np.ascontiguousarray(copies), 0) == [MEMORIZED] * 10


def test_each_part_works_alone(prepared):
    copies = train(prepared, 1)[:5]
    noise = np.random.default_rng(2).uniform(-1, 1, (5, 1, SIZE, SIZE)).astype(np.float32)
    manifold = CohortFilter.fit(prepared, CohortFilterSettings(manifold=True))
    memorized = CohortFilter.fit(prepared, CohortFilterSettings(memorized=True))
    assert manifold.judge(copies, 1) == [ACCEPTED] * 5
    assert manifold.judge(noise, 1) == [OUT_OF_MANIFOLD] * 5
    assert memorized.judge(copies, 1) == [MEMORIZED] * 5
    assert memorized.judge(noise, 1) == [ACCEPTED] * 5


def test_a_larger_share_lowers_the_limit():
    distances = np.random.default_rng(5).exponential(size=60)
    limits = [conformal_limit(distances, share) for share in (0.02, 0.2, 0.5)]
    assert limits == sorted(limits, reverse=True)
    assert limits[0] > limits[2]


def test_a_class_with_few_validation_images_shares_the_limit_of_all(prepared, both):
    few = prepared.table.with_columns(
        split=pl.when(
            (pl.col("split") == "validation") & (pl.col("lesion_class") == "small") & (pl.col("image") % 9 != 0)
        )
        .then(pl.lit("test"))
        .otherwise(pl.col("split"))
    )
    found = CohortFilter.fit(ImageSet(prepared.images, few, prepared.facts), CohortFilterSettings(manifold=True))
    assert found.manifold_limits[0] == both.manifold_limits[0]
    assert found.manifold_limits[1] != both.manifold_limits[1]


def test_without_validation_images_there_is_no_filter(prepared):
    none = prepared.table.with_columns(split=pl.col("split").replace("validation", "test"))
    with pytest.raises(InputError, match="validation"):
        CohortFilter.fit(ImageSet(prepared.images, none, prepared.facts), BOTH)


@pytest.mark.parametrize(("count", "share", "rank"), [(99, 0.05, 95), (19, 0.05, 19), (10, 0.05, 10), (100, 0.5, 51)])
def test_the_limit_is_the_conformal_quantile(count, share, rank):
    values = np.random.default_rng(0).permutation(np.arange(1.0, count + 1))
    assert conformal_limit(values, share) == rank
    assert rank == min(count, math.ceil((count + 1) * (1 - share)))


def test_a_new_real_value_exceeds_the_limit_as_often_as_it_may():
    rng = np.random.default_rng(4)
    over = [rng.random() > conformal_limit(rng.random(39), 0.1) for _ in range(4000)]
    assert np.mean(over) == pytest.approx(0.1, abs=0.015)  # exactly 1 - 36 / 40
