"""The generator of the `dcgan` family: latent vector and lesion class → image.

A 4×4 seed of features is doubled by strided transposed convolutions (Radford 2016), or by resize-convolutions, until
the image has its size; every feature map is normalized by a batch norm conditional on the class (de Vries 2017).
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from models.blocks import ConditionalBatchNorm, ResizeConv, ToImage, consecutive, initialize
from models.lesion_gan.conditions import AttributeCode, AttributeModulation, classes_of
from models.rules import broken_rule
from models.strided_convolution import DoublingConv

SEED_SIDE = 4
"""Side of the first feature map, pixels."""

IMAGE_SIZES = (32, 64, 128)
"""Image sides that the family covers, pixels."""

Upsampling = Literal["transposed", "resize"]


def doublings(image_size: int) -> int:
    """How often a 4×4 map is doubled to reach the image size.

    Raises:
        ValueError: the size is not covered.
    """
    if image_size not in IMAGE_SIZES:
        raise broken_rule(
            "the DCGAN makes images of a few sizes",
            found=f"{image_size} pixels",
            allowed=", ".join(map(str, IMAGE_SIZES)),
            change="set `image_size` to one of these",
        )
    return image_size.bit_length() - SEED_SIDE.bit_length()


class DCGANGenerator(nn.Module):
    """Conditional DCGAN generator.

    Args:
        image_size: side of the image, pixels: 32, 64 or 128.
        rng: CPU generator for the initial weights.
        image_channels: channels of the image.
        num_classes: lesion classes; 0 makes an unconditional generator.
        latent_size: length of the latent vector.
        width: features at half the image size; they double toward the seed, up to 8 times as many.
        upsampling: "transposed" (4×4 kernel, stride 2) or "resize" (nearest neighbor and 3×3).
        attribute_levels: for each attribute the number of its levels, 0 for a number; see `conditions.py`.

    Raises:
        ValueError: a size that the family does not cover, or an unknown upsampling.
    """

    def __init__(
        self,
        image_size: int,
        rng: torch.Generator,
        *,
        image_channels: int = 1,
        num_classes: int = 0,
        latent_size: int = 64,
        width: int = 32,
        upsampling: Upsampling = "transposed",
        attribute_levels: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if upsampling not in ("transposed", "resize"):
            raise broken_rule(
                "the generator doubles its maps in a known way",
                found=repr(upsampling),
                allowed="transposed, resize",
                change="set `upsampling` to one of these",
            )
        self.image_size, self.num_classes, self.latent_size = image_size, num_classes, latent_size
        steps = doublings(image_size)
        features = [width * min(8, 2**i) for i in reversed(range(steps))]
        self.seed = nn.ConvTranspose2d(latent_size, features[0], SEED_SIDE, bias=False)
        self.ups = nn.ModuleList(_doubling(inner, outer, upsampling) for inner, outer in consecutive(features))
        self.norms = nn.ModuleList(ConditionalBatchNorm(channels, num_classes) for channels in features)
        to_image = ToImage if upsampling == "transposed" else ResizeConv
        self.to_image = to_image(features[-1], image_channels)
        self.attribute_code = AttributeCode(attribute_levels)
        sizes = features if attribute_levels else ()
        self.modulations = nn.ModuleList(AttributeModulation(self.attribute_code.size, size) for size in sizes)
        initialize(self, rng)
        # A quarter less time for a step on a CPU. The stubs of `to` do not know memory formats.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, latent: Tensor, classes: Tensor) -> Tensor:
        """Make images.

        Args:
            latent: (N, latent_size), standard normal.
            classes: (N,) long in [0, num_classes), not looked at when num_classes is 0; or (N, 1 + attributes) floats,
                see `conditions.py`.

        Returns:
            (N, image_channels, image_size, image_size) in [−1, 1].
        """
        weights = self.attribute_code(classes) if self.modulations else None
        classes = classes_of(classes)
        features = torch.relu_(self._modulated(0, self.norms[0](self.seed(latent[:, :, None, None]), classes), weights))
        for index, (up, norm) in enumerate(zip(self.ups, list(self.norms)[1:], strict=True), 1):
            features = torch.relu_(self._modulated(index, norm(up(features), classes), weights))
        return torch.tanh(self.to_image(features))

    def _modulated(self, index: int, features: Tensor, weights: Tensor | None) -> Tensor:
        if weights is None:
            return features
        result: Tensor = self.modulations[index](features, weights)
        return result


def _doubling(in_channels: int, out_channels: int, upsampling: Upsampling) -> nn.Module:
    if upsampling == "transposed":
        return DoublingConv(in_channels, out_channels)
    return ResizeConv(in_channels, out_channels, bias=False)
