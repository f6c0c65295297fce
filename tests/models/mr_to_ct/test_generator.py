"""The translators: sizes, symmetry they must have, context channels, refusals."""

import pytest
import torch
from torch import Tensor

from models.mr_to_ct.generator import ResNetGenerator, Translator, UNetGenerator


def unet(in_channels: int = 1, out_channels: int = 1, *, depth: int = 3) -> UNetGenerator:
    return UNetGenerator(in_channels, out_channels, torch.Generator().manual_seed(0), width=4, depth=depth)


def resnet(in_channels: int = 1, out_channels: int = 1, *, blocks: int = 6) -> ResNetGenerator:
    return ResNetGenerator(in_channels, out_channels, torch.Generator().manual_seed(0), width=4, blocks=blocks)


def slices(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def widen(network: Translator) -> Translator:
    """Give untrained weights enough gain that outputs spread over the range."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(8)
    return network


@pytest.fixture(params=["unet", "resnet"])
def network(request: pytest.FixtureRequest) -> Translator:
    return unet(5, 3) if request.param == "unet" else resnet(5, 3)


@pytest.mark.parametrize("sides", [(32, 32), (16, 48)])
def test_a_stack_of_slices_comes_back_with_its_sides_and_inside_the_range(
    network: Translator, sides: tuple[int, int]
) -> None:
    translated = network(50 * slices(2, 5, *sides))
    assert translated.shape == (2, 3, *sides)
    assert translated.abs().max() <= 1


def test_all_weights_learn(network: Translator) -> None:
    (network(slices(2, 5, 16, 16)) - slices(2, 3, 16, 16)).square().sum().backward()
    silent = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or parameter.grad.abs().max() == 0
    ]
    assert silent == []


def test_images_of_a_batch_do_not_touch_each_other(network: Translator) -> None:
    batch = slices(3, 5, 16, 16)
    assert torch.allclose(network(batch)[1:2], network(batch[1:2]), atol=1e-5)


def test_context_channels_are_used(network: Translator) -> None:
    widen(network)
    first = slices(1, 5, 16, 16)
    second = first.clone()
    second[:, 3:] = -second[:, 3:]
    assert not torch.allclose(network(first), network(second), atol=1e-4)


def test_with_mirrored_kernels_a_mirrored_slice_gives_the_mirrored_translation(network: Translator) -> None:
    # Strided convolutions of odd kernel sample the left pixel of a pair, so they are left out: their kernels are
    # replaced by means of 2×2 pixels, which are symmetric about the pair.
    mirrored = {}
    for name, parameter in network.named_parameters():
        mirrored[name] = (parameter + parameter.flip(-1)) / 2 if parameter.ndim == 4 else parameter
    network.load_state_dict(mirrored)
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.stride == (2, 2):
            pooled = torch.zeros_like(layer.weight)
            pooled[:, :, 1:, 1:] = layer.weight.mean(dim=(2, 3), keepdim=True)
            layer.weight.data = pooled
    widen(network)
    batch = slices(2, 5, 32, 32)
    assert torch.allclose(network(batch.flip(-1)), network(batch).flip(-1), atol=1e-4)


def test_absolute_intensity_reaches_the_output_of_the_unet() -> None:
    network = widen(unet())
    batch = 0.2 * slices(1, 1, 16, 16)
    assert (network(batch + 0.3) - network(batch)).abs().mean() > 1e-3


def test_residual_blocks_are_counted() -> None:
    parameters = [sum(p.numel() for p in resnet(blocks=blocks).parameters()) for blocks in (5, 6, 9)]
    assert parameters[2] - parameters[1] == 3 * (parameters[1] - parameters[0])


@pytest.mark.parametrize("shape", [(1, 1, 20, 16), (1, 1, 16, 8), (1, 2, 16, 16), (1, 16, 16)])
def test_sides_that_cannot_be_halved_and_other_channels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="multiples of 8, ≥ 16"):
        unet(depth=3)(torch.zeros(shape))


def test_more_slices_out_than_in_and_no_halving_are_refused() -> None:
    with pytest.raises(ValueError, match="1 channels in, 3 out"):
        unet(1, 3)
    with pytest.raises(ValueError, match="depth 0"):
        unet(depth=0)
