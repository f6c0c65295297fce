"""The lesion discriminator as a pretrained feature extractor for classification.

Features of a GAN's discriminator serve as those of an unsupervised pretraining (Radford 2016, section 5). Every image
is judged alone, in a group of its own: its features do not hang on the batch that it comes in.
"""

import math
from typing import Self

import torch
from torch import Tensor, nn

from models.lesion_gan.discriminator import DCGANDiscriminator
from models.rules import broken_rule


class Backbone(nn.Module):
    """Images → features φ(x) of a lesion discriminator, before any class is looked at.

    Args:
        discriminator: of the `dcgan` family; it is used as it is, not copied.

    Attributes:
        feature_count: length of a feature vector.

    Raises:
        ValueError: a discriminator whose features hang on the class or on the batch, as those of `dcgan_classic`.
    """

    def __init__(self, discriminator: nn.Module) -> None:
        super().__init__()
        if not isinstance(discriminator, DCGANDiscriminator):
            raise broken_rule(
                "A backbone needs a discriminator whose features belong to one image alone.",
                found=type(discriminator).__name__,
                allowed="a discriminator of the dcgan family",
                change="Train with train.lesions.family=dcgan.",
            )
        self.discriminator = discriminator
        self.feature_count: int = discriminator.score.in_features

    def forward(self, images: Tensor) -> Tensor:
        """(N, image_channels, image_size, image_size) images in [−1, 1] → (N, feature_count) features.

        Raises:
            ValueError: images of another shape than the discriminator was made for.
        """
        side, channels = self.discriminator.image_size, self.discriminator.image_channels
        if images.ndim != 4 or tuple(images.shape[1:]) != (channels, side, side):
            raise broken_rule(
                "A backbone reads images of the size that its discriminator was trained on.",
                found=tuple(images.shape),
                allowed=f"(N, {channels}, {side}, {side})",
                change="Resample the images, or train the GAN at their size.",
            )
        return self.discriminator.features(images, len(images))


class BackboneClassifier(nn.Module):
    """A linear classifier on a backbone: the head alone is trained, or the whole network is fine-tuned.

    Args:
        backbone: the features.
        num_classes: classes, at least two.
        rng: CPU generator for the head's initial weights.
        frozen: leave the backbone as it is; its layers then stay in evaluation mode and get no gradient.
    """

    def __init__(self, backbone: Backbone, num_classes: int, rng: torch.Generator, *, frozen: bool = False) -> None:
        super().__init__()
        self.backbone, self.frozen, self.num_classes = backbone, frozen, num_classes
        self.head = nn.Linear(backbone.feature_count, num_classes)
        nn.init.normal_(self.head.weight, std=1 / math.sqrt(backbone.feature_count), generator=rng)
        nn.init.zeros_(self.head.bias)
        self.train(self.training)

    def trained_parameters(self) -> list[nn.Parameter]:
        """What an optimizer is given: the head, and the layers that make features unless they are frozen."""
        if self.frozen:
            return list(self.head.parameters())
        discriminator = self.backbone.discriminator
        layers = nn.ModuleList([discriminator.downs, discriminator.mix, self.head])
        return list(layers.parameters())

    def train(self, mode: bool = True) -> Self:
        """Switch to training or evaluation mode; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """(N, num_classes) logits of images as `Backbone` reads them."""
        if self.frozen:
            with torch.no_grad():
                features = self.backbone(images)
        else:
            features = self.backbone(images)
        logits: Tensor = self.head(features)
        return logits
