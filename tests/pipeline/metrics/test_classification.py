import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score

from pipeline.errors import InputError
from pipeline.metrics.classification import binary_auc, classification_scores, expected_calibration_error

RNG = np.random.default_rng(0)


def problem(count: int = 200, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    truth = RNG.integers(classes, size=count)
    logits = RNG.normal(size=(count, classes)).round(1) + 1.2 * np.eye(classes)[truth]
    return truth, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_equals_scikit_learn() -> None:
    truth, probabilities = problem()
    scores = classification_scores(truth, probabilities)
    assert scores.macro_auc == pytest.approx(roc_auc_score(truth, probabilities, multi_class="ovr", average="macro"))
    assert scores.balanced_accuracy == pytest.approx(balanced_accuracy_score(truth, probabilities.argmax(1)))
    assert scores.accuracy == pytest.approx(accuracy_score(truth, probabilities.argmax(1)))


def test_two_classes_have_one_auc_and_ties_count_half() -> None:
    truth, probabilities = problem(classes=2)
    rounded = np.stack([1 - probabilities[:, 1].round(1), probabilities[:, 1].round(1)], axis=1)
    scores = classification_scores(truth, rounded)
    assert scores.auc_by_class[0] == pytest.approx(scores.auc_by_class[1])
    assert scores.macro_auc == pytest.approx(roc_auc_score(truth, rounded[:, 1]))


def test_hand_computed_auc() -> None:
    assert binary_auc(np.array([True, False, True, False]), np.array([0.9, 0.8, 0.8, 0.1])) == 3.5 / 4
    assert math.isnan(binary_auc(np.array([True, True]), np.array([0.1, 0.2])))


def test_hand_computed_calibration_error() -> None:
    confidence, right = np.array([0.95, 0.95, 0.95, 0.95, 0.5]), np.array([True, True, True, False, True])
    assert expected_calibration_error(right, confidence, bins=10) == pytest.approx(0.8 * 0.2 + 0.2 * 0.5)


def test_calibration_error_equals_torchmetrics() -> None:
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    truth, probabilities = problem(classes=3)
    expected = multiclass_calibration_error(torch.from_numpy(probabilities), torch.from_numpy(truth), 3, n_bins=15)
    assert classification_scores(truth, probabilities).ece == pytest.approx(float(expected), abs=1e-6)


def test_duplicating_a_class_changes_accuracy_but_not_balanced_accuracy_or_auc() -> None:
    truth, probabilities = problem()
    extra = truth == 0
    more = np.concatenate([truth, truth[extra], truth[extra]])
    more_probabilities = np.concatenate([probabilities, probabilities[extra], probabilities[extra]])
    plain, inflated = classification_scores(truth, probabilities), classification_scores(more, more_probabilities)
    assert inflated.balanced_accuracy == pytest.approx(plain.balanced_accuracy)
    assert inflated.auc_by_class[0] == pytest.approx(plain.auc_by_class[0])


def test_absent_classes_are_left_out_and_named() -> None:
    truth, probabilities = problem()
    kept = truth != 2
    scores = classification_scores(truth[kept], probabilities[kept])
    assert scores.classes_left_out == (2,)
    assert set(scores.auc_by_class) == {0, 1, 3}
    alone = classification_scores(truth[truth == 1], probabilities[truth == 1])
    assert math.isnan(alone.macro_auc)
    assert alone.classes_left_out == (0, 2, 3)


def test_logits_empty_sets_and_unknown_classes_are_refused() -> None:
    truth, probabilities = problem()
    for classes, values in [
        (truth, np.log(probabilities)),
        (truth[:0], probabilities[:0]),
        (truth + 1, probabilities),
        (truth[:5], probabilities),
    ]:
        with pytest.raises(InputError, match="rows sum to 1"):
            classification_scores(classes, values)
