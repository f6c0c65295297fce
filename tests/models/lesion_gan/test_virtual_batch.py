"""Virtual batch normalization against the formula, plain batch normalization, and independence of a batch's images."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F

from models.lesion_gan.discriminator import DCGANDiscriminator
from models.lesion_gan.generator import DCGANGenerator
from models.lesion_gan.step import LesionGANStep, LesionStepSettings
from models.lesion_gan.virtual_batch import EPSILON, VirtualBatchGenerator, VirtualBatchNorm2d


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def generator(**others: object) -> VirtualBatchGenerator:
    return VirtualBatchGenerator(32, seeded(), reference_size=6, num_classes=2, latent_size=8, width=4, **others)


def test_the_reference_is_normalized_as_a_batch() -> None:
    features = torch.randn(9, 3, 4, 4, generator=seeded()) * 2 + 5
    found = VirtualBatchNorm2d(7)(features)
    expected = F.batch_norm(features[:7], None, None, training=True, eps=EPSILON)
    torch.testing.assert_close(found[:7], expected, rtol=1e-4, atol=1e-5)


def test_another_image_is_normalized_by_the_reference_and_itself() -> None:
    features = torch.randn(9, 3, 4, 4, generator=seeded()) * 2 + 5
    found = VirtualBatchNorm2d(7)(features)
    for row in (7, 8):
        together = torch.cat([features[:7], features[row : row + 1]])  # eight images of equal weight
        expected = F.batch_norm(together, None, None, training=True, eps=EPSILON)[-1]
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-5)


def test_no_image_depends_on_the_others_of_its_batch_in_training() -> None:
    network = generator().train()
    latent, classes = torch.randn(5, 8, generator=seeded(1)), torch.tensor([0, 1, 1, 0, 1])
    alone = torch.cat([network(latent[i : i + 1], classes[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(network(latent, classes), alone, rtol=1e-4, atol=1e-6)
    plain = DCGANGenerator(32, seeded(), num_classes=2, latent_size=8, width=4).train()
    assert not torch.allclose(plain(latent, classes)[:1], plain(latent[:2], classes[:2])[:1], atol=1e-6)


def test_training_and_evaluation_give_the_same_images_and_copies_too() -> None:
    network = generator()
    latent, classes = torch.randn(3, 8, generator=seeded(1)), torch.tensor([0, 1, 1])
    learning = network.train()(latent, classes)
    images = network.eval()(latent, classes)
    torch.testing.assert_close(learning, images)  # equal but for the order of sums in `ToImage`
    assert torch.equal(images, deepcopy(network)(latent, classes))
    other = VirtualBatchGenerator(32, seeded(9), reference_size=6, num_classes=2, latent_size=8, width=4)
    other.load_state_dict(network.state_dict())
    other.eval()
    assert torch.equal(images, other(latent, classes))


def test_weights_start_as_those_of_the_plain_generator() -> None:
    plain, network = DCGANGenerator(32, seeded(), num_classes=2, latent_size=8, width=4), generator()
    assert all(torch.equal(value, dict(network.named_parameters())[name]) for name, value in plain.named_parameters())


def test_attributes_pass_through() -> None:
    network = generator(attribute_levels=(0, 3))
    latent = torch.randn(2, 8, generator=seeded(1))
    with torch.no_grad():
        for parameter in network.modulations.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=seeded(3)))
    conditions = torch.tensor([[0, 0.5, 2.0], [1, float("nan"), 0.0]])
    images = network(latent, conditions)
    assert images.shape == (2, 1, 32, 32)
    assert not torch.allclose(images[0], network(latent, conditions + torch.tensor([0, -0.9, 0]))[0])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_trains(precision: str) -> None:
    rng = seeded()
    judge = DCGANDiscriminator(32, rng, num_classes=2, width=4)
    step = LesionGANStep(generator(), judge, LesionStepSettings(precision=precision), rng)
    before = [parameter.clone() for parameter in step.generator.parameters()]
    terms = step.step(torch.rand(4, 1, 32, 32, generator=rng) * 2 - 1, torch.tensor([0, 1, 0, 1]))
    assert all(torch.isfinite(term) for term in terms.values())
    changed = [not torch.equal(old, new) for old, new in zip(before, step.generator.parameters(), strict=True)]
    assert all(changed)
