"""Halving and doubling convolutions (kernel 4, stride 2, border 1) whose weights learn faster on a CPU.

A DCGAN spends most of a step in them. Split by the parity of its pixels, such a convolution is one of 2×2 weights with
stride 1 on four times the channels. Two neighboring outputs of two weights need three products in place of four
(Winograd 1980; Lavin and Gray 2016, F(2, 2)), in two dimensions nine in place of sixteen:

    y₀ = (d₀ − d₁) g₀ + d₁ (g₀ + g₁)        y₁ = d₁ (g₀ + g₁) + (d₂ − d₁) g₁

The gradient of the weights is the same scheme read the other way. It is taken where it is the slower part, on small
maps of many channels; passes forward and back to the images are left to torch, which is as fast there. Same sums in
another order: float32 differs by its rounding.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.blocks import on_cpu

MANY_CHANNELS = 128
"""Fewer channels than this in the larger map, and torch's own gradient is as fast."""
MOST_PRODUCTS = 6_000_000
"""Numbers of the transformed map above which the memory that it needs costs more than the products save."""

_STRIDE, _BORDER, _NONE = [2, 2], [1, 1], [0, 0]


class HalvingConv(nn.Conv2d):
    """(N, in, H, W) → (N, out, H/2, W/2): kernel 4, stride 2, border 1 of zeros."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 4, stride=2, padding=1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve."""
        if not _learns(self.weight, input):
            return super().forward(input)
        result: Tensor = _Convolution.apply(input, self.weight, self.bias, False)  # type: ignore[no-untyped-call]
        return result


class DoublingConv(nn.ConvTranspose2d):
    """(N, in, H, W) → (N, out, 2 H, 2 W): the transposed `HalvingConv`, without a bias."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 4, stride=2, padding=1, bias=False)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve."""
        if output_size is not None or not _learns(self.weight, input):
            return super().forward(input, output_size)
        result: Tensor = _Convolution.apply(input, self.weight, None, True)  # type: ignore[no-untyped-call]
        return result


class _Convolution(torch.autograd.Function):
    """A halving convolution, or its transpose. A gradient that is to be differentiated again is torch's own."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:
        """Convolve."""
        ctx.save_for_backward(images, weight)
        ctx.bias_sizes, ctx.transposed = None if bias is None else list(bias.shape), transposed
        return (F.conv_transpose2d if transposed else F.conv2d)(images, weight, bias, 2, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of images, weight and bias."""
        (gradient,), (images, weight) = gradients, ctx.saved_tensors
        larger, smaller = (gradient, images) if ctx.transposed else (images, gradient)
        wanted = list(ctx.needs_input_grad[:3])
        product = wanted[1] and not torch.is_grad_enabled() and pays(larger)
        mask = [wanted[0], wanted[1] and not product, wanted[2]]
        of_images, of_weight, of_bias = torch.ops.aten.convolution_backward(
            gradient, images, weight, ctx.bias_sizes, _STRIDE, _BORDER, [1, 1], ctx.transposed, _NONE, 1, mask
        )
        return of_images, weight_gradient(larger, smaller) if product else of_weight, of_bias, None


def pays(images: Tensor) -> bool:
    """Whether `weight_gradient` takes a larger map and is the faster way for it.

    Args:
        images: (N, C, H, W), the larger of the two maps.
    """
    channels, height, width = images.shape[1:]
    whole = height % 4 == 0 and width % 4 == 0
    return whole and channels >= MANY_CHANNELS and 9 * images.numel() // 4 <= MOST_PRODUCTS


def weight_gradient(images: Tensor, gradient: Tensor) -> Tensor:
    """Σ over images and places of what each weight multiplies, times the gradient that it receives.

    Args:
        images: (N, C, H, W), what a halving convolution was given; H and W multiples of 4.
        gradient: (N, K, H/2, W/2), of what it returned.

    Returns:
        (K, C, 4, 4).
    """
    outs, channels = gradient.shape[1], images.shape[1]
    products = torch.bmm(_spread_gradient(gradient).transpose(1, 2), _spread_images(images))
    rows = products.view(3, 3, outs, 2, 2 * channels)
    rows[:, 0] += rows[:, 1]
    rows[:, 2] += rows[:, 1]
    weight = gradient.new_empty((outs, 2, 2, 2, 2 * channels))
    by_place = weight.permute(1, 3, 0, 2, 4)
    for place, column in enumerate((0, 2)):
        torch.add(rows[0, column], rows[1, column], out=by_place[0, place])
        torch.add(rows[2, column], rows[1, column], out=by_place[1, place])
    return weight.view(outs, 4, 4, channels).permute(0, 3, 1, 2)


def _spread_images(images: Tensor) -> Tensor:
    """(N, C, H, W) → (9, tiles, 4 C): d₀ − d₁, d₁ and d₂ − d₁ along both axes of each tile of 2×2 outputs."""
    count, channels, height, width = images.shape
    down, across = height // 4, width // 4
    padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    strip = (count, down, 2, width + 2, channels)
    image, row, column, _ = padded.stride()
    first, middle, last = (
        padded.as_strided(strip, (image, 4 * row, row, column, 1), 2 * shift * row) for shift in range(3)
    )
    rows = torch.stack([first, middle, last])
    rows[0] -= middle
    rows[2] -= middle
    way, image, row, parity, column, _ = rows.stride()
    tile = (3, count, down, across, 2, 2 * channels)
    first, middle, last = (
        rows.as_strided(tile, (way, image, row, 4 * column, parity, 1), 2 * shift * column) for shift in range(3)
    )
    spread = rows.new_empty((3, *tile))
    torch.sub(first, middle, out=spread[:, 0])
    spread[:, 1] = middle
    torch.sub(last, middle, out=spread[:, 2])
    return spread.view(9, count * down * across, 4 * channels)


def _spread_gradient(gradient: Tensor) -> Tensor:
    """(N, K, H, W) → (9, tiles, K): y₀, y₀ + y₁ and y₁ along both axes of each tile of 2×2 places."""
    count, outs, height, width = gradient.shape
    tiles = gradient.permute(0, 2, 3, 1).reshape(count, height // 2, 2, width // 2, 2, outs).permute(2, 4, 0, 1, 3, 5)
    spread = gradient.new_empty((3, 3, *tiles.shape[2:]))
    for row, of_row in ((0, tiles[0]), (2, tiles[1])):
        spread[row, 0], spread[row, 2] = of_row[0], of_row[1]
        torch.add(of_row[0], of_row[1], out=spread[row, 1])
    torch.add(spread[0], spread[2], out=spread[1])
    return spread.view(9, -1, outs)


def _learns(weight: Tensor, images: Tensor) -> bool:
    """Whether the weights of a layer on the CPU are to receive a gradient in float32."""
    learning = torch.is_grad_enabled() and weight.requires_grad
    return learning and on_cpu(images) and not torch.is_autocast_enabled("cpu")
