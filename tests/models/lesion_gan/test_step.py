"""The lesion step: who moves when, exact resumption, guarded updates, learning in the right direction."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from models.labels import LabelSettings
from models.lesion_gan.classic import ClassicDiscriminator, ClassicGenerator
from models.lesion_gan.discriminator import DCGANDiscriminator
from models.lesion_gan.generator import DCGANGenerator
from models.lesion_gan.step import R1_INTERVAL, LesionGANStep, LesionStepSettings
from models.losses import OBJECTIVES, NonFiniteLossError


def build(settings: LesionStepSettings | None = None, *, width: int = 4, num_classes: int = 2) -> LesionGANStep:
    rng = torch.Generator().manual_seed(0)
    generator = DCGANGenerator(32, rng, num_classes=num_classes, latent_size=8, width=width)
    discriminator = DCGANDiscriminator(32, rng, num_classes=num_classes, width=width)
    return LesionGANStep(generator, discriminator, settings or LesionStepSettings(), rng)


def batch(count: int = 4, seed: int = 5) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, 32, 32, generator=rng) * 2 - 1, torch.arange(count) % 2


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_resumed_from_its_parts_is_bit_identical() -> None:
    settings = LesionStepSettings(r1_gamma=1.0)
    first = build(settings)
    for seed in range(R1_INTERVAL - 1):  # the next R1 penalty falls into the resumed part
        first.step(*batch(seed=seed))
    second = build(settings)
    second.rng.set_state(first.rng.get_state())
    for name, network in second.networks().items():
        network.load_state_dict(first.networks()[name].state_dict())
    for name, optimizer in second.optimizers().items():
        optimizer.load_state_dict(deepcopy(first.optimizers()[name].state_dict()))
    second.load_extra_state(first.extra_state())
    for seed in range(3):
        terms, resumed = first.step(*batch(seed=50 + seed)), second.step(*batch(seed=50 + seed))
        assert same(terms, resumed)
        assert terms.keys() == resumed.keys()
        assert ("r1" in terms) == (seed == 1)
    for name, network in first.networks().items():
        assert same(weights(network), weights(second.networks()[name])), name


def test_d_alone_moves_in_its_turn() -> None:
    step = build()
    images, classes = batch()
    fakes = step.generator(torch.randn(4, 8, generator=step.rng), classes)
    generator, discriminator = weights(step.generator), weights(step.discriminator)
    step._discriminator_step(images, fakes.detach(), classes)
    assert same(generator, weights(step.generator))
    # The hinge pulls the last offset up for real and down for fake images: to nowhere, within the margin.
    moved = [name for name, _ in step.discriminator.named_parameters() if name != "score.bias"]
    assert not any(torch.equal(discriminator[name], weights(step.discriminator)[name]) for name in moved)


def test_g_alone_moves_in_its_turn() -> None:
    step = build()
    images, classes = batch()
    fakes = step.generator(torch.randn(4, 8, generator=step.rng), classes)
    generator, discriminator = weights(step.generator), weights(step.discriminator)
    step._generator_step(images, fakes, classes)
    assert same(discriminator, weights(step.discriminator))
    assert all(parameter.grad is None for parameter in step.discriminator.parameters())
    moved = [name for name, _ in step.generator.named_parameters()]
    assert not any(torch.equal(generator[name], weights(step.generator)[name]) for name in moved)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_are_those_of_the_objective_on_the_scores_of_d(name: str) -> None:
    settings = LesionStepSettings(objective=name, diff_augment=(), learning_rate_discriminator=0.0)
    step = build(settings)
    images, classes = batch()
    fakes = step.generator(torch.zeros(4, 8), classes).detach()
    terms = step._discriminator_step(images, fakes, classes)
    step.discriminator.eval()
    real_scores, fake_scores = step.discriminator(images, classes), step.discriminator(fakes, classes)
    expected = OBJECTIVES[name].discriminator_loss(real_scores, fake_scores)
    assert torch.allclose(terms["d_loss"], expected, atol=1e-5)
    assert torch.allclose(terms["d_real_score"], real_scores.mean(), atol=1e-5)
    assert torch.allclose(terms["d_fake_score"], fake_scores.mean(), atol=1e-5)


def test_d_learns_to_tell_images_from_the_fakes_of_a_generator_that_stands_still() -> None:
    step = build(LesionStepSettings(learning_rate_generator=0.0, learning_rate_discriminator=2e-3, diff_augment=()))
    images, classes = batch(8)
    terms = [step.step(images, classes) for _ in range(25)]
    assert terms[-1]["d_loss"] < terms[0]["d_loss"]
    assert terms[-1]["p_real_over_fake"] == 1


def test_g_raises_the_scores_of_its_fakes_against_a_d_that_stands_still() -> None:
    step = build(LesionStepSettings(learning_rate_discriminator=0.0, learning_rate_generator=2e-3, diff_augment=()))
    images, classes = batch(8)
    terms = [step.step(images, classes) for _ in range(25)]
    assert terms[-1]["d_fake_score"] > terms[0]["d_fake_score"]


def test_a_tiny_gan_learns_the_brightness_of_each_class() -> None:
    settings = LesionStepSettings(
        diff_augment=(), learning_rate_generator=2e-3, learning_rate_discriminator=2e-3, ema_decay=0.9
    )
    step, rng = build(settings, width=6), torch.Generator().manual_seed(9)
    classes = torch.arange(16) % 2
    for _ in range(150):
        level = torch.where(classes == 0, -0.6, 0.6)[:, None, None, None]
        step.step(level + 0.1 * torch.randn(16, 1, 32, 32, generator=rng), classes)
    sampled = step.sample(classes, torch.randn(16, 8, generator=rng)).mean(dim=(1, 2, 3))
    assert sampled[classes == 0].mean() < -0.3
    assert sampled[classes == 1].mean() > 0.3


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_batch_that_is_not_finite_raises_and_no_weight_moves(value: float) -> None:
    step = build()
    step.step(*batch())
    images, classes = batch()
    images[1, 0, 3, 3] = value
    average = weights(step.ema.average)
    trained = [*step.generator.parameters(), *step.discriminator.parameters()]
    before = [parameter.detach().clone() for parameter in trained]
    with pytest.raises(NonFiniteLossError, match="d_loss"):
        step.step(images, classes)
    assert same(average, weights(step.ema.average))
    assert all(torch.equal(old, new) for old, new in zip(before, trained, strict=True))
    assert all(torch.isfinite(term) for term in step.step(*batch()).values())


def test_the_batch_is_left_as_it_was() -> None:
    step = build(LesionStepSettings(r1_gamma=1.0))
    images, classes = batch()
    copy, class_copy = images.clone(), classes.clone()
    step.step(images, classes)
    assert torch.equal(images, copy)
    assert torch.equal(classes, class_copy)
    assert not images.requires_grad


def test_sampling_uses_the_average_and_depends_on_nothing_but_its_arguments() -> None:
    step = build()
    for seed in range(3):
        step.step(*batch(seed=seed))
    classes, latent = torch.tensor([0, 1]), torch.randn(2, 8, generator=torch.Generator().manual_seed(3))
    state = step.rng.get_state()
    images = step.sample(classes, latent)
    assert torch.equal(images, step.ema.average(latent, classes))
    assert torch.equal(images, step.sample(classes, latent))
    assert torch.equal(step.rng.get_state(), state)
    assert not torch.equal(images, step.generator.eval()(latent, classes))


def test_learning_rates_scale_with_the_settings() -> None:
    step = build(LesionStepSettings(learning_rate_generator=1e-3, learning_rate_discriminator=4e-3))
    step.set_learning_rate_factor(0.5)
    step.set_learning_rate_factor(0.25)
    rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in step.optimizers().items()}
    assert rates == {"generator": 2.5e-4, "discriminator": 1e-3}


def test_diversity_is_zero_after_collapse() -> None:
    step = build(LesionStepSettings(learning_rate_generator=0.0))
    with torch.no_grad():
        for parameter in step.generator.to_image.parameters():
            parameter.zero_()
    assert step.step(*batch())["diversity"] == 0


def test_bad_batches_and_networks_that_do_not_match_are_refused() -> None:
    step = build()
    images, classes = batch()
    with pytest.raises(ValueError, match=r"\(4, 1, 16, 16\)[\s\S]*\(N, 1, 32, 32\)"):
        step.step(images[:, :, ::2, ::2], classes)
    with pytest.raises(ValueError, match="N ≥ 2"):
        step.step(images[:1], classes[:1])
    with pytest.raises(ValueError, match=r"\[0, 1, 2\][\s\S]*0 to 1"):
        step.step(images, torch.tensor([0, 1, 2, 0]))
    rng = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match="same images"):
        LesionGANStep(DCGANGenerator(32, rng, num_classes=2), DCGANDiscriminator(32, rng), LesionStepSettings(), rng)
    with pytest.raises(ValueError, match="blur"):
        build(LesionStepSettings(diff_augment=("blur",)))


def build_plain(settings: LesionStepSettings) -> LesionGANStep:
    """A discriminator without spectral normalization."""
    rng = torch.Generator().manual_seed(0)
    generator = DCGANGenerator(32, rng, num_classes=2, latent_size=8, width=4)
    return LesionGANStep(generator, DCGANDiscriminator(32, rng, num_classes=2, width=4, spectral=False), settings, rng)


def test_clipped_weights_stay_in_their_box() -> None:
    step = build_plain(LesionStepSettings(objective="wasserstein", weight_clip=0.01))
    assert max(p.abs().max() for p in step.discriminator.parameters()) > 0.01
    step.step(*batch())
    assert max(p.abs().max() for p in step.discriminator.parameters()) == pytest.approx(0.01)


def test_the_gradient_penalty_brings_the_slope_between_real_and_fake_toward_one() -> None:
    step = build_plain(
        LesionStepSettings(
            objective="wasserstein", gradient_penalty=10.0, learning_rate_discriminator=1e-3, diff_augment=()
        )
    )
    terms = [step.step(*batch(count=8, seed=seed % 4)) for seed in range(60)]
    assert terms[0]["gradient_penalty"] > 0.5  # small weights: almost flat, so near (0 − 1)²
    assert terms[-1]["gradient_penalty"] < 0.5 * terms[0]["gradient_penalty"]


def test_r2_is_r1_of_the_fakes() -> None:
    step = build(LesionStepSettings(r1_gamma=1.0, r2_gamma=1.0, diff_augment=()))
    images, classes = batch()
    both = step._discriminator_step(images, images.clone(), classes)
    assert both["r1"].item() == pytest.approx(both["r2"].item(), rel=1e-5)  # one cloud, given as real and as fake


def test_g_moves_at_every_nth_step_only() -> None:
    step = build(LesionStepSettings(critic_steps=3))
    moved = []
    for seed in range(6):
        before = weights(step.generator)
        terms = step.step(*batch(seed=seed))
        after = weights(step.generator)
        moved.append(not all(torch.equal(before[name], after[name]) for name, _ in step.generator.named_parameters()))
        assert ("g_loss" in terms) == moved[-1]
    assert moved == [False, False, True, False, False, True]


def test_softened_labels_change_what_d_is_told_and_hard_ones_do_not() -> None:
    losses = {}
    for name, labels in {"hard": LabelSettings(), "smooth": LabelSettings(real=0.9)}.items():
        step = build(LesionStepSettings(objective="non_saturating", labels=labels))
        losses[name] = step.step(*batch())["d_loss"].item()
    assert losses["hard"] != pytest.approx(losses["smooth"], rel=1e-6)


def test_instance_noise_fades_to_nothing() -> None:
    step = build(LesionStepSettings(instance_noise=0.5, diff_augment=()))
    images = batch(count=16)[0]
    assert (step._seen_by_d(images) - images).std().item() == pytest.approx(0.5, rel=0.05)
    step.set_noise_factor(0.5)
    assert (step._seen_by_d(images) - images).std().item() == pytest.approx(0.25, rel=0.05)
    step.set_noise_factor(0.0)
    assert torch.equal(step._seen_by_d(images), images)


def test_the_classic_family_trains() -> None:
    rng = torch.Generator().manual_seed(0)
    generator = ClassicGenerator(32, rng, num_classes=2, latent_size=8, width=4)
    discriminator = ClassicDiscriminator(32, rng, num_classes=2, width=4)
    step = LesionGANStep(generator, discriminator, LesionStepSettings(objective="non_saturating", diff_augment=()), rng)
    before = weights(generator), weights(discriminator)
    terms = step.step(*batch())
    assert all(torch.isfinite(term) for term in terms.values())
    assert not same(before[0], weights(generator))
    assert not same(before[1], weights(discriminator))


@pytest.mark.parametrize("penalty", ["r1_gamma", "r2_gamma", "gradient_penalty"])
def test_a_penalty_with_batch_norm_in_d_is_refused(penalty: str) -> None:
    rng = torch.Generator().manual_seed(0)
    networks = (ClassicGenerator(32, rng, width=4), ClassicDiscriminator(32, rng, width=4))
    with pytest.raises(ValueError, match="judges each image by itself"):
        LesionGANStep(*networks, LesionStepSettings(**{penalty: 1.0}), rng)


def test_clipping_with_spectral_norm_and_soft_labels_without_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="not both"):
        build(LesionStepSettings(weight_clip=0.01))
    with pytest.raises(ValueError, match="objective that has labels"):
        build(LesionStepSettings(objective="hinge", labels=LabelSettings(real=0.9)))


def test_bfloat16_gives_the_step_of_float32_but_for_its_rounding() -> None:
    terms = {}
    for precision in ("float32", "bfloat16"):
        step = build(LesionStepSettings(r1_gamma=1.0, r2_gamma=1.0, precision=precision))
        terms[precision] = step.step(*batch(8))
        assert all(parameter.dtype == torch.float32 for parameter in step.generator.parameters())
    for name, exact in terms["float32"].items():
        assert terms["bfloat16"][name].dtype == torch.float32
        assert terms["bfloat16"][name].item() == pytest.approx(exact.item(), rel=0.1, abs=0.01), name
    assert terms["float32"]["d_grad_norm"] != terms["bfloat16"]["d_grad_norm"]


def test_the_gradient_of_each_player_is_clipped() -> None:
    moved = {}
    for clip in (0.0, 1e-6):
        step = build(LesionStepSettings(gradient_clip=clip, betas=(0.0, 0.0)))
        for optimizer in step.optimizers().values():
            for group in optimizer.param_groups:
                group["eps"] = 1.0  # so that Adam's step shrinks with the gradient
        before = {name: weights(network) for name, network in step.networks().items()}
        step.step(*batch())
        moved[clip] = {
            name: max(
                float((before[name][key] - value.detach()).abs().max()) for key, value in network.named_parameters()
            )
            for name, network in step.networks().items()
            if name != "generator_ema"
        }
    assert all(moved[1e-6][name] < 1e-2 * moved[0.0][name] for name in moved[0.0])


def test_the_scale_of_the_loss_follows_objective_and_labels() -> None:
    smooth = build(LesionStepSettings(objective="non_saturating", labels=LabelSettings(real=0.9))).game()
    assert smooth.chance_loss == pytest.approx(2 * 0.6931472)
    assert smooth.floor_loss == pytest.approx(0.3250830)
    assert build(LesionStepSettings(objective="hinge")).game().chance_loss == 2
