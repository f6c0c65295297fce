"""The family of 2016: its guidelines, read off the networks themselves."""

import pytest
import torch
from torch import nn

from models.lesion_gan.classic import ClassicDiscriminator, ClassicGenerator


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("classes", [0, 3])
def test_shapes_and_range(size: int, classes: int) -> None:
    generator = ClassicGenerator(size, rng(), image_channels=2, num_classes=classes, latent_size=10, width=4)
    discriminator = ClassicDiscriminator(size, rng(), image_channels=2, num_classes=classes, width=4)
    of = torch.tensor([0, 1, 2, 0])
    images = generator(torch.randn(4, 10, generator=rng()), of)
    assert images.shape == (4, 2, size, size)
    assert images.abs().max() <= 1
    assert discriminator(images, of).shape == (4,)


def test_the_guidelines_hold() -> None:
    generator = ClassicGenerator(64, rng(), num_classes=3, width=4)
    discriminator = ClassicDiscriminator(64, rng(), num_classes=3, width=4)
    for network in (generator, discriminator):
        layers = list(network.modules())
        assert not any(isinstance(layer, nn.Linear | nn.MaxPool2d | nn.AvgPool2d) for layer in layers)
    strides = {layer.stride for layer in generator.ups} | {layer.stride for layer in discriminator.downs}
    assert strides == {(2, 2)}
    assert len(generator.norms) == len(generator.ups) + 1  # after the seed and every doubling, not at the output
    assert len(discriminator.norms) == len(discriminator.downs) - 1  # not at the input


def test_weights_are_drawn_with_the_spread_of_the_paper() -> None:
    generator = ClassicGenerator(64, rng(), width=16)
    assert generator.ups[0].weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert generator.norms[0].weight.mean().item() == pytest.approx(1, abs=0.01)


def test_the_class_changes_the_image_and_the_score() -> None:
    generator = ClassicGenerator(32, rng(), num_classes=2, latent_size=8, width=4).eval()
    discriminator = ClassicDiscriminator(32, rng(), num_classes=2, width=4)
    latent = torch.randn(3, 8, generator=rng())
    first, second = (generator(latent, torch.full((3,), of)) for of in (0, 1))
    assert not torch.allclose(first, second)
    assert not torch.allclose(*(discriminator(first, torch.full((3,), of)) for of in (0, 1)))


def test_real_and_fake_are_normalized_apart() -> None:
    discriminator = ClassicDiscriminator(32, rng(), num_classes=0, width=4)
    real, fake = torch.randn(4, 1, 32, 32, generator=rng()), torch.zeros(4, 1, 32, 32)
    of = torch.zeros(4, dtype=torch.long)
    together = discriminator(torch.cat([real, fake]), of.repeat(2), groups=2)
    apart = torch.cat([discriminator(real, of), discriminator(fake, of)])
    assert torch.equal(together, apart)
    assert not torch.allclose(discriminator(torch.cat([real, fake]), of.repeat(2)), together)
