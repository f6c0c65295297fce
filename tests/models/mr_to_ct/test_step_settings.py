"""Which networks and terms a set of weights asks for, and which sets are refused."""

import pytest

from models.mr_to_ct.step_settings import MRToCTStepSettings


def test_defaults_are_the_facts_of_the_paper() -> None:
    settings = MRToCTStepSettings()
    assert (settings.objective, settings.lambda_cycle, settings.lambda_identity) == ("least_squares", 10, 0.5)
    assert (settings.pool_size, settings.learning_rate_generator, settings.betas[0]) == (50, 2e-4, 0.5)


@pytest.mark.parametrize(
    ("settings", "ct_to_mr", "discriminators", "pairs", "identity"),
    [
        (MRToCTStepSettings(), True, True, False, True),
        (MRToCTStepSettings(lambda_identity=0), True, True, False, False),
        (MRToCTStepSettings("mixed"), True, True, True, True),
        (MRToCTStepSettings("mixed", lambda_cycle=0), True, True, True, False),
        (MRToCTStepSettings("paired", lambda_cycle=0), False, True, True, False),
        (MRToCTStepSettings("paired", lambda_cycle=0, lambda_adversarial=0), False, False, True, False),
        (MRToCTStepSettings("paired"), True, True, True, True),
    ],
)
def test_only_what_the_weights_need_is_used(
    settings: MRToCTStepSettings, ct_to_mr: bool, discriminators: bool, pairs: bool, identity: bool
) -> None:
    assert settings.trains_ct_to_mr is ct_to_mr
    assert settings.trains_discriminators is discriminators
    assert settings.uses_pairs is pairs
    assert settings.uses_identity is identity


def test_unknown_supervision_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'weak'[\s\S]*unpaired, paired, mixed"):
        MRToCTStepSettings("weak")  # type: ignore[arg-type]


def test_weights_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        MRToCTStepSettings(lambda_cycle=-1)
    with pytest.raises(ValueError, match=r"outside 1\.5"):
        MRToCTStepSettings(outside_weight=1.5)


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(ValueError, match="supervision unpaired"):
        MRToCTStepSettings(lambda_adversarial=0)
    with pytest.raises(ValueError, match="supervision mixed"):
        MRToCTStepSettings("mixed", lambda_adversarial=0, lambda_paired=0)
