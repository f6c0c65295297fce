"""Weak labels, deformed partners, structure and the other objectives, as the step uses them."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from models.mr_to_ct.discriminator import PatchDiscriminator
from models.mr_to_ct.generator import UNetGenerator
from models.mr_to_ct.players import MRToCTNetworks
from models.mr_to_ct.registration import DeformationNetwork, warp
from models.mr_to_ct.step import MRToCTBatch, MRToCTStep
from models.mr_to_ct.step_settings import MRToCTStepSettings

SIDE = 32
ALONE = {"lambda_cycle": 0.0, "lambda_adversarial": 0.0}


def build(settings: MRToCTStepSettings, *, registration: bool = True) -> MRToCTStep:
    rng = torch.Generator().manual_seed(0)
    networks = MRToCTNetworks(
        UNetGenerator(1, 1, rng, width=4, depth=2),
        UNetGenerator(1, 1, rng, width=4, depth=2),
        PatchDiscriminator(1, rng, width=4),
        PatchDiscriminator(1, rng, width=4),
        DeformationNetwork(1, rng, width=8) if registration else None,
    )
    return MRToCTStep(networks, settings, torch.Generator().manual_seed(1))


def batch(count: int = 2, *, paired: bool = True) -> MRToCTBatch:
    rng = torch.Generator().manual_seed(5)
    mr, ct, weak = (torch.rand(count, 1, SIDE, SIDE, generator=rng) * 2 - 1 for _ in range(3))
    mask = torch.zeros(count, 1, SIDE, SIDE)
    mask[:, :, 4:-4, 4:-4] = 1
    return MRToCTBatch(mr, ct, mask, mask.clone(), torch.full((count,), paired), weak)


def test_weak_labels_alone_can_teach_and_are_weighed_like_partners() -> None:
    settings = MRToCTStepSettings(lambda_weak=3.0, outside_weight=0.25, **ALONE)
    data, step = batch(paired=False), build(settings)
    assert set(step.networks()) == {"mr_to_ct", "mr_to_ct_ema"}
    made = step.networks()["mr_to_ct"](data.mr).detach()
    terms = step.step(data)
    weight = data.mr_mask + 0.25 * (1 - data.mr_mask)
    expected = ((made - data.weak).abs() * weight).sum() / weight.sum()
    assert torch.allclose(terms["weak"], expected, atol=1e-6)
    assert torch.allclose(terms["g_loss"], 3 * expected, rtol=1e-5)


def test_distances_are_measured_in_hounsfield_not_in_units() -> None:
    """Units from 0.4 on stand for more HU than those below: the same distance in units costs more there."""
    knots = {"ct_knots_unit": (-1.0, 0.4, 1.0), "ct_knots_linear": (-1.0, -0.3, 1.0)}
    settings = MRToCTStepSettings(lambda_weak=1.0, outside_weight=1.0, **knots, **ALONE)
    data, step = batch(), build(settings)
    made = step.networks()["mr_to_ct"](data.mr).detach()
    assert made.abs().max() < 0.3  # an untrained network stays below the knot
    low = build(settings).step(replace(data, weak=torch.full_like(made, 0.4)))["weak"]
    high = build(settings).step(replace(data, weak=torch.full_like(made, 0.6)))["weak"]
    assert (high - low).item() == pytest.approx(0.2 * 1.3 / 0.6, rel=1e-4)
    assert low.item() == pytest.approx(0.5 * (0.4 - made).mean().item(), rel=1e-4)


def test_first_steps_leave_the_game_out_and_later_ones_play_it() -> None:
    step, data = build(MRToCTStepSettings(lambda_weak=1.0, warm_steps=2)), batch(paired=False)
    before = {n: p.clone() for n, p in step.networks()["ct_discriminator"].state_dict().items()}
    for _ in range(2):
        terms = step.step(data)
        assert {"weak", "g_loss", "g_grad_norm"} == set(terms)
    assert all(torch.equal(p, before[n]) for n, p in step.networks()["ct_discriminator"].state_dict().items())
    assert {"adversarial_ct", "cycle_mr", "identity_ct", "d_loss", "weak"} <= set(step.step(data))


def test_a_warm_start_resumes_where_it_was() -> None:
    settings = MRToCTStepSettings(lambda_weak=1.0, warm_steps=3)
    step, data = build(settings), batch(paired=False)
    step.step(data)
    step.step(data)
    again = build(settings)
    again.load_extra_state(step.extra_state())
    assert "d_loss" not in again.step(data)
    assert "d_loss" in again.step(data)


def test_structure_terms_are_there_when_they_weigh_something() -> None:
    settings = MRToCTStepSettings(
        lambda_weak=1.0,
        lambda_gradient=2.0,
        lambda_mind=3.0,
        lambda_body=4.0,
        lambda_bone=5.0,
        lambda_bone_entropy=6.0,
        **ALONE,
    )
    terms = build(settings).step(batch(paired=False))
    weights = {"weak": 1.0, "gradient": 2.0, "mind": 3.0, "body": 4.0, "bone": 5.0, "bone_entropy": 6.0}
    expected = sum(weight * terms[name] for name, weight in weights.items())
    assert torch.allclose(terms["g_loss"], torch.as_tensor(expected), rtol=1e-5)
    assert all(0 < terms[name] <= 1.5 for name in weights if name != "bone_entropy")


def test_rows_without_a_partner_do_not_count_for_bone() -> None:
    settings = MRToCTStepSettings("mixed", lambda_bone=1.0, lambda_bone_entropy=1.0, **ALONE)
    data = replace(batch(), paired=torch.tensor([True, False]), weak=None)
    other = replace(data, ct=data.ct.clone(), mr=data.mr.clone())
    other.ct[1] = -other.ct[1]
    first, second = build(settings).step(data), build(settings).step(other)
    assert torch.equal(first["bone"], second["bone"])
    assert torch.equal(first["bone_entropy"], second["bone_entropy"])


def test_registered_needs_its_network_and_pairs() -> None:
    settings = MRToCTStepSettings("registered", **ALONE)
    with pytest.raises(ValueError, match="registration"):
        build(settings, registration=False)
    with pytest.raises(ValueError, match="a pair in every row"):
        build(settings).step(batch(paired=False))
    step = build(settings)
    assert set(step.networks()) == {"mr_to_ct", "mr_to_ct_ema", "registration"}
    assert {"paired_ct", "deformation"} <= set(step.step(batch()))


def shifted_pairs(count: int, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Smooth MR, the CT that is its negative with sharp steps, and that CT moved by up to two pixels."""
    coarse = torch.rand(count, 1, 6, 6, generator=rng) * 2 - 1
    mr = F.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic", align_corners=True).clamp(-1, 1)
    ct = -torch.tanh(6 * mr)
    shifts = (torch.rand(count, 2, 1, 1, generator=rng) * 2 - 1) * 3
    return mr, ct, warp(ct, shifts.expand(-1, -1, SIDE // 8, SIDE // 8))


def test_registered_beats_paired_on_pairs_that_are_shifted() -> None:
    """Both see CTs moved by up to three pixels, each another way; both are scored on CTs that are not moved."""
    errors = {}
    for supervision in ("paired", "registered"):
        settings = MRToCTStepSettings(
            supervision, lambda_smooth=1.0, learning_rate_generator=3e-3, betas=(0.9, 0.999), ema_decay=0.95, **ALONE
        )
        step, rng = build(settings), torch.Generator().manual_seed(7)
        mask = torch.ones(8, 1, SIDE, SIDE)
        for _ in range(300):
            mr, _, moved = shifted_pairs(8, rng)
            step.step(MRToCTBatch(mr, moved, mask, mask, torch.ones(8, dtype=torch.bool)))
        mr, ct, _ = shifted_pairs(32, torch.Generator().manual_seed(8))
        errors[supervision] = float((step.translate(mr) - ct).abs().mean())
    assert errors["registered"] < 0.8 * errors["paired"]


@pytest.mark.parametrize(
    ("objective", "extra"),
    [
        ("minimax", {}),
        ("hinge", {"penalty": 1.0}),
        ("relativistic", {"penalty": 1.0}),
        ("wasserstein", {"weight_clip": 0.01}),
    ],
)
def test_every_objective_plays(objective: str, extra: dict[str, float]) -> None:
    step, data = build(MRToCTStepSettings(objective=objective, **extra)), batch(paired=False)  # type: ignore[arg-type]
    for _ in range(2):
        terms = step.step(data)
    assert terms["d_grad_norm"] > 0
    bound = max(float(p.detach().abs().max()) for p in step.networks()["ct_discriminator"].parameters())
    assert (bound <= 0.01) == (objective == "wasserstein")


def test_the_relativistic_generator_is_compared_with_the_real_images_of_its_batch() -> None:
    step, data = build(MRToCTStepSettings(objective="relativistic", penalty=1.0)), batch(paired=False)
    judge = step.networks()["ct_discriminator"]
    fake, real = judge(step.networks()["mr_to_ct"](data.mr)), judge(data.ct)
    expected = F.softplus(real - fake).mean()
    assert torch.allclose(step.step(data)["adversarial_ct"], expected, atol=1e-5)


def test_wasserstein_without_a_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="weight_clip"):
        MRToCTStepSettings(objective="wasserstein")
