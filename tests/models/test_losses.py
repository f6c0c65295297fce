"""Objectives against hand values, closed-form optima and gradient directions."""

import math

import pytest
import torch
from torch import Tensor

from models.losses import (
    OBJECTIVES,
    NonFiniteLossError,
    cycle_loss,
    gradient_penalty,
    identity_loss,
    masked_l1,
    mixtures_of,
    objective_named,
    r1_penalty,
    require_finite,
)


def logit(probability: float) -> Tensor:
    return torch.tensor([math.log(probability / (1 - probability))])


def generator_loss(name: str, fake: Tensor, real: Tensor) -> Tensor:
    objective = OBJECTIVES[name]
    return objective.generator_loss(fake, real) if objective.relative else objective.generator_loss(fake)


def gradient(loss: Tensor, scores: Tensor) -> float:
    return float(torch.autograd.grad(loss, scores)[0].sum())


def test_hand_values_of_the_cross_entropy_players() -> None:
    real, fake = logit(0.9), logit(0.1)
    assert OBJECTIVES["non_saturating"].generator_loss(fake).item() == pytest.approx(2.303, abs=5e-4)
    assert OBJECTIVES["non_saturating"].generator_loss(real).item() == pytest.approx(0.105, abs=5e-4)
    assert OBJECTIVES["minimax"].generator_loss(fake).item() == pytest.approx(math.log(0.9), rel=1e-5)
    d_loss = OBJECTIVES["minimax"].discriminator_loss(real, fake).item()
    assert d_loss == pytest.approx(-2 * math.log(0.9), rel=1e-5)


def test_value_of_the_game_at_equilibrium_is_minus_two_ln_two() -> None:
    undecided = torch.zeros(5)
    for name in ("minimax", "non_saturating"):
        assert -OBJECTIVES[name].discriminator_loss(undecided, undecided).item() == pytest.approx(-2 * math.log(2))


def test_hinge_hand_values() -> None:
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 1.0])
    # max(0, 1 − s) = 0, 0.5, 2 and max(0, 1 + t) = 0, 1, 2
    assert OBJECTIVES["hinge"].discriminator_loss(real, fake).item() == pytest.approx(2.5 / 3 + 1)
    assert OBJECTIVES["hinge"].generator_loss(fake).item() == pytest.approx(2 / 3)


def test_least_squares_hand_values() -> None:
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([0.0, -2.0])
    assert OBJECTIVES["least_squares"].discriminator_loss(real, fake).item() == pytest.approx(2 + 2)
    assert OBJECTIVES["least_squares"].generator_loss(fake).item() == pytest.approx((1 + 9) / 2)


@pytest.mark.parametrize("name", ["minimax", "non_saturating"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.7])
def test_best_cross_entropy_discriminator_is_the_density_ratio(name: str, share: float) -> None:
    # At one point of space with density share ∝ p and 1 − share ∝ q, D* = p / (p + q) (Goodfellow 2014, proposition 1).
    score = torch.zeros(1, requires_grad=True)
    objective = OBJECTIVES[name]
    for _ in range(200):
        real_part = objective.discriminator_loss(score, torch.tensor([-50.0]))
        fake_part = objective.discriminator_loss(torch.tensor([50.0]), score)
        (step,) = torch.autograd.grad(share * real_part + (1 - share) * fake_part, score)
        score = (score - 4 * step).detach().requires_grad_()
    assert torch.sigmoid(score).item() == pytest.approx(share, abs=1e-4)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_discriminator_wants_real_higher_and_fake_lower_and_generator_fake_higher(name: str) -> None:
    objective = OBJECTIVES[name]
    real, fake = torch.tensor([0.1], requires_grad=True), torch.tensor([0.2], requires_grad=True)
    d_loss = objective.discriminator_loss(real, fake)
    assert torch.autograd.grad(d_loss, real, retain_graph=True)[0].item() < 0
    assert torch.autograd.grad(d_loss, fake)[0].item() > 0
    assert gradient(generator_loss(objective.name, fake, real), fake) < 0


def test_minimax_saturates_on_obvious_fakes_and_non_saturating_does_not() -> None:
    obvious = torch.tensor([-8.0], requires_grad=True)
    flat = gradient(OBJECTIVES["minimax"].generator_loss(obvious), obvious)
    steep = gradient(OBJECTIVES["non_saturating"].generator_loss(obvious), obvious)
    assert flat == pytest.approx(-1 / (1 + math.exp(8)), rel=1e-4)
    assert steep == pytest.approx(-1 / (1 + math.exp(-8)), rel=1e-4)


def test_hinge_gives_no_gradient_beyond_the_margin() -> None:
    real, fake = torch.tensor([1.5], requires_grad=True), torch.tensor([-1.5], requires_grad=True)
    loss = OBJECTIVES["hinge"].discriminator_loss(real, fake)
    grads = torch.autograd.grad(loss, (real, fake))
    assert [g.item() for g in grads] == [0.0, 0.0]


def test_extreme_scores_stay_finite() -> None:
    extreme = torch.tensor([-1e4, 1e4])
    for objective in OBJECTIVES.values():
        assert torch.isfinite(objective.discriminator_loss(extreme, extreme))
        assert torch.isfinite(generator_loss(objective.name, extreme, extreme.flip(0)))


def test_registry_keys_are_the_names_and_an_unknown_name_is_refused() -> None:
    assert all(key == objective.name for key, objective in OBJECTIVES.items())
    with pytest.raises(ValueError, match=r"'gan'[\s\S]*hinge[\s\S]*objective"):
        objective_named("gan")


def test_wasserstein_hand_values_and_constant_slopes() -> None:
    real, fake = torch.tensor([2.0, 4.0]), torch.tensor([-1.0, 5.0], requires_grad=True)
    assert OBJECTIVES["wasserstein"].discriminator_loss(real, fake).item() == pytest.approx(2 - 3)
    loss = OBJECTIVES["wasserstein"].generator_loss(fake)
    assert loss.item() == pytest.approx(-2)
    assert torch.autograd.grad(loss, fake)[0].tolist() == [-0.5, -0.5]  # however good or bad the fake is


def test_relativistic_hand_values_and_invariance_to_a_shift_of_all_scores() -> None:
    real, fake = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0])
    game = OBJECTIVES["relativistic"]
    expected = (math.log(1 + math.exp(-1)) + math.log(2)) / 2
    assert game.discriminator_loss(real, fake).item() == pytest.approx(expected)
    assert game.generator_loss(fake, real).item() == pytest.approx((math.log(1 + math.e) + math.log(2)) / 2)
    assert game.discriminator_loss(real + 7, fake + 7).item() == pytest.approx(expected, rel=1e-5)
    assert game.discriminator_loss(real, real).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("name", [name for name, objective in OBJECTIVES.items() if objective.labeled_loss])
def test_hard_labels_give_the_plain_discriminator_loss(name: str) -> None:
    objective = OBJECTIVES[name]
    real, fake = torch.tensor([0.3, -2.0, 5.0]), torch.tensor([1.0, 0.1, -4.0])
    assert objective.labeled_loss is not None
    parts = objective.labeled_loss(real, torch.ones(3)) + objective.labeled_loss(fake, torch.zeros(3))
    assert parts.item() == pytest.approx(objective.discriminator_loss(real, fake).item(), rel=1e-6)


@pytest.mark.parametrize(("name", "best"), [("non_saturating", math.log(9)), ("least_squares", 0.9)])
def test_a_smoothed_label_has_a_finite_best_score(name: str, best: float) -> None:
    # Of 0.9: σ(s) = 0.9 for cross-entropy, s = 0.9 for squares; beyond it D pays for being too sure.
    loss = OBJECTIVES[name].labeled_loss
    assert loss is not None
    score = torch.tensor([best], requires_grad=True)
    assert gradient(loss(score, torch.tensor([0.9])), score) == pytest.approx(0, abs=1e-6)
    surer = torch.tensor([best + 1], requires_grad=True)
    assert gradient(loss(surer, torch.tensor([0.9])), surer) > 0


def test_gradient_penalty_of_a_linear_discriminator_is_its_squared_distance_from_slope_one() -> None:
    weight = torch.tensor([3.0, -4.0, 0.0, 0.0], requires_grad=True)
    images = torch.zeros(5, 1, 2, 2).requires_grad_()
    penalty = gradient_penalty((images.flatten(1) * weight).sum(1), images)
    assert penalty.item() == pytest.approx((5 - 1) ** 2)
    (slope,) = torch.autograd.grad(penalty, weight)
    assert torch.allclose(slope, 2 * 4 * weight.detach() / 5)


def test_gradient_penalty_of_a_flat_discriminator_is_one_and_finite_to_differentiate() -> None:
    weight = torch.zeros(4, requires_grad=True)
    images = torch.ones(2, 1, 2, 2).requires_grad_()
    penalty = gradient_penalty((images.flatten(1) * weight).sum(1), images)
    assert penalty.item() == 1
    assert torch.isfinite(torch.autograd.grad(penalty, weight)[0]).all()


def test_mixtures_lie_on_the_line_between_real_and_fake() -> None:
    real, fake = torch.ones(3, 1, 2, 2), torch.zeros(3, 1, 2, 2)
    mixed = mixtures_of(real, fake, torch.tensor([0.0, 0.25, 1.0]))
    assert mixed[:, 0, 0, 0].tolist() == [0.0, 0.25, 1.0]
    assert mixed.requires_grad
    assert mixed.grad_fn is None


def test_r1_of_a_linear_discriminator_is_half_its_squared_weight() -> None:
    weight = torch.tensor([3.0, -4.0, 0.0, 1.0], requires_grad=True)
    images = torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    penalty = r1_penalty((images.flatten(1) * weight).sum(1), images)
    assert penalty.item() == pytest.approx(0.5 * 26)
    (slope,) = torch.autograd.grad(penalty, weight)
    assert torch.allclose(slope, weight)


def test_masked_l1_counts_only_what_the_mask_covers() -> None:
    prediction, target = torch.tensor([[1.0, 5.0], [2.0, 7.0]]), torch.tensor([[0.0, 5.0], [5.0, -7.0]])
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    assert masked_l1(prediction, target, mask).item() == pytest.approx((1 + 0 + 3) / 3)
    assert masked_l1(prediction, target, 0.25 * mask).item() == pytest.approx((1 + 0 + 3) / 3)
    assert masked_l1(prediction, target, torch.ones(2, 2)).item() == cycle_loss(prediction, target).item()


def test_masked_l1_broadcasts_a_mask_and_vanishes_with_it() -> None:
    prediction = torch.tensor([[1.0, 5.0], [2.0, 7.0]], requires_grad=True)
    rows = torch.tensor([[1.0], [0.0]])
    assert masked_l1(prediction, torch.zeros(2, 2), rows).item() == pytest.approx(3)
    nothing = masked_l1(prediction, torch.zeros(2, 2), torch.zeros(2, 2))
    assert nothing.item() == 0
    assert torch.equal(torch.autograd.grad(nothing, prediction)[0], torch.zeros(2, 2))


def test_cycle_and_identity_are_mean_absolute_errors() -> None:
    first, second = torch.tensor([0.0, 1.0, -1.0]), torch.tensor([0.5, 1.0, 1.0])
    assert cycle_loss(first, second).item() == pytest.approx(2.5 / 3)
    assert identity_loss(second, first).item() == pytest.approx(2.5 / 3)


def test_the_first_term_that_is_not_finite_is_named() -> None:
    require_finite({"good": torch.tensor(1.0)})
    terms = {"good": torch.tensor(1.0), "bad": torch.tensor(math.inf), "worse": torch.tensor(math.nan)}
    with pytest.raises(NonFiniteLossError, match="bad = inf") as caught:
        require_finite(terms)
    assert (caught.value.term, caught.value.value) == ("bad", math.inf)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_loss_at_chance_is_that_of_a_discriminator_that_scores_everything_zero(name: str) -> None:
    objective, nothing = OBJECTIVES[name], torch.zeros(3)
    if objective.chance_loss is None:
        assert name == "least_squares"  # there, saying nothing is the score one half
        assert objective.discriminator_loss(nothing + 0.5, nothing + 0.5).item() == pytest.approx(0.5)
    else:
        assert objective.discriminator_loss(nothing, nothing).item() == pytest.approx(objective.chance_loss)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_no_game_of_bounded_loss_falls_below_zero_and_only_wasserstein_does(name: str) -> None:
    rng = torch.Generator().manual_seed(0)
    real, fake = torch.randn(200, generator=rng) * 9, torch.randn(200, generator=rng) * 9
    losses = [OBJECTIVES[name].discriminator_loss(real[i : i + 1], fake[i : i + 1]).item() for i in range(200)]
    assert (min(losses) < 0) == (name == "wasserstein")
