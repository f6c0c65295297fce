"""PatchGAN: a map of scores, each for the patch that its receptive field covers (Isola 2017; Zhu 2017, appendix 7.2).

Convolutions of kernel 4: `layers` of stride 2, then two of stride 1. With r the receptive field and stride s going back
through the layers, r ← s (r − 1) + 4: 1, 4, 7, 16, 34, 70 for 3 layers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.blocks import initialize
from models.rules import broken_rule

KERNEL = 4


class PatchDiscriminator(nn.Module):
    """PatchGAN with instance norm on all but the first and last layer.

    Args:
        in_channels: slices of a stack.
        rng: CPU generator for the initial weights.
        width: features of the first layer, 64 in the paper; they double with each layer, up to 8 times as many.
        layers: halvings; 3 give the 70×70 receptive field.

    Attributes:
        receptive_field: side of the patch behind one score, pixels.
        smallest_side: shortest slice side that leaves more than one position to the last instance norm, pixels.
    """

    def __init__(self, in_channels: int, rng: torch.Generator, *, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        self.in_channels = in_channels
        strides = [2] * layers + [1, 1]
        features = [width * min(8, 2**i) for i in range(layers + 1)]
        body: list[nn.Module] = [nn.Conv2d(in_channels, features[0], KERNEL, strides[0], 1), nn.LeakyReLU(0.2)]
        for i in range(1, layers + 1):
            body += [
                nn.Conv2d(features[i - 1], features[i], KERNEL, strides[i], 1),
                nn.InstanceNorm2d(features[i], affine=True),
                nn.LeakyReLU(0.2),
            ]
        self.body = nn.Sequential(*body, nn.Conv2d(features[-1], 1, KERNEL, 1, 1))
        self.receptive_field = 1
        for stride in reversed(strides):
            self.receptive_field = stride * (self.receptive_field - 1) + KERNEL
        self.smallest_side = 3 * 2**layers
        initialize(self, rng)

    def forward(self, slices: Tensor) -> Tensor:
        """Score patches; higher is more real. No image of the batch changes the scores of another.

        Args:
            slices: (N, in_channels, H, W) in [−1, 1].

        Returns:
            (N, 1, H', W') unbounded scores, H' = H / 2^layers − 2.

        Raises:
            ValueError: other channels, or slices too small.
        """
        if slices.ndim != 4 or slices.shape[1] != self.in_channels or min(slices.shape[2:]) < self.smallest_side:
            raise broken_rule(
                "slices must have the discriminator's channels and be large enough for its patches",
                found=f"shape {tuple(slices.shape)}",
                allowed=f"(N, {self.in_channels}, H, W) with H, W ≥ {self.smallest_side}",
                change="use larger patches, or fewer `layers`",
            )
        scores: Tensor = self.body(slices)
        return scores


class MultiScaleDiscriminator(nn.Module):
    """PatchGANs of the same build at full, half, quarter … resolution (Wang 2018, pix2pixHD).

    Args:
        in_channels: slices of a stack.
        rng: CPU generator for the initial weights.
        width: features of the first layer of each.
        scales: how many.
        layers: halvings of each.

    Attributes:
        smallest_side: shortest slice side, pixels.
    """

    def __init__(
        self, in_channels: int, rng: torch.Generator, *, width: int = 64, scales: int = 2, layers: int = 3
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.judges = nn.ModuleList(
            PatchDiscriminator(in_channels, rng, width=width, layers=layers) for _ in range(scales)
        )
        self.smallest_side = 3 * 2 ** (layers + scales - 1)

    def forward(self, slices: Tensor) -> Tensor:
        """Score patches at every scale.

        Args:
            slices: (N, in_channels, H, W) in [−1, 1].

        Returns:
            (N, scales, H', W'): the finest map's size; coarser maps are repeated, so that all scales weigh alike.

        Raises:
            ValueError: other channels, or slices too small.
        """
        scores = []
        for number, judge in enumerate(self.judges):
            small = F.avg_pool2d(slices, 2**number) if number else slices
            scores.append(judge(small))
        size = scores[0].shape[2:]
        return torch.cat([F.interpolate(part, size=size, mode="nearest") for part in scores], dim=1)
