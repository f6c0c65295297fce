"""Does a cohort help a classifier? One sentence by a stated rule, with the control arm and classical augmentation.

A gain over the real images alone is not enough: repeating real images, or classical augmentation that costs nothing,
may give as much.
"""

from typing import Literal

from pipeline.evaluate.utility_scores import SIGNIFICANCE, Score
from pipeline.results import Verdict

RULE = (
    "helps: the 95 % intervals of the AUC difference from real and from real + duplicated both lie above 0, the former "
    "with p ≤ 0.05 after Holm's correction over arms, and classical augmentation alone does not give more; harms: the "
    "interval of the difference from real lies below 0, with the same p; else no difference is shown"
)


def judge_use(gain: Score | None, over_control: Score | None, over_classical: Score | None) -> Verdict:
    """Verdict on the arm ``real_synthetic``.

    Args:
        gain: its macro AUC minus that of ``real``, with the p-value corrected over arms; None where it was not run.
        over_control: minus that of ``real_duplicated``.
        over_classical: minus that of ``real_classical``.
    """
    outcome: Literal["good", "neutral", "bad"] = "neutral"
    if gain is None:
        sentence = "The use for a classifier was not measured: no synthetic image is left."
    elif gain.value is None or gain.low is None or gain.high is None:
        sentence = "The use for a classifier cannot be judged: too few test subjects for an interval."
    elif gain.high < 0 and _significant(gain):
        outcome, sentence = "bad", f"The synthetic cohort harms: {figures(gain)} against real alone."
    elif not _significant(gain) and (gain.low > 0 or gain.high < 0):
        sentence = (
            f"No difference shown between real + synthetic and real alone: {figures(gain)} is not enough where several "
            f"arms are compared (p = {gain.p:.2f} after Holm's correction)."
        )
    elif gain.low <= 0 or not _significant(gain):
        sentence = f"No difference shown between real + synthetic and real alone: {figures(gain)}."
    elif not _above_zero(over_control):
        sentence = (
            f"No benefit shown beyond repetition: {figures(gain)} against real alone, but {figures(over_control)} "
            "against duplicated real images."
        )
    elif over_classical is not None and over_classical.value is not None and over_classical.value < 0:
        sentence = (
            f"The synthetic cohort adds to real images ({figures(gain)}), but classical augmentation alone adds more "
            f"({figures(over_classical)} against it)."
        )
    else:
        outcome, sentence = "good", f"The synthetic cohort helps: {figures(gain)} against real alone."
    return Verdict(key="utility", outcome=outcome, sentence=sentence, rule=RULE)


def figures(score: Score | None) -> str:
    """A difference of AUC with its interval."""
    if score is None or score.value is None or score.low is None or score.high is None:
        return "no figure"
    return f"{score.value:+.3f} AUC [{score.low:+.3f}, {score.high:+.3f}]".replace("-", "−")


def _significant(score: Score) -> bool:
    """A score without a p-value is judged by its interval alone."""
    return score.p is None or score.p <= SIGNIFICANCE


def _above_zero(score: Score | None) -> bool:
    return score is not None and score.low is not None and score.low > 0
