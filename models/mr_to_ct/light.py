"""A translator for the CPU: a U-Net at half resolution between a lossless folding and a narrow full-resolution head.

Convolutions at full resolution are most of a U-Net's time and see least. Here each 2×2 block of pixels is folded into
channels (Shi 2016, the inverse of the sub-pixel convolution), a U-Net with residual blocks works from half resolution
down, and its result is unfolded again. Two narrow convolutions then see the unfolded features beside the slices
themselves, so that edges lie where the slices have them. The layer that is unfolded starts with equal weights for the
four pixels of a block (Aitken 2017), so that there is no checkerboard to unlearn.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.blocks import ReflectConv, bounded_output, consecutive, double, initialize
from models.mr_to_ct.generator import Translator, down_and_up

_FOLD = 2


class LightGenerator(Translator):
    """Folding, half-resolution U-Net, unfolding, narrow head.

    Args:
        in_channels: slices plus context channels.
        out_channels: slices.
        rng: CPU generator for the initial weights.
        width: features at half resolution; they double with each halving, up to 4 times as many.
        depth: halvings below half resolution.
    """

    def __init__(
        self, in_channels: int, out_channels: int, rng: torch.Generator, *, width: int = 32, depth: int = 3
    ) -> None:
        super().__init__(in_channels, out_channels, depth + 1)
        channels = [width * min(4, 2**level) for level in range(depth + 1)]
        fine = max(8, width // 4)
        self.stem = ReflectConv(in_channels * _FOLD**2, width, 3)
        self.downs = nn.ModuleList(_Down(inner, outer) for inner, outer in consecutive(channels))
        self.ups = nn.ModuleList(_Up(outer, inner) for inner, outer in reversed(consecutive(channels)))
        self.unfold = nn.Conv2d(width, fine * _FOLD**2, 1)
        self.mix = ReflectConv(fine + in_channels, fine, 3)
        self.head = ReflectConv(fine, out_channels, 3)
        initialize(self, rng)
        with torch.no_grad():
            self.unfold.weight.copy_(self.unfold.weight[:: _FOLD**2].repeat_interleave(_FOLD**2, dim=0))

    def forward(self, slices: Tensor) -> Tensor:
        """Translate.

        Args:
            slices: (N, in_channels, H, W) in [−1, 1]; H and W multiples of 2^(depth + 1), at least twice that.

        Returns:
            (N, out_channels, H, W) in [−1, 1].

        Raises:
            ValueError: other channels or sides.
        """
        self.require_size(slices)
        first = torch.relu(self.stem(F.pixel_unshuffle(slices, _FOLD)))
        features = down_and_up(first, self.downs, self.ups)
        fine = F.pixel_shuffle(self.unfold(features), _FOLD)
        mixed = torch.relu(self.mix(torch.cat([fine, slices], dim=1)))
        return bounded_output(self.head(mixed))


class _Down(nn.Module):
    """Halve, then add a residual: (N, in, H, W) → (N, out, H/2, W/2)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.halve = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1),
            nn.InstanceNorm2d(out_channels, affine=True),
            nn.ReLU(),
        )
        self.refine = _Refine(out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """Coarser features."""
        result: Tensor = self.refine(self.halve(features))
        return result


class _Up(nn.Module):
    """Narrow, double, add the skip, then a residual: (N, in, H, W), (N, out, 2 H, 2 W) → (N, out, 2 H, 2 W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(in_channels, out_channels, 1)
        self.refine = _Refine(out_channels)

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        """Merge coarse features with fine ones."""
        result: Tensor = self.refine(double(self.narrow(features)) + skip)
        return result


class _Refine(nn.Module):
    """x + ReLU(IN(conv(x))): shape is kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.InstanceNorm2d(channels, affine=True), nn.ReLU()
        )

    def forward(self, features: Tensor) -> Tensor:
        """Add the residual."""
        result: Tensor = features + self.body(features)
        return result
