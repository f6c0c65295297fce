"""Building blocks that both GANs share.

The backward pass of torch's own reflection padding adds atomically on GPUs and so is not reproducible there: ours
gathers instead, with equal values but for the order of sums.

No rectifier that follows an instance norm works in place: the norm returns a view, and autograd copies a view that was
written to three times on its way back.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from models.rules import broken_rule


def reflect_pad(images: Tensor, size: int) -> Tensor:
    """Mirror `size` pixels at each edge without repeating the edge pixel.

    Args:
        images: (..., H, W), both sides longer than `size`.
        size: pixels on each side.

    Returns:
        (..., H + 2 size, W + 2 size).

    Raises:
        ValueError: a side is too short to be mirrored.
    """
    if min(images.shape[-2:]) <= size:
        raise broken_rule(
            "an image must be longer than the border that mirrors it",
            found=f"{tuple(images.shape[-2:])} pixels with a border of {size}",
            allowed=f"at least {size + 1} pixels a side",
            change="use larger patches",
        )
    result: Tensor = _Reflection.apply(images, size)  # type: ignore[no-untyped-call]
    return result


class _Reflection(torch.autograd.Function):
    """Padding whose gradient is reproducible everywhere: torch's own on a CPU, gathers elsewhere."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, size: int) -> Tensor:
        """Mirror the edges."""
        ctx.size = size
        return F.pad(images, (size,) * 4, mode="reflect")

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Add what the borders received to the pixels that they show."""
        (gradient,) = gradients
        return reflection_gradient(gradient, ctx.size, exact_kernel=gradient.device.type == "cpu"), None


def reflection_gradient(gradient: Tensor, size: int, *, exact_kernel: bool) -> Tensor:
    """Gradient of `reflect_pad`.

    Args:
        gradient: of its result.
        size: pixels on each side.
        exact_kernel: whether torch's own kernel adds in a fixed order here.
    """
    if exact_kernel:
        inner = gradient[..., size:-size, size:-size]
        return torch.ops.aten.reflection_pad2d_backward(gradient, inner, [size] * 4)  # type: ignore[no-any-return]
    for axis in (-2, -1):
        padded = gradient
        gradient = padded.narrow(axis, size, padded.shape[axis] - 2 * size)
        for places, weight in _mirrors(gradient.shape[axis], size, axis, gradient.device, gradient.dtype):
            gradient = torch.addcmul(gradient, padded.index_select(axis, places), weight)
    return gradient


@functools.cache
def _mirrors(
    length: int, size: int, axis: int, device: torch.device, dtype: torch.dtype
) -> tuple[tuple[Tensor, Tensor], ...]:
    """Where the border shows each pixel of an axis, and 1 where it does: once at most, twice at most on short axes."""
    pixels = torch.arange(length)
    near, far = (pixels >= 1) & (pixels <= size), (pixels >= length - 1 - size) & (pixels <= length - 2)
    before, after = size - pixels, 2 * (length - 1) - pixels + size
    if bool((near & far).any()):
        ways = [(before, near), (after, far)]
    else:
        ways = [(torch.where(near, before, after), near | far)]
    shape = (-1, 1) if axis == -2 else (-1,)
    return tuple(((places * shown).to(device), shown.to(device, dtype).view(shape)) for places, shown in ways)


class ReflectConv(nn.Module):
    """Convolution of odd kernel and stride 1 with mirrored edges: (N, in, H, W) → (N, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.border = kernel_size // 2
        self.convolution = nn.Conv2d(in_channels, out_channels, kernel_size)

    def forward(self, features: Tensor) -> Tensor:
        """Mirror the edges, then convolve."""
        result: Tensor = self.convolution(reflect_pad(features, self.border))
        return result


class ResizeConv(nn.Module):
    """Nearest-neighbor doubling and a 3×3 convolution: no checkerboard, as every output pixel sees equally many inputs.

    (N, in, H, W) → (N, out, 2 H, 2 W). Odena 2016, "Deconvolution and checkerboard artifacts".
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)

    def forward(self, features: Tensor) -> Tensor:
        """Double, then convolve."""
        result: Tensor = self.convolution(double(features))
        return result


def double(images: Tensor) -> Tensor:
    """Repeat each pixel 2×2: (N, C, H, W) → (N, C, 2 H, 2 W). Unlike the linear modes, its gradient is reproducible."""
    return F.interpolate(images, scale_factor=2, mode="nearest")


class ResidualBlock(nn.Module):
    """x + IN(conv(ReLU(IN(conv(x))))) with mirrored edges (Johnson 2016; Zhu 2017, appendix 7.2): shape is kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ReflectConv(channels, channels, 3),
            nn.InstanceNorm2d(channels, affine=True),
            nn.ReLU(),
            ReflectConv(channels, channels, 3),
            nn.InstanceNorm2d(channels, affine=True),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Add the residual."""
        result: Tensor = features + self.body(features)
        return result


class FromImage(nn.Conv2d):
    """A convolution of images, which have few channels: its kernels are slow for these on a CPU.

    While it learns there, it gathers the patches and multiplies them with the weights: the same sums in another order.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, in, H, W) → (N, out, H', W')."""
        if not (on_cpu(input) and torch.is_grad_enabled()):
            return super().forward(input)
        patches = F.unfold(input, self.kernel_size, padding=self._border, stride=self.stride)
        rows = (input.shape[2] + 2 * self._border[0] - self.kernel_size[0]) // self.stride[0] + 1
        patches = patches.view(*patches.shape[:2], rows, -1).contiguous(memory_format=torch.channels_last)
        return F.conv2d(patches, self.weight.flatten(1)[:, :, None, None], self.bias)

    @property
    def _border(self) -> tuple[int, int]:
        assert not isinstance(self.padding, str)  # noqa: S101 - our networks name pixels
        return int(self.padding[0]), int(self.padding[1])


class ToImage(nn.ConvTranspose2d):
    """A doubling transposed convolution (kernel 4, stride 2, padding 1) to few channels: see `FromImage`.

    (N, in, H, W) → (N, out, 2 H, 2 W).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 4, stride=2, padding=1)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Double."""
        if not (on_cpu(input) and self.training):
            return super().forward(input, output_size)
        sides = (2 * input.shape[2], 2 * input.shape[3])
        patches = F.conv2d(input, self.weight.flatten(1).t()[:, :, None, None]).float()
        images = F.fold(patches.flatten(2), sides, 4, padding=1, stride=2)
        return images if self.bias is None else images + self.bias[:, None, None]


def on_cpu(images: Tensor) -> bool:
    """Whether images are worked on by the CPU, here and not in an exported program."""
    return images.device.type == "cpu" and not torch.compiler.is_exporting()


class ConditionalBatchNorm(nn.Module):
    """Batch normalization whose gain and offset depend on the class (de Vries 2017): γ_c (x − μ) / σ + β_c.

    Args:
        channels: of the features.
        num_classes: 0 learns one gain and offset for all.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.normalization = nn.BatchNorm2d(channels, affine=False)
        self.gain = nn.Embedding(max(num_classes, 1), channels)
        self.offset = nn.Embedding(max(num_classes, 1), channels)
        self.num_classes = num_classes
        nn.init.ones_(self.gain.weight)
        nn.init.zeros_(self.offset.weight)

    def forward(self, features: Tensor, classes: Tensor) -> Tensor:
        """Normalize (N, C, H, W) features, then scale and shift by class (N,)."""
        rows = classes if self.num_classes else torch.zeros_like(classes)
        gain, offset = self.gain(rows)[:, :, None, None], self.offset(rows)[:, :, None, None]
        return torch.addcmul(offset, gain, self.normalization(features))


class MinibatchStandardDeviation(nn.Module):
    """Append one channel that tells D how much the images of a batch differ (Karras 2018, section 3).

    (N, C, H, W) → (N, C + 1, H, W): the standard deviation over the batch, averaged over channels and pixels.
    """

    def forward(self, features: Tensor, groups: int) -> Tensor:
        """Append the statistic.

        Args:
            features: (N, C, H, W).
            groups: N is made of that many equal, consecutive parts whose statistics are kept apart. One pass over
                real and fake images together takes 2, and then equals two passes.
        """
        count, channels, height, width = features.shape
        parts = features.view(groups, count // groups, channels, height, width)
        # The small number keeps the square root differentiable when all images are equal.
        spread = (self.variance(parts) + 1e-8).sqrt().mean(dim=(1, 2, 3))
        channel = spread.repeat_interleave(count // groups)[:, None, None, None].expand(-1, 1, height, width)
        return torch.cat([features, channel], dim=1)

    def variance(self, parts: Tensor) -> Tensor:
        """(G, N / G, C, H, W) → (G, C, H, W): over the images of each part."""
        return parts.var(dim=1, unbiased=False)


class _InwardClamp(torch.autograd.Function):
    """Forward: clamp to [−1, 1]. Backward: drop only the gradients whose descent leads further out."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, values: Tensor) -> Tensor:
        """Clamp."""
        ctx.save_for_backward(values)
        return values.clamp(-1, 1)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> Tensor:
        """Keep a gradient inside the range, and outside where −gradient points back in."""
        (gradient,) = gradients
        (values,) = ctx.saved_tensors  # type: ignore[attr-defined]
        outward = ((values > 1) & (gradient < 0)) | ((values < -1) & (gradient > 0))
        return gradient.masked_fill(outward, 0)


def bounded_output(values: Tensor) -> Tensor:
    """Clamp to [−1, 1] such that learning never stalls at the bounds.

    More than half of a CT slice is air, exactly −1. A tanh reaches −1 only at −∞: its gradient dies on the way and the
    rest stays as an offset of tens of HU. A plain clamp reaches −1 but passes no gradient outside, so that a pixel
    once out of range stays wrong. Here the gradient is projected onto the directions that stay feasible: values
    come back from outside when the loss asks for it, and nothing pushes them further out.
    """
    result: Tensor = _InwardClamp.apply(values)  # type: ignore[no-untyped-call]
    return result


def initialize(network: nn.Module, rng: torch.Generator) -> None:
    """Draw the weights of all convolutions and linear layers from N(0, 0.02²) and zero their biases (Radford 2016).

    Call it before layers are wrapped by `normalize_spectrally`, and on the CPU, so that a seed gives the same network
    everywhere.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(layer.weight, 0.0, 0.02, generator=rng)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def normalize_spectrally(network: nn.Module, rng: torch.Generator) -> None:
    """Divide the weight of every convolution, linear layer and embedding by its largest singular value (Miyato 2018).

    One power iteration is made at each pass in training mode, none in eval mode. PyTorch starts the iteration from its
    global generator; that one is seeded from ``rng`` meanwhile and then put back: a seed gives the same network.
    """
    seed = int(torch.randint(2**31, (), generator=rng))
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        for layer in list(network.modules()):
            if isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding):
                spectral_norm(layer)


def consecutive(channels: Sequence[int]) -> list[tuple[int, int]]:
    """The (input, output) channels of layers in a row: (a, b, c) → (a, b), (b, c)."""
    return [(channels[i], channels[i + 1]) for i in range(len(channels) - 1)]


def leaky_relu(features: Tensor) -> Tensor:
    """LeakyReLU of slope 0.2, the DCGAN discriminator's (Radford 2016), in the memory of its argument."""
    return F.leaky_relu(features, 0.2, inplace=True)
