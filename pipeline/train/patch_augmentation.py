"""Changes patches as other patients, positions and scanners would: bent shapes for both modalities, looks for MR.

A bend is one smooth map of the plane: rotation, scale, shear and shift, and a displacement on a coarse grid between
them. MR, CT, masks and coordinates of a pair go through the same map, so that a pair stays a pair and a coordinate
stays with the anatomy it names. A look is a random curve from intensity to intensity, a smooth gain (what is left of
coil profiles) and Rician noise: the anatomy has to be told by shape, because contrast differs from scan to scan.
All draws come from one generator, before anything is changed.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from models.mr_to_ct.step import MRToCTBatch

ROTATION, SCALE, SHEAR, SHIFT = 0.35, 0.2, 0.15, 0.12
"""Largest rotation (radians), change of scale, shear, and shift (half sides), at strength 1."""

BEND = 0.04
"""Deviation of the displacement of a knot, in half sides, at strength 1: 2.6 pixels of 128."""

KNOTS = 6
"""Knots a side of the grid of displacements and of gains."""

CURVE, GAIN, NOISE = 0.3, 0.25, 0.06
"""Deviation of a curve's inner knots, of the logarithm of the gain, and the largest noise, at strength 1, where MR
spans [0, 1]."""

CURVE_KNOTS = 7
UNTOUCHED = 0.15
"""Share of patches that are shown as they are."""


@dataclass(frozen=True)
class PatchAugmentation:
    """How strongly patches are changed; 0 leaves them as they are.

    Attributes:
        shape: strength of the bends, for both modalities.
        look: strength of the looks, for MR.
    """

    shape: float
    look: float

    def __call__(self, batch: MRToCTBatch, rng: torch.Generator) -> MRToCTBatch:
        """Changed copies of a batch; rows that are pairs are bent alike."""
        count, slices = len(batch.mr), batch.mr_mask.shape[1]
        sequences = 1 + (batch.mr.shape[1] - batch.ct.shape[1]) // slices
        if self.shape > 0:
            mr_map, ct_map = (self._maps(count, batch.mr, rng) for _ in "ab")
            ct_map = torch.where(batch.paired[:, None, None, None], mr_map, ct_map)
            weak = None if batch.weak is None else _bent_images(batch.weak, mr_map)
            batch = replace(
                batch,
                mr=_bent(batch.mr, slices * sequences, mr_map),
                ct=_bent(batch.ct, slices, ct_map),
                mr_mask=_bent_mask(batch.mr_mask, mr_map),
                ct_mask=_bent_mask(batch.ct_mask, ct_map),
                weak=weak,
            )
        if self.look > 0:
            parts = torch.split(batch.mr[:, : slices * sequences], slices, dim=1)
            looks = [self._looks(part, batch.mr_mask, rng) for part in parts]
            batch = replace(batch, mr=torch.cat([*looks, batch.mr[:, slices * sequences :]], dim=1))
        return batch

    def _maps(self, count: int, like: Tensor, rng: torch.Generator) -> Tensor:
        """Where each pixel comes from: (N, H, W, 2), x before y, in half sides from the center."""
        draws = torch.rand(count, 6, generator=rng) * 2 - 1
        knots = torch.randn(count, 2, KNOTS, KNOTS, generator=rng) * BEND * self.shape
        touched = (torch.rand(count, generator=rng) >= UNTOUCHED).float()
        draws, knots = draws * touched[:, None] * self.shape, knots * touched[:, None, None, None]
        angle, shear = draws[:, 0] * ROTATION, draws[:, 1] * SHEAR
        scale_x, scale_y = (torch.exp(draws[:, place] * SCALE) for place in (2, 3))
        cosine, sine = torch.cos(angle), torch.sin(angle)
        rows = [
            torch.stack([cosine * scale_x, shear - sine * scale_y, draws[:, 4] * SHIFT], dim=1),
            torch.stack([sine * scale_x, cosine * scale_y, draws[:, 5] * SHIFT], dim=1),
        ]
        size = [count, 1, *like.shape[2:]]
        grid = F.affine_grid(torch.stack(rows, dim=1), size, align_corners=False)
        bends = F.interpolate(knots, size=size[2:], mode="bicubic", align_corners=True)
        return (grid + bends.permute(0, 2, 3, 1)).to(like.device)

    def _looks(self, mr: Tensor, mask: Tensor, rng: torch.Generator) -> Tensor:
        """MR slices (N, k, H, W) in [−1, 1] under other contrast; the air outside keeps its darkness."""
        count = len(mr)
        curves = torch.randn(count, CURVE_KNOTS, generator=rng) * CURVE * self.look
        gains = torch.randn(count, 1, KNOTS, KNOTS, generator=rng) * GAIN * self.look
        level = torch.rand(count, 1, 1, 1, generator=rng) * NOISE * self.look
        touched = (torch.rand(count, 1, 1, 1, generator=rng) >= UNTOUCHED).float()
        noise = torch.randn(2, *mr.shape, generator=rng) * level * touched
        curves = curves * touched[:, :, 0, 0]
        curves[:, 0] = 0  # what gives no signal gives none in any contrast
        signal = _through_curves((mr + 1) / 2, curves.to(mr.device))
        gain = F.interpolate(gains * touched, size=mr.shape[2:], mode="bicubic", align_corners=True).to(mr.device)
        signal = (signal * torch.exp(gain)).clamp(0, 1)
        noisy = torch.hypot(signal + noise[0].to(mr.device), noise[1].to(mr.device))
        return (noisy * 2 - 1).clamp(-1, 1)


def _through_curves(signal: Tensor, offsets: Tensor) -> Tensor:
    """Identity plus a piecewise-linear curve a row: signal (N, k, H, W) in [0, 1], offsets (N, knots) evenly spaced."""
    last = offsets.shape[1] - 1
    place = (signal * last).clamp(0, last)
    low = place.floor().clamp(max=last - 1).long()
    flat = low.flatten(1)
    below, above = torch.gather(offsets, 1, flat), torch.gather(offsets, 1, flat + 1)
    share = place.flatten(1) - flat
    return (signal + (below + share * (above - below)).view_as(signal)).clamp(0, 1)


def _bent(channels: Tensor, slices: int, grid: Tensor) -> Tensor:
    """Slices with air beyond their border, then coordinates that go on."""
    images = _bent_images(channels[:, :slices], grid)
    if channels.shape[1] == slices:
        return images
    context = F.grid_sample(channels[:, slices:], grid, padding_mode="border", align_corners=False)
    return torch.cat([images, context], dim=1)


def _bent_images(images: Tensor, grid: Tensor) -> Tensor:
    """Bicubic, because a linear bend would teach the networks blurred edges; kept in range."""
    bent = F.grid_sample(images + 1, grid, mode="bicubic", padding_mode="zeros", align_corners=False) - 1
    return bent.clamp(-1, 1)


def _bent_mask(mask: Tensor, grid: Tensor) -> Tensor:
    return (F.grid_sample(mask, grid, padding_mode="zeros", align_corners=False) > 0.5).to(mask.dtype)
