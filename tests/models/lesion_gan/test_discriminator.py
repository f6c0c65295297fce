"""The lesion discriminator: one pass equals two, the projection is what the paper says, D is Lipschitz-bounded."""

import pytest
import torch
from torch import Tensor, nn

from models.lesion_gan.discriminator import DCGANDiscriminator


def build(size: int = 32, *, num_classes: int = 3) -> DCGANDiscriminator:
    return DCGANDiscriminator(size, torch.Generator().manual_seed(0), num_classes=num_classes, width=4)


def images(count: int, size: int = 32, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("size", [32, 64, 128])
def test_one_score_an_image_and_all_weights_learn(size: int) -> None:
    discriminator = build(size)
    scores = discriminator(images(6, size), torch.arange(6) % 3)
    assert scores.shape == (6,)
    scores.square().sum().backward()
    for name, parameter in discriminator.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_one_pass_over_real_and_fake_equals_two() -> None:
    discriminator = build().eval()
    real, fake, classes = images(4), 0.1 * images(4, seed=1), torch.tensor([0, 1, 2, 0])
    together = discriminator(torch.cat([real, fake]), classes.repeat(2), groups=2)
    apart = torch.cat([discriminator(real, classes), discriminator(fake, classes)])
    assert torch.allclose(together, apart, atol=1e-6)
    assert not torch.allclose(discriminator(torch.cat([real, fake]), classes.repeat(2)), apart, atol=1e-6)


def test_the_class_enters_by_its_projection_alone() -> None:
    discriminator = build().eval()
    batch = images(3)
    features = discriminator.features(batch)
    assert discriminator.projection is not None
    first, second = torch.tensor([0, 0, 0]), torch.tensor([1, 2, 1])
    table = discriminator.projection.weight
    expected = ((table[second] - table[first]) * features).sum(dim=1)
    assert torch.allclose(discriminator(batch, second) - discriminator(batch, first), expected, atol=1e-6)


def test_without_classes_the_class_is_not_looked_at() -> None:
    discriminator = build(num_classes=0).eval()
    assert torch.equal(discriminator(images(2), torch.tensor([0, 0])), discriminator(images(2), torch.tensor([5, 9])))


def test_a_collapsed_batch_is_seen_in_the_features() -> None:
    discriminator = build().eval()
    batch = images(4)
    alone = discriminator.features(batch[:1].repeat(4, 1, 1, 1))
    assert not torch.allclose(discriminator.features(batch)[0], alone[0], atol=1e-6)


def test_there_is_no_batch_norm_and_every_linear_map_is_spectrally_normalized() -> None:
    discriminator = build()
    for layer in discriminator.modules():
        assert not isinstance(layer, nn.BatchNorm2d)
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding):
            assert torch.nn.utils.parametrize.is_parametrized(layer, "weight")
