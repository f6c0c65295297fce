import pytest

from pipeline.evaluate.utility_scores import Score
from pipeline.evaluate.utility_verdict import judge_use

UP, ZERO, DOWN = Score(0.05, 0.01, 0.09), Score(0.01, -0.02, 0.04), Score(-0.05, -0.09, -0.01)


@pytest.mark.parametrize(
    ("gain", "over_control", "over_classical", "outcome", "words"),
    [
        (UP, UP, UP, "good", "helps"),
        (UP, UP, ZERO, "good", "helps"),
        (UP, UP, None, "good", "helps"),
        (UP, UP, DOWN, "neutral", "classical augmentation alone adds more"),
        (UP, ZERO, UP, "neutral", "beyond repetition"),
        (UP, None, UP, "neutral", "beyond repetition"),
        (ZERO, UP, UP, "neutral", "No difference shown"),
        (DOWN, UP, UP, "bad", "harms"),
        (Score(0.05, None, None), UP, UP, "neutral", "cannot be judged"),
        (None, None, None, "neutral", "not measured"),
    ],
)
def test_every_case_of_the_rule(gain, over_control, over_classical, outcome, words):
    verdict = judge_use(gain, over_control, over_classical)
    assert verdict.outcome == outcome
    assert words in verdict.sentence


@pytest.mark.parametrize("gain", [Score(0.04, 0.005, 0.08, 0.18), Score(-0.04, -0.08, -0.005, 0.18)])
def test_an_interval_beside_zero_that_the_correction_takes_back_is_said_so(gain):
    verdict = judge_use(gain, UP, UP)
    assert verdict.outcome == "neutral"
    assert "No difference shown" in verdict.sentence
    assert "p = 0.18 after Holm's correction" in verdict.sentence


def test_the_sentence_holds_its_figures():
    assert "+0.050 AUC [+0.010, +0.090]" in judge_use(UP, UP, ZERO).sentence
