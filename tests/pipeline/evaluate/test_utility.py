import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.evaluate import utility_scores
from pipeline.evaluate.cohorts import Cohort
from pipeline.evaluate.leakage import LeakageAudit, clean_audit
from pipeline.evaluate.learning_curve import share_of_subjects
from pipeline.evaluate.utility import ARMS
from pipeline.evaluate.utility_scores import Score, Utility, arm_interval, holm
from pipeline.evaluate.utility_tables import arm_rows, arm_table
from pipeline.evaluate.utility_verdict import judge_use
from pipeline.settings import EvaluateLesionsSettings

SETTINGS = EvaluateLesionsSettings(bootstrap=200, seeds=3)


def test_holm_equals_the_hand_computed_steps():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": None}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def study_of(draws, subjects):
    count = 60
    classes = torch.arange(count) % 2
    test = Cohort(torch.zeros(count, 1, 32, 32), classes, tuple(str(n % subjects) for n in range(count)))
    return draws.study(train=test, held_out=test, synthetic=test)


def arm(study, strength, seed):
    truth = study.test.classes.numpy()
    rng = np.random.default_rng(seed)
    logit = strength * (2 * truth - 1) + rng.normal(size=len(truth))
    p = 1 / (1 + np.exp(-logit))
    return np.stack([1 - p, p], axis=1)


def test_an_arm_differs_from_itself_by_0_and_a_better_one_by_a_small_p(draws):
    study = study_of(draws, 20)
    same = [arm(study, 0.3, seed) for seed in range(3)]
    utility = Utility({"real": same, "copy": same, "better": [arm(study, 2, seed) for seed in range(3)]}, [])
    equal = arm_interval(utility, "copy", study, "macro_auc", SETTINGS, 0, against="real")
    assert (equal.value, equal.low, equal.high, equal.p) == (0, 0, 0, 1)
    better = arm_interval(utility, "better", study, "macro_auc", SETTINGS, 0, against="real")
    assert 0 < better.low < better.value < better.high
    assert better.p == pytest.approx(2 / 2001)  # not 2 / 201: the settings cannot make the smallest p-value useless
    worse = arm_interval(utility, "real", study, "macro_auc", SETTINGS, 0, against="better")
    assert (worse.value, worse.p) == (-better.value, better.p)


def test_a_clear_gain_of_one_arm_of_seven_survives_the_correction_with_the_fewest_resamples(draws):
    study = study_of(draws, 20)
    same = [arm(study, 0.3, seed) for seed in range(3)]
    arms = dict.fromkeys(ARMS, same) | {"real_synthetic": [arm(study, 2, seed) for seed in range(3)]}
    fewest = EvaluateLesionsSettings(bootstrap=100, seeds=3)
    _, differences = arm_rows(Utility(arms, []), study, fewest, 0)
    assert differences["real_synthetic"].p == pytest.approx(6 * 2 / 2001)
    assert judge_use(differences["real_synthetic"], differences["real_synthetic"], None).outcome == "good"


def test_resamples_scored_in_parts_equal_those_scored_at_once(draws, monkeypatch):
    study = study_of(draws, 20)
    seeds = [arm(study, 1, seed) for seed in range(2)]
    whole = Utility({"real": seeds}, []).resampled("real", study, 50, 0)
    monkeypatch.setattr(utility_scores, "_VALUES_AT_ONCE", 7 * 60)
    parts = Utility({"real": seeds}, []).resampled("real", study, 50, 0)
    np.testing.assert_allclose(parts, whole, rtol=1e-14)  # some processors sum a shorter stack in another order


def test_seeds_that_disagree_widen_the_interval(draws):
    study = study_of(draws, 20)
    alike = Utility({"real": [arm(study, 1, 0)] * 3}, [])
    apart = Utility({"real": [arm(study, strength, 0) for strength in (0, 1, 3)]}, [])
    spans = [
        (score := arm_interval(utility, "real", study, "macro_auc", SETTINGS, 0)).high - score.low
        for utility in (alike, apart)
    ]
    assert spans[1] > 1.3 * spans[0]


def test_no_table_without_an_audit_that_found_nothing(draws):
    study = study_of(draws, 20)
    clean = LeakageAudit(({"kind": "subjects", "splits": "train and test", "shared": 0},), (1, 1))
    leaky = LeakageAudit(({"kind": "subjects", "splits": "train and test", "shared": 2},), (1, 1))
    assert arm_table([], study, SETTINGS, clean).key == "utility"
    for audit in (None, leaky):
        with pytest.raises(InputError, match="share nothing"):
            arm_table([], study, SETTINGS, audit)
    assert clean_audit(clean) is clean


def test_larger_shares_of_subjects_hold_the_smaller_ones(draws):
    train = study_of(draws, 20).train
    shares = [set(share_of_subjects(train, share, 3).subjects) for share in (0.25, 0.5, 1.0)]
    assert [len(share) for share in shares] == [5, 10, 20]
    assert shares[0] < shares[1] < shares[2]


def test_a_gain_that_does_not_survive_the_correction_is_no_help():
    gain, control = Score(0.05, 0.01, 0.09, p=0.08), Score(0.05, 0.01, 0.09)
    assert judge_use(gain, control, None).outcome == "neutral"
    assert judge_use(Score(0.05, 0.01, 0.09, p=0.04), control, None).outcome == "good"
    assert judge_use(Score(-0.05, -0.09, -0.01, p=0.08), control, None).outcome == "neutral"
    assert judge_use(Score(-0.05, -0.09, -0.01, p=0.04), control, None).outcome == "bad"
