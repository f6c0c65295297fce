"""Translator and PatchGAN with three-dimensional kernels, which take and return stacks of slices as the others do.

A stack (N, k + c, H, W) becomes a volume of k slices: the c context channels are repeated along the slices, and where
there are any, one more runs from −1 to 1 along them: context that is told for the middle of a stack, as its height in
the body, then says where every slice lies. Slices lie further apart than pixels, so that the first halving is one in
the plane alone, and the others halve all three axes.
The first and the last convolution mirror the edges along all three axes. Padding and doubling are made of copies whose
gradients add up in a fixed order, so that a seed gives the same weights on a CPU every time.
"""

import torch
from torch import Tensor, nn

from models.blocks import bounded_output, consecutive, double, initialize, reflect_pad
from models.mr_to_ct.discriminator import KERNEL
from models.mr_to_ct.generator import Translator, down_and_up
from models.rules import broken_rule

FLAT_HALVINGS = 1
"""First halvings, which leave the number of slices as it is."""


class VolumeUNetGenerator(Translator):
    """A light U-Net of three dimensions (Çiçek 2016), built as `UNetGenerator` is: added skips, narrowed decoder.

    Args:
        slices: k of a stack.
        context_channels: c.
        rng: CPU generator for the initial weights.
        width: features at full size; they double with each halving, up to 8 times as many.
        depth: halvings in the plane.

    Attributes:
        slice_divisor: the number of slices must be a multiple of it, and at least twice as large.

    Raises:
        ValueError: a number of slices that cannot be halved.
    """

    def __init__(
        self, slices: int, context_channels: int, rng: torch.Generator, *, width: int = 16, depth: int = 3
    ) -> None:
        super().__init__(slices + context_channels, slices, depth)
        self.slice_divisor = 2 ** (depth - FLAT_HALVINGS)
        if slices % self.slice_divisor or slices < 2 * self.slice_divisor:
            raise broken_rule(
                "the slices of a stack must be halved as often as the network does",
                found=f"{slices} slices",
                allowed=f"multiples of {self.slice_divisor}, at least {2 * self.slice_divisor}",
                change="set `slices`, 16 for instance",
            )
        channels = [width * min(8, 2**i) for i in range(depth + 1)]
        steps = [(1 if level < FLAT_HALVINGS else 2, 2, 2) for level in range(depth)]
        self.stem = MirroredConv3d(1 + context_channels + (context_channels > 0), channels[0])
        self.downs = nn.ModuleList(
            _halving(*pair, step) for pair, step in zip(consecutive(channels), steps, strict=True)
        )
        self.ups = nn.ModuleList(
            _Doubling(outer, inner, step)
            for (inner, outer), step in reversed(list(zip(consecutive(channels), steps, strict=True)))
        )
        self.head = MirroredConv3d(channels[0] * 2, 1)
        initialize(self, rng)

    def forward(self, slices: Tensor) -> Tensor:
        """Translate.

        Args:
            slices: (N, k + c, H, W) in [−1, 1]; H and W multiples of 2^depth, at least twice that.

        Returns:
            (N, k, H, W) in [−1, 1].

        Raises:
            ValueError: other channels or sides.
        """
        self.require_size(slices)
        stack, context = slices[:, : self.out_channels], slices[:, self.out_channels :]
        parts = [stack[:, None]]
        if context.shape[1]:
            parts.append(context[:, :, None].expand(-1, -1, self.out_channels, -1, -1))
            place = torch.linspace(-1, 1, self.out_channels, device=slices.device, dtype=slices.dtype)
            parts.append(place[:, None, None].expand(slices.shape[0], 1, -1, *slices.shape[2:]))
        first = torch.relu(self.stem(torch.cat(parts, dim=1)))
        features = down_and_up(first, self.downs, self.ups)
        return bounded_output(self.head(torch.cat([features, first], dim=1))[:, 0])


class VolumePatchDiscriminator(nn.Module):
    """The 70×70 PatchGAN with kernels that see 3 slices: instance norm on all but the first and last layer.

    The first halving is one in the plane alone, as in the translator.

    Args:
        slices: of a stack.
        rng: CPU generator for the initial weights.
        width: features of the first layer; they double with each layer, up to 8 times as many.
        layers: halvings in the plane.

    Attributes:
        in_channels: slices.
        smallest_side: shortest side in the plane, pixels.
    """

    def __init__(self, slices: int, rng: torch.Generator, *, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        self.in_channels, self.smallest_side = slices, 3 * 2**layers
        features = [width * min(8, 2**i) for i in range(layers + 1)]
        steps = [(1 if level < FLAT_HALVINGS else 2, 2, 2) for level in range(layers)] + [(1, 1, 1)]
        body: list[nn.Module] = [_scoring(1, features[0], steps[0]), nn.LeakyReLU(0.2)]
        for pair, step in zip(consecutive(features), steps[1:], strict=True):
            body += [_scoring(*pair, step), nn.InstanceNorm3d(pair[1], affine=True), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*body, _scoring(features[-1], 1, (1, 1, 1)))
        initialize(self, rng)

    def forward(self, slices: Tensor) -> Tensor:
        """Score patches; higher is more real. No stack of the batch changes the scores of another.

        Args:
            slices: (N, k, H, W) in [−1, 1].

        Returns:
            (N, k', H', W') unbounded scores, H' = H / 2^layers − 2.

        Raises:
            ValueError: other channels, or slices too small.
        """
        if slices.ndim != 4 or slices.shape[1] != self.in_channels or min(slices.shape[2:]) < self.smallest_side:
            raise broken_rule(
                "stacks must have the discriminator's slices and be large enough for its patches",
                found=f"shape {tuple(slices.shape)}",
                allowed=f"(N, {self.in_channels}, H, W) with H, W ≥ {self.smallest_side}",
                change="use larger patches, or fewer `layers`",
            )
        scores: Tensor = self.body(slices[:, None])[:, 0]
        return scores


class MirroredConv3d(nn.Module):
    """3×3×3 convolution with mirrored edges: (N, in, K, H, W) → (N, out, K, H, W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(in_channels, out_channels, 3)

    def forward(self, volume: Tensor) -> Tensor:
        """Mirror the edges, then convolve."""
        result: Tensor = self.convolution(mirror_edges(volume))
        return result


def mirror_edges(volume: Tensor) -> Tensor:
    """Mirror one voxel at each edge without repeating the edge voxel: (N, C, K, H, W), all sides 2 or longer."""
    batch, channels = volume.shape[:2]
    plane = reflect_pad(volume.flatten(0, 1), 1)
    plane = plane.view(batch, channels, *plane.shape[1:])
    return torch.cat([plane[:, :, 1:2], plane, plane[:, :, -2:-1]], dim=2)


def enlarge(volume: Tensor, step: tuple[int, int, int]) -> Tensor:
    """Repeat each voxel: (N, C, K, H, W) → (N, C, s K, 2 H, 2 W), with s the first of `step`."""
    wide = double(volume.flatten(0, 1))
    wide = wide.view(*volume.shape[:2], *wide.shape[1:])
    if step[0] == 1:
        return wide
    return wide[:, :, :, None].expand(-1, -1, -1, step[0], -1, -1).flatten(2, 3)


def _halving(in_channels: int, out_channels: int, step: tuple[int, int, int]) -> nn.Sequential:
    """Strided 3×3×3 convolution."""
    return nn.Sequential(
        nn.Conv3d(in_channels, out_channels, 3, stride=step, padding=1),
        nn.InstanceNorm3d(out_channels, affine=True),
        nn.ReLU(),
    )


def _scoring(in_channels: int, out_channels: int, step: tuple[int, int, int]) -> nn.Conv3d:
    return nn.Conv3d(in_channels, out_channels, (3, KERNEL, KERNEL), stride=step, padding=1)


class _Doubling(nn.Module):
    """Narrow, enlarge, add the skip, convolve."""

    def __init__(self, in_channels: int, out_channels: int, step: tuple[int, int, int]) -> None:
        super().__init__()
        self.step = step
        self.narrow = nn.Conv3d(in_channels, out_channels, 1)
        self.merge = nn.Sequential(
            nn.Conv3d(out_channels, out_channels, 3, padding=1),
            nn.InstanceNorm3d(out_channels, affine=True),
            nn.ReLU(),
        )

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        """Merge coarse features with fine ones."""
        merged: Tensor = self.merge(enlarge(self.narrow(features), self.step) + skip)
        return merged
