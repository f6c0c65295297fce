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


LESIONS = {
    "train": {
        "images": 9, "batch_size": 9, "precision": "bfloat16", "gradient_clip": 9.0, "family": "dcgan_classic",
        "width": 9, "latent_size": 9, "learning_rate_generator": 9.0, "learning_rate_discriminator": 9.0,
        "betas": (0.9, 0.9), "ema_decay": 0.9, "diff_augment": (), "spectral_norm": False, "r1_gamma": 9.0,
        "r2_gamma": 9.0, "gradient_penalty": 9.0, "critic_steps": 9, "virtual_batch": 9, "label_real": 0.9,
        "label_softness": 0.1, "label_flip_rate": 0.1, "instance_noise": 0.1, "mirror": True,
        "adaptive_augment": 0.9, "upsampling": "resize", "decay_from": 0.9, "alarms": {"action": "roll_back"},
    },
    "generate": {
        "truncation": 0.5, "ensemble": (9,), "filter": {"manifold": True},
        "lines": ({"lesion_class": "cyst", "count": 9},),
    },
    "evaluate": {
        "classifier_steps": 9, "seeds": 9, "classifier": "resnet18", "discriminator_arm": "off", "subgroups": (),
        "decision_thresholds": (0.1,), "learning_real_shares": (0.9,), "kid_subsets": 9, "neighbors": 9,
        "bootstrap": 999, "extractors": ({"name": "mine", "path": "x.onnx"},),
    },
    "prepare": {"attributes": ("size_mm",), "size_px": 32, "slices_per_lesion": 9},
}  # fmt: skip
TRANSLATION = {
    "train": {
        "images": 9, "batch_size": 9, "precision": "bfloat16", "gradient_clip": 9.0, "generator": "resnet", "width": 9,
        "discriminator_width": 9, "slices": 3, "patch_px": 64, "objective": "hinge", "learning_rate": 9.0,
        "betas": (0.9, 0.9), "lambda_adversarial": 9.0, "lambda_cycle": 9.0, "lambda_identity": 9.0, "pool_size": 9,
        "ema_decay": 0.9, "decay_from": 0.9, "mirror": False, "coordinates": False, "alarms": {"patience": 9},
    },
    "generate": {"overlap": 0.1},
    "evaluate": {
        "dialect": "synthrad2023", "mask_dilation_px": 9, "wepl_directions": 9, "bootstrap": 999,
        "stopping_power": ((-1000.0, 0.0), (3000.0, 2.0)),
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [(section, key, value) for section, own in LESIONS.items() for key, value in own.items()],
)
def test_what_shapes_the_synthetic_images_and_their_judgment_is_in_the_words(
    section: str, key: str, value: Any
) -> None:
    assert lesion_methods(run(**{section: {"lesions": {key: value}}})) != lesion_methods(run())


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [(section, key, value) for section, own in TRANSLATION.items() for key, value in own.items()],
)
def test_what_shapes_the_pseudo_ct_and_its_judgment_is_in_the_words(section: str, key: str, value: Any) -> None:
    assert mr_to_ct_methods(run(**{section: {"mr_to_ct": {key: value}}})) != mr_to_ct_methods(run())


def test_methods_say_how_both_sides_of_a_game_without_pairs_were_compared() -> None:
    def words(**changes: Any) -> str:
        return " ".join(mr_to_ct_methods(run(train={"mr_to_ct": changes})))

    assert "above 0.25 is a warning" in words(supervision="mixed", domain_mismatch_limit=0.25)
    assert "above 0.3 would have ended the training" in words(domain_mismatch="refuse")
    assert "Cohen 2018" not in words(supervision="paired")
    assert "16 neighboring slices in three dimensions (Çiçek 2016)" in words(dimensions=3, slices=16)
