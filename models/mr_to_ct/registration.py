"""A small network in the loop that bends a translation onto an imperfectly registered CT (RegGAN: Kong 2021).

Given a translation t and a CT y, it predicts displacements u(p) in pixels on a grid eight times as coarse, which are
interpolated between; t(p + u(p)) is compared with y. The translator is then not punished for a misregistration that no
translator could foresee. Displacements pay for roughness, ⟨|∇u|²⟩, and a little for length, ⟨|u|²⟩: the mean shift of a
training set cannot be told from one that the translator makes itself, and the smaller one is taken.

The network sees the translation without its graph: it cannot teach the translator to ease its own work.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.blocks import initialize
from models.rules import broken_rule

COARSE = 8
"""Pixels between the nodes of the grid of displacements."""


class DeformationNetwork(nn.Module):
    """Displacements that bend one stack of slices onto another; none before training.

    Args:
        slices: of a stack; all of them are bent alike.
        rng: CPU generator for the initial weights.
        width: features.
    """

    def __init__(self, slices: int, rng: torch.Generator, *, width: int = 16) -> None:
        super().__init__()
        self.slices = slices
        layers: list[nn.Module] = []
        for inner, outer in ((2 * slices, width), (width, 2 * width), (2 * width, 2 * width)):
            layers += [nn.Conv2d(inner, outer, 3, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        layers += [nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(2 * width, 2, 3, padding=1)
        initialize(self.body, rng)
        for layer in self.body:
            if isinstance(layer, nn.Conv2d):  # without normalization, gains must not vanish from layer to layer
                layer.weight.data *= (2 / (layer.weight[0].numel() * 0.02**2)) ** 0.5
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """Displacements, in pixels.

        Args:
            moving: (N, k, H, W); no gradient flows into it.
            fixed: same shape; sides multiples of `COARSE`.

        Returns:
            (N, 2, H / 8, W / 8): down, right, at the centers of blocks of pixels.

        Raises:
            ValueError: other channels, or sides.
        """
        if moving.shape != fixed.shape or moving.shape[1] != self.slices or any(s % COARSE for s in moving.shape[2:]):
            raise broken_rule(
                "a deformation needs two stacks of one shape",
                found=f"{tuple(moving.shape)} and {tuple(fixed.shape)}",
                allowed=f"(N, {self.slices}, H, W) twice, H and W multiples of {COARSE}",
                change="crop both to one patch size",
            )
        coarse: Tensor = self.head(self.body(torch.cat([moving.detach(), fixed], dim=1)))
        return coarse


def warp(images: Tensor, displacements: Tensor) -> Tensor:
    """Look up images at displaced places: result(p) = images(p + u(p)), linear between pixels, edges repeated.

    Args:
        images: (N, C, H, W).
        displacements: (N, 2, h, w) in pixels, down and right, at the centers of blocks of H/h × W/w pixels.

    Returns:
        (N, C, H, W).
    """
    height, width = images.shape[-2:]
    dense = F.interpolate(displacements, size=(height, width), mode="bilinear", align_corners=False)
    rows = torch.arange(height, device=images.device, dtype=images.dtype)[:, None] + dense[:, 0]
    columns = torch.arange(width, device=images.device, dtype=images.dtype) + dense[:, 1]
    grid = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], dim=-1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def roughness(displacements: Tensor) -> Tensor:
    """⟨|∇u|²⟩: squared differences between neighbors of a (N, 2, h, w) grid; 0 for a shift of the whole."""
    return displacements.diff(dim=-1).square().mean() + displacements.diff(dim=-2).square().mean()


def length(displacements: Tensor) -> Tensor:
    """⟨|u|²⟩ in squared pixels."""
    return displacements.square().sum(dim=1).mean()
