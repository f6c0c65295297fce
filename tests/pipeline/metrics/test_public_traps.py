"""Mistakes of public scorers of pseudo-CT, each shown not to be ours."""

import inspect

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.metrics import METRICS
from pipeline.metrics.dice import mean_overlap, overlap_by_tissue
from pipeline.metrics.mae import error_by_tissue
from pipeline.metrics.pairs import DIALECTS
from pipeline.metrics.psnr import psnr
from pipeline.metrics.wepl import wepl_difference

RNG = np.random.default_rng(0)
CT = RNG.uniform(-1000, 1500, (24, 22, 20))
MADE = CT + RNG.normal(0, 100, CT.shape)
RANGE = DIALECTS["synthrad2023"]


@pytest.mark.parametrize("name", METRICS)
def test_no_mask_means_the_whole_image(name):
    compute = METRICS[name].compute
    assert compute(CT, MADE, None, RANGE) == compute(CT, MADE, np.ones(CT.shape, np.uint8), RANGE)


def test_no_mask_means_the_whole_image_for_structures_tissues_and_paths():
    everywhere = np.ones(CT.shape, bool)
    spacing = (1.0, 1.0, 3.0)
    assert overlap_by_tissue(CT, MADE, None, spacing) == overlap_by_tissue(CT, MADE, everywhere, spacing)
    assert error_by_tissue(CT, MADE, None) == error_by_tissue(CT, MADE, everywhere)
    assert wepl_difference(CT, MADE, None, spacing) == wepl_difference(CT, MADE, everywhere, spacing)


def test_a_ct_without_a_structure_is_neither_dice_0_nor_hd95_0():
    water = np.zeros((10, 10, 10))
    overlaps = overlap_by_tissue(water, water, None, (1, 1, 1))
    assert (overlaps["bone"].dice, overlaps["bone"].hd95_mm) == (None, None)
    only = {"bone": overlaps["bone"], "air": overlaps["air"]}
    assert mean_overlap(only)[:2] == (None, None)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_refused_and_spreads_nowhere(name, value):
    broken = MADE.copy()
    broken[3, 4, 5] = value
    with pytest.raises(InputError, match="finite"):
        METRICS[name].compute(CT, broken, None, RANGE)
    outside = np.ones(CT.shape, bool)
    outside[3, 4, 5] = False
    assert np.isfinite(METRICS[name].compute(CT, broken, outside, RANGE))


def test_psnr_cannot_be_asked_for_without_a_range_and_dialects_differ():
    assert inspect.signature(psnr).parameters["value_range"].default is inspect.Parameter.empty
    wide, narrow = (psnr(CT, MADE, None, DIALECTS[name]) for name in ("synthrad2025-container", "synthrad2023"))
    assert wide != narrow
    assert wide - narrow == pytest.approx(20 * np.log10(4095 / 4024), abs=1e-9), "no voxel is clipped by either"


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("synthrad2023", -1024, 3000),
        ("synthrad2025-metrics", -1024, 3000),
        ("synthrad2025-container", -1024, 3071),
    ],
)
def test_the_ranges_of_the_dialects(name, low, high):
    assert (DIALECTS[name].low, DIALECTS[name].high) == (low, high)
    clipped = np.clip(CT, low, high)
    assert psnr(CT, MADE, None, DIALECTS[name]) == pytest.approx(
        10 * np.log10((high - low) ** 2 / np.mean((clipped - np.clip(MADE, low, high)) ** 2)), abs=1e-9
    )
