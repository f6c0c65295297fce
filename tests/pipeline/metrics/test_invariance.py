"""What must not change a metric, and which way every metric must point."""

import numpy as np
import pytest

from pipeline.metrics import METRICS
from pipeline.metrics.dice import structure_overlap
from pipeline.metrics.fid import fid, fid_infinity
from pipeline.metrics.kid import kid, mmd2_unbiased
from pipeline.metrics.mae import error_by_tissue
from pipeline.metrics.pairs import DIALECTS
from pipeline.metrics.precision_recall import manifold_scores

RNG = np.random.default_rng(0)
CT = np.round(RNG.uniform(-1000, 1500, (20, 18, 16)))
NOISE = RNG.normal(0, 100, CT.shape)
MADE = CT + NOISE
MASK = RNG.random(CT.shape) < 0.6
MASK[5:-5, 5:-5, 5:-5] = True
RANGE = DIALECTS["synthrad2025-container"]
EXACT = [name for name in METRICS if not name.startswith("ms_ssim")]
"""MS-SSIM halves images from their first voxel on, and so knows which end is which."""


def images(name):
    """CT, pseudo-CT and mask; a slice for MS-SSIM, which pads every axis to 97 voxels."""
    return [image if name in EXACT else image[:, :, 8] for image in (CT, MADE, MASK)]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("name", EXACT)
def test_mirroring_all_images_alike_changes_nothing(name, axis):
    compute = METRICS[name].compute
    flipped = compute(*(np.flip(image, axis) for image in (CT, MADE, MASK)), RANGE)
    assert flipped == pytest.approx(compute(CT, MADE, MASK, RANGE), rel=1e-9)


@pytest.mark.parametrize("axes", [(0, 1), (0, -1)])
@pytest.mark.parametrize("name", METRICS)
def test_the_order_of_the_axes_changes_nothing(name, axes):
    compute = METRICS[name].compute
    turned = compute(*(image.swapaxes(*axes) for image in images(name)), RANGE)
    assert turned == pytest.approx(compute(*images(name), RANGE), rel=1e-9)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("name", METRICS)
def test_the_type_of_the_numbers_changes_nothing(name, dtype):
    compute = METRICS[name].compute
    ct, made, mask = images(name)
    made = np.round(made)
    assert compute(ct.astype(dtype), made.astype(dtype), mask, RANGE) == compute(ct, made, mask, RANGE)


@pytest.mark.parametrize("name", METRICS)
def test_what_lies_outside_the_mask_changes_nothing(name):
    compute = METRICS[name].compute
    ct, made, mask = images(name)
    other = np.where(mask, made, RNG.uniform(-3000, 3000, ct.shape))
    assert compute(ct, other, mask, RANGE) == compute(ct, made, mask, RANGE)


@pytest.mark.parametrize("name", [name for name in METRICS if name != "mean_error"])
def test_more_noise_is_worse(name):
    metric = METRICS[name]
    ct, made, mask = images(name)
    values = [metric.compute(ct, ct + factor * (made - ct), mask, RANGE) for factor in (0.5, 1, 2, 4)]
    assert values == sorted(values, reverse=metric.better == "higher")
    assert len(set(values)) == 4


@pytest.mark.parametrize("name", ["mae", "psnr", "ssim"])
def test_exchanging_the_images_changes_no_symmetric_metric(name):
    compute = METRICS[name].compute
    assert compute(MADE, CT, MASK, RANGE) == pytest.approx(compute(CT, MADE, MASK, RANGE), rel=1e-12)


def test_exchange_turns_the_sign_of_the_mean_error_and_a_shift_moves_it_and_every_tissue():
    compute = METRICS["mean_error"].compute
    assert compute(MADE, CT, MASK, RANGE) == pytest.approx(-compute(CT, MADE, MASK, RANGE))
    assert compute(CT, MADE + 7, MASK, RANGE) == pytest.approx(compute(CT, MADE, MASK, RANGE) + 7)
    for tissue, found in error_by_tissue(CT, MADE + 7, MASK).items():
        assert found.mean_error == pytest.approx(error_by_tissue(CT, MADE, MASK)[tissue].mean_error + 7)


def test_dice_is_without_unit_hd95_follows_the_spacing_and_both_worsen_with_the_shift():
    box = np.zeros((30, 20, 12), bool)
    box[4:14, 5:15, 3:9] = True
    values = [structure_overlap(box, np.roll(box, shift, 0), (1.0, 1.0, 2.0)) for shift in (0, 2, 5, 9)]
    assert [found.dice for found in values] == pytest.approx([1, 0.8, 0.5, 0.1])
    assert [found.hd95_mm for found in values] == pytest.approx([0, 2, 5, 9])
    scaled = structure_overlap(box, np.roll(box, 5, 0), (3.0, 3.0, 6.0))
    assert (scaled.dice, scaled.hd95_mm) == pytest.approx((0.5, 15))


REAL, OTHER = RNG.normal(size=(90, 6)), RNG.normal(0.4, 1.2, size=(80, 6))
ROTATION = np.linalg.qr(RNG.normal(size=(6, 6)))[0]
COHORT_METRICS = {
    "fid": lambda x, y: fid(x, y).value,
    "mmd2": mmd2_unbiased,
    "precision": lambda x, y: manifold_scores(x, y, 5).precision,
    "recall": lambda x, y: manifold_scores(x, y, 5).recall,
    "density": lambda x, y: manifold_scores(x, y, 5).density,
    "coverage": lambda x, y: manifold_scores(x, y, 5).coverage,
}


@pytest.mark.parametrize("name", COHORT_METRICS)
def test_rotating_features_and_shuffling_images_changes_nothing(name):
    compute = COHORT_METRICS[name]
    value = compute(REAL, OTHER)
    assert compute(REAL @ ROTATION, OTHER @ ROTATION) == pytest.approx(value, rel=1e-9)
    assert compute(RNG.permutation(REAL), RNG.permutation(OTHER)) == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("name", COHORT_METRICS)
def test_farther_cohorts_score_worse(name):
    values = [COHORT_METRICS[name](REAL, OTHER + shift) for shift in (0, 1, 3)]
    assert values == sorted(values, reverse=name not in ("fid", "mmd2"))
    assert values[0] != values[2]


def test_precision_of_one_way_is_recall_of_the_other():
    there, back = manifold_scores(REAL, OTHER, 3), manifold_scores(OTHER, REAL, 3)
    assert (there.precision, there.recall) == (back.recall, back.precision)


def test_fewer_images_raise_fid_but_neither_kid_nor_fid_infinity():
    rng = np.random.default_rng(5)
    few: dict[str, list[float]] = {"fid": [], "kid": [], "infinity": []}
    for _ in range(40):
        x, y = rng.normal(size=(2, 60, 6))
        few["fid"].append(fid(x, y).value)
        few["kid"].append(kid(x, y, rng, subsets=20).value)
        few["infinity"].append(fid_infinity(x, y, rng, subsets_of="both").value)
    means = {name: float(np.mean(values)) for name, values in few.items()}
    errors = {name: float(np.std(values) / np.sqrt(len(values))) for name, values in few.items()}
    assert means["fid"] > 10 * errors["fid"], "the truth is 0, and FID of 60 images is not"
    assert abs(means["kid"]) < 4 * errors["kid"]
    assert abs(means["infinity"]) < 0.25 * means["fid"]
