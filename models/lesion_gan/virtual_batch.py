"""Virtual batch normalization (Salimans 2016, section 3.5): G is normalized by a reference batch that is fixed once.

Each image is normalized by the statistics of R reference images and its own, so that the images of a batch do not hang
together as they do under batch normalization. The reference goes through G with every batch, at R images more.
"""

from typing import Any

import torch
from torch import Tensor, nn

from models.lesion_gan.generator import DCGANGenerator

EPSILON = 1e-5
"""Added to variances, as batch normalization does."""


class VirtualBatchNorm2d(nn.Module):
    """(x − μ) / √(σ² + ε) of each channel, without gain or offset.

    The first `reference_size` rows are the reference: their μ and σ² are those of all reference rows. Of every other
    row, μ and E x² are means over the reference rows and itself: with R reference rows, (R m_ref + m_x) / (R + 1).

    Args:
        reference_size: R, at least 1.
    """

    def __init__(self, reference_size: int) -> None:
        super().__init__()
        self.reference_size = reference_size

    def forward(self, features: Tensor) -> Tensor:
        """(R + N, C, H, W) → same shape."""
        values = features.float()
        means, squares = values.mean(dim=(2, 3), keepdim=True), values.square().mean(dim=(2, 3), keepdim=True)
        size = self.reference_size
        mean, square = means[:size].mean(dim=0, keepdim=True), squares[:size].mean(dim=0, keepdim=True)
        shared = [
            torch.cat([both.expand(size, -1, -1, -1), (size * both + own[size:]) / (size + 1)])
            for both, own in ((mean, means), (square, squares))
        ]
        variance = (shared[1] - shared[0].square()).clamp_min(0)
        return ((values - shared[0]) * torch.rsqrt(variance + EPSILON)).to(features.dtype)


class VirtualBatchGenerator(DCGANGenerator):
    """A `DCGANGenerator` under virtual batch normalization; it gives the same images in training and evaluation.

    Args:
        image_size: side of the image, pixels.
        rng: CPU generator for the initial weights, then for the latents of the reference.
        reference_size: R, images of the reference batch, of all classes in turn.
        **others: see `DCGANGenerator`.
    """

    def __init__(self, image_size: int, rng: torch.Generator, *, reference_size: int, **others: Any) -> None:
        super().__init__(image_size, rng, **others)
        self.reference_size = reference_size
        for norm in self.norms:
            norm.normalization = VirtualBatchNorm2d(reference_size)
        self.register_buffer("reference_latent", torch.randn(reference_size, self.latent_size, generator=rng))
        self.register_buffer("reference_classes", torch.arange(reference_size) % max(self.num_classes, 1))

    def forward(self, latent: Tensor, classes: Tensor) -> Tensor:
        """As `DCGANGenerator.forward`; no image depends on the others of its batch."""
        reference = self.get_buffer("reference_classes")
        if classes.ndim == 2:  # no attribute of the reference is known
            unknown = classes.new_full((self.reference_size, classes.shape[1] - 1), float("nan"))
            reference = torch.cat([reference[:, None].to(classes.dtype), unknown], dim=1)
        images = super().forward(
            torch.cat([self.get_buffer("reference_latent"), latent]), torch.cat([reference, classes])
        )
        return images[self.reference_size :]
