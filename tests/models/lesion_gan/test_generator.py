"""The lesion generator: sizes, conditioning, independence of images in eval mode."""

import pytest
import torch

from models.lesion_gan.generator import DCGANGenerator, Upsampling, doublings


def build(size: int = 32, *, num_classes: int = 3, upsampling: Upsampling = "transposed") -> DCGANGenerator:
    rng = torch.Generator().manual_seed(0)
    return DCGANGenerator(size, rng, num_classes=num_classes, latent_size=8, width=4, upsampling=upsampling)


def latents(count: int) -> torch.Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("upsampling", ["transposed", "resize"])
@pytest.mark.parametrize("size", [32, 64, 128])
def test_images_have_the_size_asked_for_and_stay_inside_the_range(size: int, upsampling: Upsampling) -> None:
    generator = build(size, upsampling=upsampling)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.mul_(20)
    images = generator(latents(3), torch.tensor([0, 1, 2]))
    assert images.shape == (3, 1, size, size)
    assert 0.9 < images.abs().max() <= 1


def test_all_weights_learn() -> None:
    generator = build(64)
    generator(latents(6), torch.arange(6) % 3).square().sum().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_class_changes_the_image_once_gains_differ_and_only_for_that_class() -> None:
    generator = build().eval()
    latent = latents(1).repeat(3, 1)
    before = generator(latent, torch.arange(3))
    assert torch.allclose(before[0], before[1])
    with torch.no_grad():
        generator.norms[0].gain.weight[1] += 1
    after = generator(latent, torch.arange(3))
    assert not torch.allclose(after[1], before[1])
    assert torch.equal(after[[0, 2]], before[[0, 2]])


def test_without_classes_the_class_is_not_looked_at() -> None:
    generator = build(num_classes=0).eval()
    assert torch.equal(
        generator(latents(2), torch.zeros(2, dtype=torch.long)), generator(latents(2), torch.tensor([7, 9]))
    )


def test_an_image_does_not_depend_on_its_batch_in_eval_mode() -> None:
    generator = build().eval()
    classes = torch.tensor([0, 1, 2, 0])
    together = generator(latents(4), classes)
    assert torch.allclose(together[1:2], generator(latents(4)[1:2], classes[1:2]), atol=1e-6)


def test_the_same_seed_builds_the_same_network() -> None:
    first, second = build().state_dict(), build().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_doublings_count_from_four_pixels_and_odd_sizes_are_refused() -> None:
    assert [doublings(size) for size in (32, 64, 128)] == [3, 4, 5]
    with pytest.raises(ValueError, match=r"48 pixels[\s\S]*32, 64, 128"):
        doublings(48)


def test_unknown_upsampling_is_refused() -> None:
    with pytest.raises(ValueError, match="bicubic"):
        build(upsampling="bicubic")  # type: ignore[arg-type]
