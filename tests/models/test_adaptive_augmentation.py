"""Adaptive augmentation: the closed form of the controller, and what a probability does to a draw."""

import pytest
import torch

from models.adaptive_augmentation import IMAGES_TO_ONE, INTERVAL, AdaptiveProbability
from models.diff_augment import POLICIES, AugmentationDraw, apply_augmentation, draw_augmentation

CPU = torch.device("cpu")
IMAGES = torch.randn(4000, 1, 8, 8, generator=torch.Generator().manual_seed(7))


def drawn(probability: float | None, policies: tuple[str, ...] = POLICIES) -> AugmentationDraw:
    rng = torch.Generator().manual_seed(0)
    return draw_augmentation(
        policies, IMAGES, rng, probability=None if probability is None else torch.tensor(probability)
    )


def test_it_rises_and_falls_by_the_images_since_its_last_move() -> None:
    adaptive = AdaptiveProbability(0.6, CPU)
    move = INTERVAL * 1000 / IMAGES_TO_ONE
    for step in range(1, 3 * INTERVAL + 1):  # lead 0.8, above the target
        adaptive.see(torch.tensor(0.9), 1000)
        assert adaptive.value.item() == pytest.approx(step // INTERVAL * move)
    for _ in range(INTERVAL):  # lead 0.4, below it
        adaptive.see(torch.tensor(0.7), 1000)
    assert adaptive.value.item() == pytest.approx(2 * move)


def test_the_mean_of_an_interval_decides_and_not_its_last_step() -> None:
    adaptive = AdaptiveProbability(0.6, CPU)
    for lead in (1.0, 1.0, 1.0, 0.7):  # mean of 2 p − 1 is 0.85
        adaptive.see(torch.tensor(lead), 1000)
    assert adaptive.value > 0


def test_it_stays_a_probability() -> None:
    adaptive = AdaptiveProbability(0.6, CPU)
    for _ in range(INTERVAL):
        adaptive.see(torch.tensor(0.5), IMAGES_TO_ONE)
    assert adaptive.value == 0
    for _ in range(2 * INTERVAL):
        adaptive.see(torch.tensor(1.0), IMAGES_TO_ONE)
    assert adaptive.value == 1


def test_it_goes_on_from_its_state() -> None:
    first, second = AdaptiveProbability(0.6, CPU), AdaptiveProbability(0.6, CPU)
    for _ in range(INTERVAL + 2):
        first.see(torch.tensor(1.0), 700)
    second.load_state_dict({name: value.clone() for name, value in first.state_dict().items()})
    for adaptive in (first, second):
        for _ in range(2):
            adaptive.see(torch.tensor(1.0), 700)
    assert first.value == second.value == 2 * INTERVAL * 700 / IMAGES_TO_ONE


@pytest.mark.parametrize("target", [0, 1, -0.1])
def test_a_target_that_cannot_be_steered_to_is_refused(target: float) -> None:
    with pytest.raises(ValueError, match="adaptive_augment"):
        AdaptiveProbability(target, CPU)


def test_probability_zero_changes_no_image_and_one_changes_as_without() -> None:
    assert torch.allclose(apply_augmentation(IMAGES, drawn(0.0)), IMAGES, atol=1e-6)
    assert torch.equal(apply_augmentation(IMAGES, drawn(1.0)), apply_augmentation(IMAGES, drawn(None)))


@pytest.mark.parametrize("policy", POLICIES)
def test_the_share_of_images_that_a_policy_changes_is_the_probability(policy: str) -> None:
    changed = [
        (apply_augmentation(IMAGES, drawn(share, (policy,))) - IMAGES).abs().amax(dim=(1, 2, 3)) > 1e-6
        for share in (0.3, 1.0)
    ]
    expected = 0.3 * changed[1].double().mean()
    assert (changed[0].double().mean() - expected).abs() < 4 * (0.3 * 0.7 / len(IMAGES)) ** 0.5


def test_policies_are_thrown_apart() -> None:
    draw = drawn(0.5, ("brightness", "contrast"))
    assert draw.brightness is not None
    assert draw.contrast is not None
    both = ((draw.brightness != 0) & (draw.contrast != 1)).double().mean()
    assert abs(both.item() - 0.25) < 0.03
