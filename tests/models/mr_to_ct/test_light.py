"""The light translator and the one of 2017: sizes, no checkerboard before training, independence, refusals."""

import pytest
import torch

from models.mr_to_ct.generator import ResNetGenerator, Translator
from models.mr_to_ct.light import LightGenerator
from models.mr_to_ct.resnet_2017 import ResNet2017


def build(kind: str, in_channels: int = 5, out_channels: int = 3) -> Translator:
    rng = torch.Generator().manual_seed(0)
    if kind == "light":
        return LightGenerator(in_channels, out_channels, rng, width=8)
    return ResNet2017(in_channels, out_channels, rng, width=4, blocks=2)


def slices(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("kind", ["light", "2017"])
def test_a_stack_comes_back_with_its_sides_inside_the_range_and_every_weight_learns(kind: str) -> None:
    network = build(kind)
    translated = network(slices(2, 5, 32, 48))
    assert translated.shape == (2, 3, 32, 48)
    assert translated.abs().max() <= 1
    (translated - slices(2, 3, 32, 48)).square().sum().backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    # A bias before an instance norm is subtracted again with the mean; rounding may leave a trace of a gradient.
    assert all(name.endswith("bias") for name in silent)


@pytest.mark.parametrize("kind", ["light", "2017"])
def test_images_of_a_batch_do_not_touch_each_other(kind: str) -> None:
    network, batch = build(kind), slices(3, 5, 32, 32)
    assert torch.allclose(network(batch)[1:2], network(batch[1:2]), atol=1e-5)


def test_before_training_the_light_translator_draws_no_checkerboard() -> None:
    network = build("light", 1, 1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(5)
        fine = torch.nn.functional.pixel_shuffle(network.unfold(slices(1, 8, 16, 16)), 2)
    blocks = fine.unflatten(-1, (16, 2)).unflatten(-3, (16, 2))
    assert torch.equal(blocks, blocks[:, :, :, :1, :, :1].expand_as(blocks))
    assert fine.std() > 0


def test_folding_loses_nothing() -> None:
    """A change of one pixel that half resolution cannot show reaches the output."""
    network, batch = build("light", 1, 1), slices(1, 1, 32, 32)
    changed = batch.clone()
    changed[..., 8, 8] += 0.3
    changed[..., 8, 9] -= 0.3
    moved = (network(changed) - network(batch)).abs()[0, 0]
    assert moved[8, 8] > 0
    assert moved[8, 9] > 0


def test_the_2017_generator_has_the_size_of_the_published_one() -> None:
    """11.37 million weights with nine blocks and one channel, as the authors' code prints."""
    network = ResNet2017(1, 1, torch.Generator(), width=64, blocks=9)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == 11.37
    ours = ResNetGenerator(1, 1, torch.Generator(), width=64, blocks=9)
    gains = sum(2 * layer.num_features for layer in ours.modules() if isinstance(layer, torch.nn.InstanceNorm2d))
    assert sum(p.numel() for p in ours.parameters()) - gains == sum(p.numel() for p in network.parameters())


def test_sides_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        build("light")(slices(1, 5, 40, 32))
