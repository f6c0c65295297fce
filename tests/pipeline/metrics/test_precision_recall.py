import contextlib
import io

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.metrics.precision_recall import distances, manifold_scores

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_equals_brute_force(k: int) -> None:
    real, synthetic = RNG.normal(size=(25, 4)), RNG.normal(0.5, 1, size=(30, 4))

    def radius(point: int, cohort: np.ndarray) -> float:
        return float(sorted(np.linalg.norm(cohort - cohort[point], axis=1))[k])

    def hits(center: np.ndarray, reach: float, cohort: np.ndarray) -> list[bool]:
        return [bool(np.linalg.norm(point - center) <= reach) for point in cohort]

    in_real = np.array([hits(real[i], radius(i, real), synthetic) for i in range(25)])
    in_synthetic = np.array([hits(synthetic[j], radius(j, synthetic), real) for j in range(30)])
    scores = manifold_scores(real, synthetic, k)
    assert scores.precision == pytest.approx(in_real.any(axis=0).mean())
    assert scores.recall == pytest.approx(in_synthetic.any(axis=0).mean())
    assert scores.density == pytest.approx(in_real.sum() / 30 / k)
    assert scores.coverage == pytest.approx(in_real.any(axis=1).mean())


def test_same_distribution_scores_high_on_all() -> None:
    real, synthetic = RNG.normal(size=(2, 300, 3))
    scores = manifold_scores(real, synthetic)
    assert min(scores.precision, scores.recall) > 0.9
    assert scores.coverage > 0.9
    assert scores.density == pytest.approx(1, abs=0.15)


def test_mode_collapse_keeps_precision_and_loses_recall_and_coverage() -> None:
    real = RNG.normal(size=(300, 3))
    collapsed = 0.05 * RNG.normal(size=(300, 3))
    scores = manifold_scores(real, collapsed)
    assert scores.precision > 0.95
    assert scores.recall < 0.05
    assert scores.coverage < 0.3


def test_far_away_scores_nothing() -> None:
    real = RNG.normal(size=(50, 3))
    scores = manifold_scores(real, real + 100)
    assert (scores.precision, scores.recall, scores.density, scores.coverage) == (0, 0, 0, 0)


def test_scores_do_not_depend_on_scale_offset_or_order() -> None:
    real, synthetic = RNG.normal(size=(60, 4)), RNG.normal(0.3, 1, size=(60, 4))
    plain = manifold_scores(real, synthetic)
    assert manifold_scores(3 * real + 100, 3 * synthetic + 100) == plain
    assert manifold_scores(real[::-1], synthetic[::-1]) == plain


def test_distances_keep_their_digits_far_from_the_origin() -> None:
    x, y = RNG.normal(size=(10, 5)) + 1e5, RNG.normal(size=(8, 5)) + 1e5
    expected = np.linalg.norm(x[:, None] - y[None], axis=2)
    np.testing.assert_allclose(distances(x, y), expected, rtol=1e-9)


def test_too_few_images_and_bad_k_are_refused() -> None:
    with pytest.raises(InputError, match="at least 6 images"):
        manifold_scores(RNG.normal(size=(5, 2)), RNG.normal(size=(9, 2)), 5)
    with pytest.raises(InputError, match="k >= 1"):
        manifold_scores(RNG.normal(size=(5, 2)), RNG.normal(size=(9, 2)), 0)


@pytest.mark.parametrize("count", [300, 2300])
def test_equals_the_published_code_in_chunks_of_either_precision(count: int) -> None:
    prdc = pytest.importorskip("prdc", reason="prdc is not installed")
    rng = np.random.default_rng(count)
    real, synthetic = rng.normal(0, 1, (count, 12)), rng.normal(0.2, 1, (count - 50, 12))
    with contextlib.redirect_stdout(io.StringIO()):
        expected = prdc.compute_prdc(real, synthetic, 5)
    found = manifold_scores(real, synthetic, 5)
    for name in ("precision", "recall", "density", "coverage"):
        assert getattr(found, name) == pytest.approx(expected[name], abs=1e-12 if count < 2000 else 2e-3)
