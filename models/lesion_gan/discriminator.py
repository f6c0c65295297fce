"""The discriminator of the `dcgan` family: image and lesion class → score.

Strided convolutions (Radford 2016) with spectral normalization (Miyato 2018) and no batch normalization, a minibatch
standard deviation channel (Karras 2018), and a projection onto the class (Miyato and Koyama 2018, eq. 3):
D(x, c) = wᵀφ(x) + b + v_cᵀφ(x).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.blocks import (
    FromImage,
    MinibatchStandardDeviation,
    consecutive,
    initialize,
    leaky_relu,
    normalize_spectrally,
)
from models.lesion_gan.conditions import AttributeCode, attribute_projection, classes_of
from models.lesion_gan.generator import doublings
from models.strided_convolution import HalvingConv


class DCGANDiscriminator(nn.Module):
    """Conditional DCGAN discriminator.

    Args:
        image_size: side of the image, pixels: 32, 64 or 128.
        rng: CPU generator for the initial weights.
        image_channels: channels of the image.
        num_classes: lesion classes; 0 makes an unconditional discriminator.
        width: features at half the image size; they double with each halving, up to 8 times as many.
        spectral: normalize every layer spectrally; without it, D needs a penalty or clipped weights to stay smooth.
        attribute_levels: as of the generator.

    Raises:
        ValueError: a size that the family does not cover.
    """

    batch_normalized = False

    def __init__(
        self,
        image_size: int,
        rng: torch.Generator,
        *,
        image_channels: int = 1,
        num_classes: int = 0,
        width: int = 32,
        spectral: bool = True,
        attribute_levels: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.spectral = spectral
        self.image_size, self.image_channels, self.num_classes = image_size, image_channels, num_classes
        channels = [image_channels] + [width * min(8, 2**i) for i in range(doublings(image_size))]
        self.downs = nn.ModuleList(
            HalvingConv(inner, outer) if index else FromImage(inner, outer, 4, stride=2, padding=1)
            for index, (inner, outer) in enumerate(consecutive(channels))
        )
        self.batch_spread = MinibatchStandardDeviation()
        self.mix = nn.Conv2d(channels[-1] + 1, channels[-1], 3, padding=1)
        self.score = nn.Linear(channels[-1], 1)
        self.projection = nn.Embedding(num_classes, channels[-1]) if num_classes else None
        initialize(self, rng)
        if self.projection is not None:
            nn.init.normal_(self.projection.weight, 0.0, 0.02, generator=rng)
        self.attribute_code = AttributeCode(attribute_levels)
        size = self.attribute_code.size
        self.attribute_projection = attribute_projection(size, channels[-1], rng) if size else None
        if spectral:
            normalize_spectrally(self, rng)
        # A quarter less time for a step on a CPU. The stubs of `to` do not know memory formats.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor, classes: Tensor, groups: int = 1) -> Tensor:
        """Score images; higher is more real.

        Args:
            images: (N, image_channels, image_size, image_size) in [−1, 1].
            classes: (N,) long in [0, num_classes), not looked at when num_classes is 0; or (N, 1 + attributes) floats.
            groups: N is made of that many equal, consecutive parts that are judged apart (real and fake: 2).

        Returns:
            (N,) unbounded scores.
        """
        features = self.features(images, groups)
        scores: Tensor = self.score(features)[:, 0]
        if self.projection is not None:
            scores = scores + (self.projection(classes_of(classes)) * features).sum(dim=1)
        if self.attribute_projection is not None:
            scores = scores + (self.attribute_projection(self.attribute_code(classes)) * features).sum(dim=1)
        return scores

    def features(self, images: Tensor, groups: int = 1) -> Tensor:
        """φ(x): (N, channels) features, averaged over the last 4×4 map, before any class is looked at."""
        maps = images
        for down in self.downs:
            maps = leaky_relu(down(maps))
        maps = leaky_relu(self.mix(self.batch_spread(maps, groups)))
        return torch.mean(maps, dim=(2, 3))
