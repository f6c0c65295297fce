"""The three-dimensional networks: sides, what they see, symmetry, repeatability, refusals."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.blocks import initialize
from models.mr_to_ct.players import MRToCTNetworks
from models.mr_to_ct.step import MRToCTBatch, MRToCTStep
from models.mr_to_ct.step_settings import MRToCTStepSettings
from models.mr_to_ct.volumetric import (
    VolumePatchDiscriminator,
    VolumeUNetGenerator,
    enlarge,
    mirror_edges,
)

K = 8


def generator(context: int = 3, seed: int = 0) -> VolumeUNetGenerator:
    return VolumeUNetGenerator(K, context, torch.Generator().manual_seed(seed), width=4)


def discriminator(seed: int = 1) -> VolumePatchDiscriminator:
    return VolumePatchDiscriminator(K, torch.Generator().manual_seed(seed), width=4)


def draws(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_edges_are_mirrored_along_all_three_axes_and_their_gradient_is_that_of_torch() -> None:
    volume = draws(2, 3, 4, 5, 6).requires_grad_()
    expected = F.pad(volume, (1,) * 6, mode="reflect")
    padded = mirror_edges(volume)
    assert torch.equal(padded, expected)
    weight = draws(*padded.shape, seed=2)
    (ours,) = torch.autograd.grad((padded * weight).sum(), volume)
    (theirs,) = torch.autograd.grad((expected * weight).sum(), volume)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("step", [(1, 2, 2), (2, 2, 2)])
def test_enlarging_repeats_every_voxel(step: tuple[int, int, int]) -> None:
    volume = draws(2, 3, 2, 3, 4)
    expected = volume
    for axis, times in enumerate(step):
        expected = expected.repeat_interleave(times, dim=2 + axis)
    assert torch.equal(enlarge(volume, step), expected)


def test_a_stack_comes_back_with_its_sides_and_inside_the_range() -> None:
    network = generator()
    translated = network(50 * draws(2, K + 3, 16, 32))
    assert translated.shape == (2, K, 16, 32)
    assert translated.abs().max() <= 1
    assert (network.in_channels, network.out_channels, network.divisor) == (K + 3, K, 8)


def test_all_weights_learn_and_stacks_of_a_batch_do_not_touch_each_other() -> None:
    network, batch = generator(), draws(2, K + 3, 16, 16)
    (network(batch) - draws(2, K, 16, 16)).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []
    assert torch.allclose(network(batch)[1:], network(batch[1:]), atol=1e-5)


def loud(network: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(8)


def test_the_translation_of_a_slice_follows_its_neighbors_and_the_context() -> None:
    """What 2.5-D has no kernels for: how a slice lies between its neighbors."""
    network, first = generator(), draws(1, K + 3, 16, 16)
    loud(network)
    for channel in (0, K + 1):
        second = first.clone()
        second[:, channel] *= -1
        assert (network(second) - network(first))[:, 4].abs().max() > 1e-4


def test_a_stack_in_reverse_order_gives_the_translation_in_reverse_order() -> None:
    """With kernels that are mirrored along the slices; halving ones take the mean of pairs of slices."""
    network = generator(context=0)
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv3d):
            weight = (layer.weight + layer.weight.flip(2)) / 2
            if layer.stride[0] == 2:
                weight = torch.cat([torch.zeros_like(weight[:, :, :1]), weight[:, :, 1:2], weight[:, :, 1:2]], dim=2)
            layer.weight.data = weight
    loud(network)
    batch = draws(1, K, 16, 16)
    assert torch.allclose(network(batch.flip(1)), network(batch).flip(1), atol=1e-4)


@pytest.mark.parametrize("context", [0, 3])
def test_the_network_is_shown_the_slices_the_context_along_them_and_the_place_of_each(context: int) -> None:
    network, batch = generator(context=context), draws(2, K + context, 16, 16)
    shown: list[Tensor] = []
    network.stem.register_forward_hook(lambda layer, given, made: shown.append(given[0]))
    network(batch)
    (volume,) = shown
    assert torch.equal(volume[:, 0], batch[:, :K])
    assert volume.shape[1] == (5 if context else 1)
    if context:
        assert all(torch.equal(volume[:, 1:4, k], batch[:, K:]) for k in range(K))
        places = volume[:, 4].amax(dim=(0, 2, 3))
        assert torch.equal(places, volume[:, 4].amin(dim=(0, 2, 3)))
        assert places.tolist() == pytest.approx([2 * k / (K - 1) - 1 for k in range(K)])


def test_scores_are_one_for_each_patch_and_need_patches_large_enough() -> None:
    judge = discriminator()
    assert judge(draws(2, K, 32, 40)).shape == (2, K // 4, 2, 3)
    with pytest.raises(ValueError, match="≥ 24"):
        judge(draws(1, K, 16, 32))


@pytest.mark.parametrize("slices", [4, 6, 10])
def test_slices_that_cannot_be_halved_are_refused(slices: int) -> None:
    with pytest.raises(ValueError, match="multiples of 4, at least 8"):
        VolumeUNetGenerator(slices, 0, torch.Generator())


def test_weights_have_the_deviation_of_the_paper_and_follow_the_seed() -> None:
    network = torch.nn.Conv3d(16, 16, 3)
    initialize(network, torch.Generator().manual_seed(0))
    assert float(network.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert not network.bias.any()
    first, second, other = (generator(seed=seed).head.convolution.weight for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def batch_of(paired: bool) -> MRToCTBatch:
    mask = torch.ones(2, K, 32, 32)
    return MRToCTBatch(draws(2, K + 3, 32, 32), draws(2, K + 3, 32, 32, seed=5), mask, mask, torch.full((2,), paired))


@pytest.mark.parametrize("supervision", ["unpaired", "paired", "mixed"])
def test_a_step_of_every_supervision_is_equal_bit_for_bit_when_it_is_made_again(supervision: str) -> None:
    def trained() -> dict[str, Tensor]:
        networks = MRToCTNetworks(generator(), generator(seed=3), discriminator(), discriminator(2))
        settings = MRToCTStepSettings(
            supervision=supervision,  # type: ignore[arg-type]
            lambda_gradient=1.0,
            lambda_mind=1.0,
            lambda_body=1.0,
            pool_size=2,
            penalty=0.1,
        )
        step = MRToCTStep(networks, settings, torch.Generator().manual_seed(4))
        for _ in range(2):
            terms = step.step(batch_of(supervision != "unpaired"))
        assert all(bool(torch.isfinite(value)) for value in terms.values())
        return {name: p for whole in step.networks().values() for name, p in whole.state_dict().items()}

    first, second = trained(), trained()
    assert all(torch.equal(first[name], second[name]) for name in first)
    untouched = generator().state_dict()
    assert any(not torch.equal(first[name], untouched[name]) for name in untouched)


def test_a_small_network_learns_what_needs_the_neighboring_slices() -> None:
    """The target is the difference of the slices above and below, which no single slice tells."""
    network = VolumeUNetGenerator(K, 0, torch.Generator().manual_seed(0), width=8)
    adam = torch.optim.Adam(network.parameters(), lr=5e-3)
    rng = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(60):
        stack = torch.rand((2, K, 16, 16), generator=rng) - 0.5
        target = torch.zeros_like(stack)
        target[:, 1:-1] = stack[:, 2:] - stack[:, :-2]
        loss = (network(stack) - target)[:, 1:-1].abs().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.35 * losses[0]


@pytest.mark.slow
def test_a_network_can_be_exported_for_any_number_of_stacks() -> None:
    network, batch = generator(), draws(2, K + 3, 16, 16)
    count = torch.export.Dim("count", min=1, max=64)
    program = torch.export.export(network, (batch,), dynamic_shapes=({0: count},)).module()
    more = draws(5, K + 3, 16, 16, seed=9)
    torch.testing.assert_close(program(more), network(more), atol=1e-5, rtol=0)
