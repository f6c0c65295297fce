"""The translation step: what each supervision looks at, exact resumption, guarded updates, quick learning."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from models.losses import NonFiniteLossError
from models.mr_to_ct.discriminator import PatchDiscriminator
from models.mr_to_ct.generator import UNetGenerator
from models.mr_to_ct.players import MRToCTNetworks
from models.mr_to_ct.step import MRToCTBatch, MRToCTStep
from models.mr_to_ct.step_settings import MRToCTStepSettings


def players(slices: int = 1, context: int = 0, seed: int = 0) -> MRToCTNetworks:
    rng = torch.Generator().manual_seed(seed)
    channels = slices + context
    return MRToCTNetworks(
        UNetGenerator(channels, slices, rng, width=4, depth=2),
        UNetGenerator(channels, slices, rng, width=4, depth=2),
        PatchDiscriminator(slices, rng, width=4),
        PatchDiscriminator(slices, rng, width=4),
    )


def build(settings: MRToCTStepSettings | None = None, *, slices: int = 1, context: int = 0) -> MRToCTStep:
    rng = torch.Generator().manual_seed(1)
    return MRToCTStep(players(slices, context), settings or MRToCTStepSettings(), rng)


def batch(count: int = 2, *, slices: int = 1, context: int = 0, seed: int = 5, side: int = 32) -> MRToCTBatch:
    rng = torch.Generator().manual_seed(seed)
    shape = (count, slices + context, side, side)
    mask = torch.zeros(count, slices, side, side)
    mask[:, :, 4:-4, 4:-4] = 1
    mr, ct = (torch.rand(shape, generator=rng) * 2 - 1 for _ in range(2))
    return MRToCTBatch(mr, ct, mask, mask.clone(), torch.ones(count, dtype=torch.bool))


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def close(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.allclose(first[n], second[n], atol=1e-4) for n in first)


@pytest.mark.parametrize("supervision", ["unpaired", "mixed"])
def test_a_run_resumed_from_its_parts_is_bit_identical(supervision: str) -> None:
    settings = MRToCTStepSettings("mixed" if supervision == "mixed" else "unpaired", pool_size=3)
    first = build(settings)
    for seed in range(3):
        first.step(batch(seed=seed))
    second = build(settings)
    second.rng.set_state(first.rng.get_state())
    for name, network in second.networks().items():
        network.load_state_dict(first.networks()[name].state_dict())
    for name, optimizer in second.optimizers().items():
        optimizer.load_state_dict(deepcopy(first.optimizers()[name].state_dict()))
    second.load_extra_state(first.extra_state())
    for seed in range(3):
        assert same(first.step(batch(seed=50 + seed)), second.step(batch(seed=50 + seed)))
    for name, network in first.networks().items():
        assert same(weights(network), weights(second.networks()[name])), name
    assert same(first.extra_state(), second.extra_state())


def test_the_loss_is_the_weighted_sum_of_its_terms() -> None:
    settings = MRToCTStepSettings("mixed", lambda_adversarial=2, lambda_cycle=3, lambda_identity=0.25, lambda_paired=7)
    terms = build(settings).step(batch())
    kinds = {"adversarial": 2.0, "cycle": 3.0, "identity": 0.75, "paired": 7.0}
    expected = sum(weight * terms[f"{kind}_{side}"] for kind, weight in kinds.items() for side in ("ct", "mr"))
    assert torch.allclose(terms["g_loss"], torch.as_tensor(expected), rtol=1e-5)


def test_terms_of_the_first_step_equal_those_computed_one_network_call_at_a_time() -> None:
    networks, data = players(), batch()
    step = MRToCTStep(deepcopy(networks), MRToCTStepSettings(), torch.Generator().manual_seed(0))
    terms = step.step(data)
    assert networks.ct_to_mr is not None
    assert networks.ct_discriminator is not None
    fake_ct, fake_mr = networks.mr_to_ct(data.mr), networks.ct_to_mr(data.ct)
    expected = {
        "cycle_mr": (networks.ct_to_mr(fake_ct) - data.mr).abs().mean(),
        "cycle_ct": (networks.mr_to_ct(fake_mr) - data.ct).abs().mean(),
        "identity_ct": (networks.mr_to_ct(data.ct) - data.ct).abs().mean(),
        "identity_mr": (networks.ct_to_mr(data.mr) - data.mr).abs().mean(),
        "adversarial_ct": (networks.ct_discriminator(fake_ct) - 1).square().mean(),
    }
    for name, value in expected.items():
        assert torch.allclose(terms[name], value, atol=1e-5), name
    # The pool was empty, so that D saw these very fakes; both sides are halved.
    assert networks.mr_discriminator is not None
    judged = ((networks.ct_discriminator, data.ct, fake_ct), (networks.mr_discriminator, data.mr, fake_mr))
    d_loss = sum(0.5 * ((d(real) - 1).square().mean() + d(fake).square().mean()) for d, real, fake in judged)
    assert torch.allclose(terms["d_loss"], torch.as_tensor(d_loss), atol=1e-5)


def test_unpaired_training_cannot_tell_which_ct_belongs_to_which_mr() -> None:
    data = batch(4)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = replace(data, ct=data.ct[order], ct_mask=data.ct_mask[order])
    unmarked = replace(data, paired=torch.zeros(4, dtype=torch.bool))
    terms = build().step(data)
    assert same(terms, build().step(unmarked))
    assert close(terms, build().step(shuffled))
    mixed = MRToCTStepSettings("mixed")
    assert not close(build(mixed).step(data), build(mixed).step(shuffled))


def test_mixed_supervision_reads_partners_only_where_there_is_a_pair() -> None:
    settings = MRToCTStepSettings("mixed", lambda_cycle=0, lambda_adversarial=0)
    data = replace(batch(3), paired=torch.tensor([True, False, True]))
    changed = replace(data, ct=data.ct.clone(), mr=data.mr.clone())
    changed.ct[1] = -changed.ct[1]
    terms = build(settings).step(data)
    assert torch.equal(terms["paired_ct"], build(settings).step(changed)["paired_ct"])
    alone = replace(data, paired=torch.zeros(3, dtype=torch.bool))
    silent = build(settings).step(alone)
    assert silent["paired_ct"] == 0
    assert silent["g_grad_norm"] == 0


def test_the_paired_term_weighs_inside_and_outside_of_the_body_and_vanishes_on_the_truth() -> None:
    settings = MRToCTStepSettings("paired", lambda_cycle=0, lambda_adversarial=0, outside_weight=0.25)
    data = batch()
    step = build(settings)
    prediction = step.networks()["mr_to_ct"](data.mr).detach()
    exact = build(settings).step(replace(data, ct=prediction))
    assert exact["paired_ct"] == 0
    off = prediction + torch.where(data.ct_mask > 0, 0.1, 0.4)
    inside, outside = data.ct_mask.sum(), (1 - data.ct_mask).sum()
    expected = (0.1 * inside + 0.25 * 0.4 * outside) / (inside + 0.25 * outside)
    assert torch.allclose(step.step(replace(data, ct=off))["paired_ct"], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "networks"),
    [
        (MRToCTStepSettings(), {"mr_to_ct", "ct_to_mr", "ct_discriminator", "mr_discriminator"}),
        (MRToCTStepSettings("paired", lambda_cycle=0), {"mr_to_ct", "ct_discriminator"}),
        (MRToCTStepSettings("paired", lambda_cycle=0, lambda_adversarial=0), {"mr_to_ct"}),
        (MRToCTStepSettings("mixed", lambda_adversarial=0), {"mr_to_ct", "ct_to_mr"}),
    ],
)
def test_networks_in_use_all_move_and_the_others_are_not_touched(
    settings: MRToCTStepSettings, networks: set[str]
) -> None:
    everyone = players()
    named = {name: network for name, network in vars(everyone).items() if isinstance(network, nn.Module)}
    before = {name: weights(network) for name, network in named.items()}
    step = MRToCTStep(everyone, settings, torch.Generator().manual_seed(0))
    step.step(batch())
    assert set(step.networks()) == networks | {"mr_to_ct_ema"}
    assert {name for name, network in named.items() if not same(before[name], weights(network))} == networks
    assert ("discriminators" in step.optimizers()) == any("discriminator" in name for name in networks)


def test_generators_and_discriminators_move_only_in_their_own_turn() -> None:
    names = ("mr_to_ct", "ct_to_mr", "ct_discriminator", "mr_discriminator")
    for still, settings in (
        (names[:2], MRToCTStepSettings(learning_rate_generator=0.0)),
        (names[2:], MRToCTStepSettings(learning_rate_discriminator=0.0)),
    ):
        step = build(settings)
        before = {name: weights(step.networks()[name]) for name in names}
        step.step(batch())
        stayed = {name for name in names if same(before[name], weights(step.networks()[name]))}
        assert stayed == set(still)


@pytest.mark.parametrize("side", ["mr", "ct"])
def test_a_batch_that_is_not_finite_raises_and_no_weight_moves(side: str) -> None:
    step, data = build(), batch()
    step.step(data)
    poisoned = batch()
    getattr(poisoned, side)[0, 0, 7, 7] = float("nan")
    before = {name: weights(network) for name, network in step.networks().items()}
    with pytest.raises(NonFiniteLossError, match="= nan"):
        step.step(poisoned)
    for name, network in step.networks().items():
        assert same(before[name], weights(network)), name
    assert all(torch.isfinite(term) for term in step.step(data).values())


def test_two_pairs_are_learned_by_heart_in_a_moment() -> None:
    settings = MRToCTStepSettings(
        "paired", lambda_cycle=0, lambda_adversarial=0, learning_rate_generator=1e-2, ema_decay=0.9
    )
    step, data = build(settings), batch()
    smooth = torch.nn.functional.avg_pool2d(data.mr, 5, stride=1, padding=2)
    data = replace(data, mr=(4 * smooth).clamp(-1, 1), ct=torch.where(smooth > 0, 0.5, -1.0))
    first = step.step(data)["paired_ct"]
    for _ in range(120):
        last = step.step(data)["paired_ct"]
    assert last < first / 5
    inside = data.ct_mask > 0
    assert (step.translate(data.mr) - data.ct).abs()[inside].mean() < first / 5


def test_cycles_are_learned_without_pairs() -> None:
    settings = MRToCTStepSettings(learning_rate_generator=5e-3, learning_rate_discriminator=1e-3)
    step, data = build(settings), batch()
    smooth = torch.nn.functional.avg_pool2d(data.mr, 5, stride=1, padding=2)
    data = replace(data, mr=(4 * smooth).clamp(-1, 1), ct=(-4 * smooth.flip(0)).clamp(-1, 1))
    terms = [step.step(data) for _ in range(60)]
    for name in ("cycle_mr", "cycle_ct"):
        assert terms[-1][name] < terms[0][name] / 2, name


def test_context_channels_are_handed_on_and_never_scored() -> None:
    step = build(slices=3, context=2)
    data = batch(slices=3, context=2)
    terms = step.step(data)
    assert step.translate(data.mr).shape == (2, 3, 32, 32)
    moved = replace(data, mr=data.mr.clone())
    moved.mr[:, 3:] += 1e-6  # a context far from any prediction would show in the losses at once if it were scored
    assert close(terms, build(slices=3, context=2).step(moved))
    far = replace(data, mr=data.mr.clone(), ct=data.ct.clone())
    far.mr[:, 3:], far.ct[:, 3:] = 100.0, 100.0
    assert build(slices=3, context=2).step(far)["identity_mr"] < 2


def test_translation_uses_the_average_and_leaves_the_batch_as_it_was() -> None:
    step, data = build(), batch()
    copy = deepcopy(data)
    for _ in range(3):
        step.step(data)
    assert torch.equal(step.translate(data.mr), step.ema.average(data.mr))
    assert not torch.equal(step.translate(data.mr), step.networks()["mr_to_ct"](data.mr))
    tensors = [[part for part in vars(one).values() if part is not None] for one in (copy, data)]
    assert all(torch.equal(old, new) for old, new in zip(*tensors, strict=True))


def test_learning_rates_scale_with_the_settings() -> None:
    step = build(MRToCTStepSettings(learning_rate_generator=1e-3, learning_rate_discriminator=4e-3))
    step.set_learning_rate_factor(0.5)
    step.set_learning_rate_factor(0.25)
    rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in step.optimizers().items()}
    assert rates == {"generators": 2.5e-4, "discriminators": 1e-3}


def test_missing_networks_and_batches_that_do_not_fit_are_refused() -> None:
    rng = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match="ct_to_mr = None"):
        MRToCTStep(replace(players(), ct_to_mr=None), MRToCTStepSettings(), rng)
    with pytest.raises(ValueError, match="mr_discriminator = None"):
        MRToCTStep(replace(players(), mr_discriminator=None), MRToCTStepSettings(), rng)
    with pytest.raises(ValueError, match="judged 3"):
        MRToCTStep(replace(players(), ct_discriminator=players(3).ct_discriminator), MRToCTStepSettings(), rng)
    with pytest.raises(ValueError, match=r"\(2, 1, 28, 32\)"):
        build().step(replace(batch(), mr_mask=batch().mr_mask[:, :, :28]))
    with pytest.raises(ValueError, match="1 pairs in a batch of 2"):
        build(MRToCTStepSettings("paired")).step(replace(batch(), paired=torch.tensor([True, False])))


def two_sequences(slices: int = 1, context: int = 3) -> MRToCTNetworks:
    rng = torch.Generator().manual_seed(0)
    channels = 2 * slices + context
    return MRToCTNetworks(
        UNetGenerator(channels, slices, rng, width=4, depth=2),
        UNetGenerator(channels, 2 * slices, rng, width=4, depth=2),
        PatchDiscriminator(slices, rng, width=4),
        PatchDiscriminator(2 * slices, rng, width=4),
    )


def two_sequence_batch(seed: int = 5) -> MRToCTBatch:
    plain = batch(context=3, seed=seed)
    second = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(seed + 1)) * 2 - 1
    return replace(plain, mr=torch.cat([plain.mr[:, :1], second, plain.mr[:, 1:]], dim=1))


def test_terms_of_two_sequences_are_those_of_networks_called_by_hand() -> None:
    networks, given = two_sequences(), two_sequence_batch()
    there, back = deepcopy(networks.mr_to_ct), deepcopy(networks.ct_to_mr)
    assert back is not None
    settings = MRToCTStepSettings("mixed", sequences=2)
    terms = MRToCTStep(networks, settings, torch.Generator().manual_seed(1)).step(given)
    ct, place = given.ct[:, :1], given.ct[:, 1:]
    mr, mr_place = given.mr[:, :2], given.mr[:, 2:]
    with torch.no_grad():
        pseudo_ct, pseudo_mr = there(given.mr), back(torch.cat([ct, ct, place], dim=1))
        wanted = {
            "cycle_mr": back(torch.cat([pseudo_ct, pseudo_ct, mr_place], dim=1)) - mr,
            "cycle_ct": there(torch.cat([pseudo_mr, place], dim=1)) - ct,
            "identity_ct": there(torch.cat([ct, ct, place], dim=1)) - ct,
            "identity_mr": back(given.mr) - mr,
        }
    assert pseudo_mr.shape[1] == 2
    for name, difference in wanted.items():
        assert torch.allclose(terms[name], difference.abs().mean(), atol=1e-5), name


def test_one_sequence_too_few_is_refused() -> None:
    step = MRToCTStep(two_sequences(), MRToCTStepSettings(sequences=2), torch.Generator())
    with pytest.raises(ValueError, match="s = 2 sequences"):
        step.step(batch(context=3))
    with pytest.raises(ValueError, match="once for CT and once for each sequence"):
        MRToCTStep(two_sequences(), MRToCTStepSettings(), torch.Generator())
