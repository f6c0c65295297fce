"""Translators between modalities: stacks of k neighboring slices in, stacks of k slices out.

2.5-D is done as stack in, stack out: all k slices are translated at once, so that a cycle has all the neighbors it
needs, every loss covers all k slices, and inference keeps the middle one. Input channels beyond k are context, such
as coordinates, that is never predicted. Outputs are bounded by `models.blocks.bounded_output`, not by tanh, so that
air is exactly −1.
"""

import torch
from torch import Tensor, nn

from models.blocks import (
    ReflectConv,
    ResidualBlock,
    ResizeConv,
    bounded_output,
    consecutive,
    double,
    initialize,
)
from models.rules import broken_rule


class Translator(nn.Module):
    """What both generators share: the numbers of channels and the sizes of slices that they take.

    Attributes:
        in_channels: slices and context channels that go in.
        out_channels: slices that come out: the first `out_channels` input channels, translated.
        divisor: slice sides must be multiples of this many pixels, and at least twice as long.
    """

    def __init__(self, in_channels: int, out_channels: int, halvings: int) -> None:
        super().__init__()
        if not 1 <= out_channels <= in_channels:
            raise broken_rule(
                "a translator returns the slices it was given",
                found=f"{in_channels} channels in, {out_channels} out",
                allowed="1 ≤ out_channels ≤ in_channels",
                change="set `in_channels` to the slices of a stack plus context channels",
            )
        self.in_channels, self.out_channels, self.divisor = in_channels, out_channels, 2**halvings

    def require_size(self, slices: Tensor) -> None:
        """Check the channels and sides of (N, in_channels, H, W) slices.

        Raises:
            ValueError: another number of channels, or a side that cannot be halved often enough.
        """
        sides = tuple(slices.shape[2:])
        fits = all(side % self.divisor == 0 and side >= 2 * self.divisor for side in sides)
        if slices.ndim != 4 or slices.shape[1] != self.in_channels or not fits:
            raise broken_rule(
                "slices must have the network's channels and sides that it can halve",
                found=f"shape {tuple(slices.shape)}",
                allowed=f"(N, {self.in_channels}, H, W), H and W multiples of {self.divisor}, ≥ {2 * self.divisor}",
                change="pad the slices, or set a smaller `depth`",
            )


class UNetGenerator(Translator):
    """A light U-Net (Ronneberger 2015) with instance norm and resize-convolutions (Odena 2016).

    Skips are added (Chaurasia 2017, LinkNet) and features are narrowed before they are doubled, which saves two thirds
    of the decoder's multiplications.

    The first and last convolution mirror the edges and carry no norm, and a skip joins them, so that absolute
    intensities reach the output in spite of the instance norms between.

    Args:
        in_channels: slices plus context channels.
        out_channels: slices.
        rng: CPU generator for the initial weights.
        width: features at full size; they double with each halving, up to 8 times as many.
        depth: halvings.

    Raises:
        ValueError: more channels out than in, or no halving.
    """

    def __init__(
        self, in_channels: int, out_channels: int, rng: torch.Generator, *, width: int = 16, depth: int = 4
    ) -> None:
        super().__init__(in_channels, out_channels, depth)
        if depth < 1:
            raise broken_rule(
                "a U-Net halves its slices at least once",
                found=f"depth {depth}",
                allowed="depth ≥ 1",
                change="set `depth`, 4 by default",
            )
        channels = [width * min(8, 2**i) for i in range(depth + 1)]
        self.stem = ReflectConv(in_channels, channels[0], 3)
        self.downs = nn.ModuleList(_halving(inner, outer) for inner, outer in consecutive(channels))
        self.ups = nn.ModuleList(_Doubling(outer, inner) for inner, outer in reversed(consecutive(channels)))
        self.head = ReflectConv(channels[0] * 2, out_channels, 3)
        initialize(self, rng)

    def forward(self, slices: Tensor) -> Tensor:
        """Translate.

        Args:
            slices: (N, in_channels, H, W) in [−1, 1]; H and W multiples of 2^depth, at least twice that.

        Returns:
            (N, out_channels, H, W) in [−1, 1].

        Raises:
            ValueError: other channels or sides.
        """
        self.require_size(slices)
        first = torch.relu(self.stem(slices))
        features = down_and_up(first, self.downs, self.ups)
        return bounded_output(self.head(torch.cat([features, first], dim=1)))


class ResNetGenerator(Translator):
    """The CycleGAN generator (Johnson 2016; Zhu 2017, appendix 7.2): two halvings, residual blocks, two doublings.

    It differs from the paper where HU suffer: resize-convolutions for transposed ones (no checkerboards), and the
    bounded output for tanh.

    Args:
        in_channels: slices plus context channels.
        out_channels: slices.
        rng: CPU generator for the initial weights.
        width: features at full size, 64 in the paper.
        blocks: residual blocks: 6 for slices of 128 pixels, 9 from 256 in the paper.

    Raises:
        ValueError: more channels out than in.
    """

    def __init__(
        self, in_channels: int, out_channels: int, rng: torch.Generator, *, width: int = 64, blocks: int = 9
    ) -> None:
        super().__init__(in_channels, out_channels, 2)
        self.body = nn.Sequential(
            ReflectConv(in_channels, width, 7),
            nn.InstanceNorm2d(width, affine=True),
            nn.ReLU(),
            _halving(width, 2 * width),
            _halving(2 * width, 4 * width),
            *[ResidualBlock(4 * width) for _ in range(blocks)],
            ResizeConv(4 * width, 2 * width),
            nn.InstanceNorm2d(2 * width, affine=True),
            nn.ReLU(),
            ResizeConv(2 * width, width),
            nn.InstanceNorm2d(width, affine=True),
            nn.ReLU(),
            ReflectConv(width, out_channels, 7),
        )
        initialize(self, rng)

    def forward(self, slices: Tensor) -> Tensor:
        """Translate.

        Args:
            slices: (N, in_channels, H, W) in [−1, 1]; H and W multiples of 4, at least 8.

        Returns:
            (N, out_channels, H, W) in [−1, 1].

        Raises:
            ValueError: other channels or sides.
        """
        self.require_size(slices)
        return bounded_output(self.body(slices))


def down_and_up(first: Tensor, downs: nn.ModuleList, ups: nn.ModuleList) -> Tensor:
    """The body of a U-Net: each of ``ups`` merges what the coarser level made with what its own level was."""
    skips = [first]
    for down in downs:
        skips.append(down(skips[-1]))
    features = skips.pop()
    for up in ups:
        features = up(features, skips.pop())
    return features


def _halving(in_channels: int, out_channels: int) -> nn.Sequential:
    """Strided 3×3 convolution: (N, in, H, W) → (N, out, H/2, W/2)."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1),
        nn.InstanceNorm2d(out_channels, affine=True),
        nn.ReLU(),
    )


class _Doubling(nn.Module):
    """Narrow, double, add the skip, convolve: (N, in, H, W) and (N, out, 2 H, 2 W) → (N, out, 2 H, 2 W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(in_channels, out_channels, 1)
        self.merge = nn.Sequential(
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
            nn.InstanceNorm2d(out_channels, affine=True),
            nn.ReLU(),
        )

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        """Merge coarse features with fine ones."""
        merged: Tensor = self.merge(double(self.narrow(features)) + skip)
        return merged
