from typing import Any, get_args

import pytest

from pipeline.report.methods import lesion_methods, mr_to_ct_methods
from pipeline.settings import EvaluateMRToCTSettings, RunSettings, TrainLesionsSettings, TrainMRToCTSettings
from pipeline.settings_loading import validate


def choices(settings: type[Any], field: str) -> tuple[str, ...]:
    return get_args(settings.model_fields[field].annotation)


def run(**sections: Any) -> RunSettings:
    return validate(sections, "test")


def test_every_choice_of_the_settings_has_words_of_its_own() -> None:
    lesions = {
        lesion_methods(run(train={"lesions": {"objective": name}}))
        for name in choices(TrainLesionsSettings, "objective")
    }
    assert len(lesions) == 6
    for section, field, settings in (
        ("train", "objective", TrainMRToCTSettings),
        ("train", "supervision", TrainMRToCTSettings),
        ("train", "generator", TrainMRToCTSettings),
        ("evaluate", "dialect", EvaluateMRToCTSettings),
    ):
        names = choices(settings, field)
        assert len({mr_to_ct_methods(run(**{section: {"mr_to_ct": {field: name}}})) for name in names}) == len(names)


@pytest.mark.parametrize("slices", [1, 3])
def test_numbers_in_the_words_are_those_of_the_settings(slices: int) -> None:
    settings = run(train={"mr_to_ct": {"slices": slices, "images": 4321, "supervision": "mixed", "lambda_paired": 17}})
    text = " ".join(mr_to_ct_methods(settings))
    assert "4\u202f321 patches" in text
    assert "paired 17" in text
    assert ("single slices" in text) == (slices == 1)


def test_the_paired_weight_is_not_claimed_for_unpaired_training() -> None:
    assert "paired 50" not in " ".join(mr_to_ct_methods(run(train={"mr_to_ct": {"supervision": "unpaired"}})))
    assert "No differentiable augmentation" in " ".join(lesion_methods(run(train={"lesions": {"diff_augment": []}})))
