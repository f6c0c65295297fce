"""Cohort metrics on features of real CT slices and of pseudo-CT of them, against independent implementations."""

import contextlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.features import FeatureScale, TextureExtractor
from pipeline.metrics.fid import fid
from pipeline.metrics.kid import kid, mmd2_unbiased
from pipeline.metrics.precision_recall import manifold_scores

DATA = Path(os.environ.get("SCANLOOM_TEST_DATA", "/nonexistent")) / "ct_slices"
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA.is_dir(), reason="SCANLOOM_TEST_DATA names no folder with ct_slices"),
]
LIVE = 24
"""Features that are compared: fewer than images, so that the peers' roots of covariances are well determined."""


def embedded(paths: list[Path]) -> np.ndarray:
    pictures = []
    for path in paths:
        with Image.open(path) as image:
            pictures.append(np.asarray(image.convert("L").resize((64, 64)), dtype=np.float32) / 127.5 - 1)
    return TextureExtractor()(torch.from_numpy(np.stack(pictures))[:, None])


@pytest.fixture(scope="module")
def cohorts():
    """Standardized features of real slices and of the pseudo-CT of them, (n, 267) each."""
    made = sorted((DATA / "model").glob("Out_*.png"))
    pairs = [(DATA / "real" / path.name.replace("Out_", "GT_"), path) for path in made]
    whole = [pair for pair in pairs if all(path.read_bytes()[:4] == b"\x89PNG" for path in pair)][:120]
    real, synthetic = (embedded(list(side)) for side in zip(*whole, strict=True))
    scale = FeatureScale.fit(real)
    return scale.apply(real).astype(np.float64), scale.apply(synthetic).astype(np.float64)


@pytest.fixture(scope="module")
def live(cohorts):
    """The first principal features of the real slices."""
    directions = np.linalg.svd(cohorts[0] - cohorts[0].mean(0), full_matrices=False)[2][:LIVE].T
    return tuple(side @ directions for side in cohorts)


def test_fid_equals_torchmetrics(live):
    from torchmetrics.image.fid import _compute_fid

    x, y = (torch.from_numpy(side) for side in live)
    expected = float(_compute_fid(x.mean(0), x.T.cov(), y.mean(0), y.T.cov()))
    assert fid(*live).value == pytest.approx(expected, rel=1e-6)
    assert not fid(*live).too_few


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
def test_fid_equals_monai(live):
    from monai.metrics import FIDMetric

    expected = float(FIDMetric()(torch.from_numpy(live[1]), torch.from_numpy(live[0])))
    assert fid(*live).value == pytest.approx(expected, rel=1e-6)


def test_fid_of_fewer_images_than_features_equals_the_nuclear_norm_of_their_products_and_is_flagged(cohorts):
    x, y = cohorts
    a, b = ((side - side.mean(0)) / np.sqrt(len(side) - 1) for side in (x, y))
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.square(a).sum() + np.square(b).sum()
    expected -= 2 * np.linalg.norm(a @ b.T, "nuc")
    assert fid(x, y).value == pytest.approx(expected, rel=1e-6)
    assert fid(x, y).too_few


def test_kid_equals_torchmetrics(cohorts):
    from torchmetrics.image.kid import maximum_mean_discrepancy, poly_mmd

    x, y = (torch.from_numpy(side) for side in cohorts)
    kernels = [(first @ second.T / first.shape[1] + 1) ** 3 for first, second in ((x, x), (x, y), (y, y))]
    expected = float(maximum_mean_discrepancy(*kernels))
    assert mmd2_unbiased(*cohorts) == pytest.approx(expected, rel=1e-6)
    assert mmd2_unbiased(*cohorts) == pytest.approx(float(poly_mmd(x, y)), rel=1e-6)
    whole = kid(*cohorts, np.random.default_rng(0), subsets=2, subset_size=len(cohorts[0]))
    assert whole.value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("k", [3, 5])
def test_shares_of_the_manifolds_equal_the_published_code(cohorts, k):
    prdc = pytest.importorskip("prdc", reason="prdc is not installed")
    with contextlib.redirect_stdout(io.StringIO()):
        expected = prdc.compute_prdc(*cohorts, k)
    found = manifold_scores(*cohorts, k)
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(float(value), abs=1e-6)


def test_real_slices_are_nearer_to_real_slices_than_pseudo_ct_is(live):
    real, made = live
    for distance in (lambda x, y: fid(x, y).value, mmd2_unbiased):
        assert distance(real[::2], real[1::2]) < distance(real[::2], made[1::2])
