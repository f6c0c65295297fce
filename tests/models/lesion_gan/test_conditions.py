"""Attributes: codes by closed form, missing values, and networks that start out and go on as they should."""

import math

import pytest
import torch
from torch import Tensor

from models.lesion_gan.conditions import KNOTS, AttributeCode, AttributeModulation, classes_of
from models.lesion_gan.discriminator import DCGANDiscriminator
from models.lesion_gan.generator import DCGANGenerator
from models.lesion_gan.step import LesionGANStep, LesionStepSettings

NAN = float("nan")
LEVELS = (0, 3)


def networks(levels: tuple[int, ...] = LEVELS) -> tuple[DCGANGenerator, DCGANDiscriminator]:
    rng = torch.Generator().manual_seed(3)
    generator = DCGANGenerator(32, rng, num_classes=2, latent_size=8, width=4, attribute_levels=levels)
    return generator, DCGANDiscriminator(32, rng, num_classes=2, width=4, attribute_levels=levels)


def conditions(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows)


def latents(count: int) -> Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(1))


def test_numbers_are_mixtures_of_the_two_nearest_knots() -> None:
    code = AttributeCode((0,))
    for value, expected in (
        (-1.0, [1, 0, 0, 0, 0, 0]),
        (1.0, [0, 0, 0, 0, 1, 0]),
        (0.0, [0, 0, 1, 0, 0, 0]),
        (0.125, [0, 0, 0.75, 0.25, 0, 0]),
        (5.0, [0, 0, 0, 0, 1, 0]),
        (NAN, [0, 0, 0, 0, 0, 1]),
    ):
        assert code(conditions((0.0, value)))[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("value", torch.linspace(-1, 1, 9).tolist())
def test_a_linear_table_of_points_gives_a_linear_effect(value: float) -> None:
    table = torch.cat([torch.linspace(-1, 1, KNOTS), torch.zeros(1)])
    assert float(AttributeCode((0,))(conditions((0.0, value)))[0] @ table) == pytest.approx(value, abs=1e-6)


def test_levels_are_one_hot_and_have_a_point_for_missing_ones() -> None:
    found = AttributeCode((3,))(conditions((0.0, 0.0), (0.0, 2.0), (0.0, NAN)))
    assert found.tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_weights_of_each_attribute_add_up_to_one() -> None:
    code = AttributeCode(LEVELS)
    weights = code(conditions((0, 0.3, 1), (1, NAN, 2), (1, -0.9, NAN)))
    assert code.size == weights.shape[1] == 6 + 4
    assert torch.allclose(weights[:, :6].sum(dim=1), torch.ones(3))
    assert torch.allclose(weights[:, 6:].sum(dim=1), torch.ones(3))


def test_classes_alone_are_conditions_with_every_attribute_missing() -> None:
    code = AttributeCode(LEVELS)
    alone = code(torch.tensor([0, 1]))
    assert torch.equal(alone, code(conditions((0, NAN, NAN), (1, NAN, NAN))))
    assert torch.equal(classes_of(conditions((1, NAN, 2), (0, 0.5, 1))), torch.tensor([1, 0]))


@pytest.mark.parametrize("rows", [[(0.0, 1.0)], [(0.0, 1.0, 3.0)], [(0.0, 1.0, -1.0)], [(0.0, 1.0, 1.0, 1.0)]])
def test_other_conditions_than_the_network_knows_are_refused(rows: list[tuple[float, ...]]) -> None:
    with pytest.raises(ValueError, match="allowed"):
        AttributeCode(LEVELS)(conditions(*rows))


def test_untrained_attributes_change_no_image() -> None:
    with_attributes, without = networks()[0].eval(), networks(())[0].eval()
    assert torch.equal(
        with_attributes(latents(3), conditions((0, 0.1, 1), (1, NAN, 2), (1, -1, NAN))),
        without(latents(3), torch.tensor([0, 1, 1])),
    )


def test_networks_without_attributes_have_no_weights_for_them() -> None:
    generator, discriminator = networks(())
    assert not [name for name in {**generator.state_dict(), **discriminator.state_dict()} if "attribute" in name]
    assert not [name for name in generator.state_dict() if "modulation" in name]


def test_an_attribute_moves_its_images_alone() -> None:
    generator = networks()[0].eval()
    with torch.no_grad():
        generator.modulations[1].offset[:, 6 + 2] += 3  # type: ignore[union-attr,index,operator]
    known = generator(latents(3), conditions((0, NAN, 2), (0, NAN, 1), (0, NAN, NAN)))
    plain = generator(latents(3), torch.tensor([0, 0, 0]))
    assert not torch.allclose(known[0], plain[0])
    assert torch.equal(known[1:], plain[1:])


def test_modulation_by_closed_form() -> None:
    modulation = AttributeModulation(2, 1)
    with torch.no_grad():
        modulation.gain.copy_(torch.tensor([[0.5, -1.0]]))
        modulation.offset.copy_(torch.tensor([[2.0, 0.25]]))
    features = torch.full((2, 1, 1, 1), 4.0)
    assert modulation(features, torch.eye(2)).flatten().tolist() == [4 * 1.5 + 2, 0.25]


def test_all_weights_of_attributes_learn_in_one_step() -> None:
    generator, discriminator = networks()
    rng = torch.Generator().manual_seed(5)
    step = LesionGANStep(generator, discriminator, LesionStepSettings(diff_augment=()), rng)
    assert discriminator.attribute_projection is not None
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    images = torch.rand(6, 1, 32, 32, generator=rng) * 2 - 1
    rows = conditions((0, -1, 0), (0, -0.5, 1), (1, 0, 2), (1, 0.5, NAN), (0, 1, 0), (1, NAN, 1))
    for _ in range(2):
        terms = step.step(images, rows)
    assert all(math.isfinite(float(value)) for value in terms.values())
    after = generator.state_dict()
    for name in before:
        if name.startswith("modulations"):
            changed = (after[name] != before[name]).any(dim=0)
            assert changed.all(), name


def test_d_judges_an_image_by_its_attributes() -> None:
    discriminator = networks()[1].eval()
    images = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(2)).repeat(3, 1, 1, 1)
    scores = discriminator(images, conditions((0, -1, 0), (0, 1, 0), (0, NAN, NAN)))
    assert len(set(scores.tolist())) == 3
    torch.testing.assert_close(scores[2:], discriminator(images[:1], torch.tensor([0])))
