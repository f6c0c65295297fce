import numpy as np
import pytest

from pipeline.metrics.classification import classification_scores
from pipeline.metrics.resampled_classification import SCORES, resampled_scores


@pytest.mark.parametrize("classes", [2, 4])
def test_every_resample_scores_as_its_images_would_by_themselves(classes: int) -> None:
    rng = np.random.default_rng(classes)
    truth = np.arange(60) % classes
    probabilities = rng.dirichlet(np.ones(classes), 60).round(1)  # rounded, so that there are ties
    probabilities[:, -1] = 1 - probabilities[:, :-1].sum(axis=1).clip(0, 1)
    probabilities = np.clip(probabilities, 0, None)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    weights = np.stack([np.ones(60), *(np.bincount(rng.integers(60, size=60), minlength=60) for _ in range(20))])
    found = resampled_scores(truth, probabilities, weights)
    for row, counts in zip(found, weights.astype(np.int64), strict=True):
        drawn = np.repeat(np.arange(60), counts)
        expected = classification_scores(truth[drawn], probabilities[drawn])
        assert expected.classes_left_out == ()
        np.testing.assert_allclose(row, [getattr(expected, name) for name in SCORES], rtol=1e-12)


def test_a_resample_without_a_class_has_no_mean_over_classes() -> None:
    truth = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]])
    found = resampled_scores(truth, probabilities, np.array([[2.0, 2.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]]))
    assert np.isnan(found[0, :3]).all()
    assert found[0, 3] == pytest.approx(0.25)
    np.testing.assert_allclose(found[1, :3], [0.75, 0.75, 0.75])
