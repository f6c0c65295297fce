"""The discriminator as a backbone: features of one image alone, gradients where they belong, nothing else changed."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.lesion_gan.backbone import Backbone, BackboneClassifier
from models.lesion_gan.classic import ClassicDiscriminator
from models.lesion_gan.discriminator import DCGANDiscriminator


def _discriminator(size: int = 32, channels: int = 1) -> DCGANDiscriminator:
    rng = torch.Generator().manual_seed(5)
    return DCGANDiscriminator(size, rng, image_channels=channels, num_classes=2, width=4).eval()


def _images(count: int = 4, size: int = 32, channels: int = 1, seed: int = 1) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize(("size", "expected"), [(32, 16), (64, 32), (128, 32)])
@pytest.mark.parametrize("channels", [1, 3])
def test_one_vector_an_image_as_long_as_the_last_map_has_channels(size: int, expected: int, channels: int) -> None:
    backbone = Backbone(_discriminator(size, channels))
    features = backbone(_images(3, size, channels))
    assert features.shape == (3, expected)
    assert backbone.feature_count == expected


def test_features_of_an_image_do_not_hang_on_the_images_beside_it() -> None:
    backbone, images = Backbone(_discriminator()), _images(6)
    together = backbone(images)
    alone = torch.cat([backbone(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    torch.testing.assert_close(backbone(images[order]), together[order], rtol=0, atol=1e-6)


def test_features_are_those_that_the_discriminator_scores() -> None:
    discriminator, images = _discriminator(), _images(2)
    classes = torch.tensor([0, 1])
    features = Backbone(discriminator)(images)
    scores = discriminator.score(features)[:, 0] + (discriminator.projection(classes) * features).sum(dim=1)  # type: ignore[misc]
    torch.testing.assert_close(scores, discriminator(images, classes, groups=2))


def test_gradients_reach_the_image_and_every_layer_that_makes_features() -> None:
    model = BackboneClassifier(Backbone(_discriminator()), 3, torch.Generator().manual_seed(1))
    images = _images(2).requires_grad_()
    torch.autograd.backward(F.cross_entropy(model(images), torch.tensor([0, 2])))
    assert images.grad is not None
    assert torch.isfinite(images.grad).all()
    assert images.grad.abs().amax(dim=(1, 2, 3)).min() > 0
    for parameter in model.trained_parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
    left_out = {id(p) for p in model.parameters()} - {id(p) for p in model.trained_parameters()}
    heads = [*model.backbone.discriminator.score.parameters(), *model.backbone.discriminator.projection.parameters()]  # type: ignore[union-attr]
    assert left_out == {id(p) for p in heads}


def _fit(model: BackboneClassifier, images: Tensor, classes: Tensor, steps: int) -> float:
    optimizer = torch.optim.Adam(model.trained_parameters(), lr=3e-3)
    loss = F.cross_entropy(model(images), classes)
    for _ in range(steps):
        loss = F.cross_entropy(model(images), classes)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return float(loss.detach())


def test_a_frozen_backbone_stays_bit_for_bit_and_its_head_learns() -> None:
    discriminator = _discriminator()
    before = {name: value.clone() for name, value in discriminator.state_dict().items()}
    model = BackboneClassifier(Backbone(discriminator), 2, torch.Generator().manual_seed(1), frozen=True).train()
    images, classes = _images(8), torch.arange(8) % 2
    start = float(F.cross_entropy(model(images), classes).detach())
    head = model.head.weight.clone()
    assert _fit(model, images, classes, 5) < start
    assert not torch.equal(head, model.head.weight)
    assert all(torch.equal(value, before[name]) for name, value in discriminator.state_dict().items())


def test_fine_tuning_changes_the_backbone_and_separates_bright_from_dark() -> None:
    discriminator = _discriminator()
    before = discriminator.downs[0].weight.detach().clone()
    model = BackboneClassifier(Backbone(discriminator), 2, torch.Generator().manual_seed(1)).train()
    classes = torch.arange(16) % 2
    images = _images(16) * 0.1 + (classes.float() - 0.5)[:, None, None, None]
    _fit(model, images, classes, 60)
    assert not torch.equal(before, discriminator.downs[0].weight)
    assert torch.equal(model.eval()(images).argmax(dim=1), classes)


def test_a_discriminator_that_looks_at_class_and_batch_is_refused() -> None:
    classic = ClassicDiscriminator(32, torch.Generator(), num_classes=2, width=4)
    with pytest.raises(ValueError, match="one image alone"):
        Backbone(classic)


@pytest.mark.parametrize("shape", [(2, 1, 64, 64), (2, 3, 32, 32), (1, 32, 32)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="size that its discriminator was trained on"):
        Backbone(_discriminator())(torch.zeros(shape))
