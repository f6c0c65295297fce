"""PatchGAN: the receptive field by the support of a gradient, the map of scores, independence of images."""

import pytest
import torch
from torch import nn

from models.mr_to_ct.discriminator import MultiScaleDiscriminator, PatchDiscriminator


def build(in_channels: int = 1, layers: int = 3) -> PatchDiscriminator:
    return PatchDiscriminator(in_channels, torch.Generator().manual_seed(0), width=4, layers=layers)


@pytest.mark.parametrize(("layers", "side"), [(1, 16), (2, 34), (3, 70)])
def test_receptive_field_is_the_support_of_the_gradient(layers: int, side: int) -> None:
    discriminator = build(layers=layers)
    assert discriminator.receptive_field == side
    for index, layer in enumerate(discriminator.body):
        if isinstance(layer, nn.InstanceNorm2d):  # it looks at the whole slice, through its mean and deviation alone
            discriminator.body[index] = nn.Identity()
    image = torch.rand(1, 1, 128, 128, generator=torch.Generator().manual_seed(1)).requires_grad_()
    scores = discriminator.double()(image.double())
    middle = scores.shape[-1] // 2
    (gradient,) = torch.autograd.grad(scores[0, 0, middle, middle], image)
    rows, columns = gradient[0, 0].nonzero(as_tuple=True)
    assert int(rows.max() - rows.min() + 1) == side
    assert int(columns.max() - columns.min() + 1) == side


def test_the_map_of_scores_has_the_promised_size_and_all_weights_learn() -> None:
    discriminator = build(3)
    scores = discriminator(torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(1)))
    assert scores.shape == (2, 1, 96 // 8 - 2, 64 // 8 - 2)
    scores.square().sum().backward()
    for name, parameter in discriminator.named_parameters():
        assert parameter.grad is not None, name
        # A bias before an instance norm is subtracted again with the mean.
        assert "bias" in name or parameter.grad.abs().max() > 0, name


def test_one_pass_over_real_and_fake_equals_two() -> None:
    discriminator = build()
    rng = torch.Generator().manual_seed(1)
    real, fake = torch.rand(3, 1, 32, 32, generator=rng), torch.rand(3, 1, 32, 32, generator=rng) - 1
    together = discriminator(torch.cat([real, fake]))
    assert torch.allclose(together, torch.cat([discriminator(real), discriminator(fake)]), atol=1e-6)


def test_the_smallest_side_works_and_a_smaller_one_is_refused() -> None:
    discriminator = build()
    assert discriminator(torch.zeros(1, 1, 24, 24)).shape == (1, 1, 1, 1)
    with pytest.raises(ValueError, match="H, W ≥ 24"):
        discriminator(torch.zeros(1, 1, 24, 16))
    with pytest.raises(ValueError, match=r"\(1, 2, 32, 32\)"):
        discriminator(torch.zeros(1, 2, 32, 32))


def test_scales_see_the_image_smaller_and_weigh_alike() -> None:
    judge = MultiScaleDiscriminator(1, torch.Generator().manual_seed(0), width=4, scales=2)
    image = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    fine = judge.judges[0](image)
    coarse = judge.judges[1](torch.nn.functional.avg_pool2d(image, 2))
    scores = judge(image)
    assert torch.equal(scores[:, :1], fine)
    assert torch.equal(scores[:, 1:], coarse.repeat_interleave(3, -1).repeat_interleave(3, -2))
    assert judge.smallest_side == 48
