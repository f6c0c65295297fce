"""The generator of Zhu 2017 to the letter, as users know it from the authors' code.

Against `models.mr_to_ct.generator.ResNetGenerator`: transposed convolutions, instance norm without gain and offset, and
a tanh, which never reaches the −1 of air.
"""

import torch
from torch import Tensor, nn

from models.blocks import ReflectConv, initialize
from models.mr_to_ct.generator import Translator


class ResNet2017(Translator):
    """c7s1-64, d128, d256, R256 …, u128, u64, c7s1 (Zhu 2017, appendix 7.2).

    Args:
        in_channels: slices plus context channels.
        out_channels: slices.
        rng: CPU generator for the initial weights.
        width: features at full size, 64 in the paper.
        blocks: residual blocks: 6 for slices of 128 pixels, 9 from 256 in the paper.
    """

    def __init__(
        self, in_channels: int, out_channels: int, rng: torch.Generator, *, width: int = 64, blocks: int = 9
    ) -> None:
        super().__init__(in_channels, out_channels, 2)
        self.body = nn.Sequential(
            *_normalized(ReflectConv(in_channels, width, 7), width),
            *_normalized(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), 2 * width),
            *_normalized(nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1), 4 * width),
            *[_Block(4 * width) for _ in range(blocks)],
            *_normalized(_doubling(4 * width, 2 * width), 2 * width),
            *_normalized(_doubling(2 * width, width), width),
            ReflectConv(width, out_channels, 7),
        )
        initialize(self, rng)

    def forward(self, slices: Tensor) -> Tensor:
        """Translate.

        Args:
            slices: (N, in_channels, H, W) in [−1, 1]; H and W multiples of 4, at least 8.

        Returns:
            (N, out_channels, H, W) in (−1, 1).

        Raises:
            ValueError: other channels or sides.
        """
        self.require_size(slices)
        return torch.tanh(self.body(slices))


class _Block(nn.Module):
    """x + IN(conv(ReLU(IN(conv(x))))): shape is kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_normalized(ReflectConv(channels, channels, 3), channels),
            ReflectConv(channels, channels, 3),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Add the residual."""
        result: Tensor = features + self.body(features)
        return result


def _normalized(convolution: nn.Module, channels: int) -> list[nn.Module]:
    return [convolution, nn.InstanceNorm2d(channels), nn.ReLU()]


def _doubling(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1)
