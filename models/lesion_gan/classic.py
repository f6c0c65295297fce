"""The `dcgan_classic` family: the architecture guidelines of 2016 to the letter, with the class as a further input.

Strided convolutions in D and fractionally strided ones in G, batch normalization in both but at G's output and D's
input, ReLU in G and tanh at its output, LeakyReLU in D, no fully connected layer (Radford 2016, section 3). The class
reaches G as an embedding beside the latent vector and D as a learned image beside the real or fake one (Mirza and
Osindero 2014). A place to start from and to compare with; `dcgan` is the better choice.
"""

import torch
from torch import Tensor, nn

from models.blocks import FromImage, ToImage, consecutive, initialize, leaky_relu
from models.lesion_gan.generator import SEED_SIDE, doublings
from models.strided_convolution import DoublingConv, HalvingConv

CLASS_SIZE = 16
"""Length of the class embedding that G is given."""


class ClassicGenerator(nn.Module):
    """Generator of 2016.

    Args:
        image_size: side of the image, pixels: 32, 64 or 128.
        rng: CPU generator for the initial weights.
        image_channels: channels of the image.
        num_classes: lesion classes; 0 makes an unconditional generator.
        latent_size: length of the latent vector.
        width: features at half the image size; they double toward the seed, up to 8 times as many.

    Raises:
        ValueError: a size that the family does not cover.
    """

    def __init__(
        self,
        image_size: int,
        rng: torch.Generator,
        *,
        image_channels: int = 1,
        num_classes: int = 0,
        latent_size: int = 100,
        width: int = 64,
    ) -> None:
        super().__init__()
        self.image_size, self.num_classes, self.latent_size = image_size, num_classes, latent_size
        features = [width * min(8, 2**i) for i in reversed(range(doublings(image_size)))]
        self.classes = nn.Embedding(num_classes, CLASS_SIZE) if num_classes else None
        inputs = latent_size + (CLASS_SIZE if num_classes else 0)
        self.seed = nn.ConvTranspose2d(inputs, features[0], SEED_SIDE, bias=False)
        self.ups = nn.ModuleList(DoublingConv(inner, outer) for inner, outer in consecutive(features))
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for channels in features)
        self.to_image = ToImage(features[-1], image_channels)
        initialize(self, rng)
        _initialize_classic(self, rng)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, latent: Tensor, classes: Tensor) -> Tensor:
        """(N, latent_size) latent vectors and (N,) classes → (N, image_channels, image_size, image_size) in [−1, 1]."""
        seed = latent if self.classes is None else torch.cat([latent, self.classes(classes)], dim=1)
        features = torch.relu_(self.norms[0](self.seed(seed[:, :, None, None])))
        for up, norm in zip(self.ups, list(self.norms)[1:], strict=True):
            features = torch.relu_(norm(up(features)))
        return torch.tanh(self.to_image(features))


class ClassicDiscriminator(nn.Module):
    """Discriminator of 2016. Batch statistics tie the images of a batch: real and fake ones go through apart.

    Args:
        image_size: side of the image, pixels: 32, 64 or 128.
        rng: CPU generator for the initial weights.
        image_channels: channels of the image.
        num_classes: lesion classes; 0 makes an unconditional discriminator.
        width: features at half the image size; they double with each halving, up to 8 times as many.

    Raises:
        ValueError: a size that the family does not cover.
    """

    batch_normalized, spectral = True, False

    def __init__(
        self,
        image_size: int,
        rng: torch.Generator,
        *,
        image_channels: int = 1,
        num_classes: int = 0,
        width: int = 64,
    ) -> None:
        super().__init__()
        self.image_size, self.image_channels, self.num_classes = image_size, image_channels, num_classes
        channels = [image_channels + bool(num_classes)]
        channels += [width * min(8, 2**i) for i in range(doublings(image_size))]
        self.class_images = nn.Embedding(num_classes, image_size**2) if num_classes else None
        self.downs = nn.ModuleList(
            HalvingConv(inner, outer, bias=False) if index else FromImage(inner, outer, 4, stride=2, padding=1)
            for index, (inner, outer) in enumerate(consecutive(channels))
        )
        # Without running statistics: batch statistics serve in training and while D is frozen, as in the paper.
        self.norms = nn.ModuleList(nn.BatchNorm2d(count, track_running_stats=False) for count in channels[2:])
        self.score = nn.Conv2d(channels[-1], 1, SEED_SIDE)
        initialize(self, rng)
        _initialize_classic(self, rng)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor, classes: Tensor, groups: int = 1) -> Tensor:
        """Score images; higher is more real.

        Args:
            images: (N, image_channels, image_size, image_size) in [−1, 1].
            classes: (N,) long in [0, num_classes); not looked at when num_classes is 0.
            groups: N is made of that many equal, consecutive parts that are normalized apart.

        Returns:
            (N,) unbounded scores.
        """
        parts = zip(images.chunk(groups), classes.chunk(groups), strict=True)
        return torch.cat([self.score(self._maps(part, of))[:, 0, 0, 0] for part, of in parts])

    def features(self, images: Tensor, classes: Tensor) -> Tensor:
        """(N, channels): the last 4×4 map, averaged."""
        return torch.mean(self._maps(images, classes), dim=(2, 3))

    def _maps(self, images: Tensor, classes: Tensor) -> Tensor:
        if self.class_images is not None:
            beside = self.class_images(classes).view(len(images), 1, self.image_size, self.image_size)
            images = torch.cat([images, beside], dim=1)
        maps = leaky_relu(self.downs[0](images))
        for down, norm in zip(list(self.downs)[1:], self.norms, strict=True):
            maps = leaky_relu(norm(down(maps)))
        return maps


def _initialize_classic(network: nn.Module, rng: torch.Generator) -> None:
    """Gains of batch norm from N(1, 0.02²), offsets 0, embeddings from N(0, 0.02²)."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02, generator=rng)
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Embedding):
            nn.init.normal_(layer.weight, 0.0, 0.02, generator=rng)
