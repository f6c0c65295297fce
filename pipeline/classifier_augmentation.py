"""Classical augmentation that does not blur: mirror, rotation, zoom, shift, contrast and brightness.

Resampling blurs, and a classical arm that blurs all its images makes any synthetic set look good: see
`ClassicalAugmentation`.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AugmentationDraw:
    """Parameters drawn for one batch of N images.

    Args:
        affine: (N, 2, 3), from output to input positions, in half edges from the center, for square images.
        moved: (N,) bool, which images are resampled with `affine`.
        mirrored: (N,) bool, which images are mirrored left-right.
        gain: (N,) contrast factors.
        offset: (N,) brightness offsets.
    """

    affine: Tensor
    moved: Tensor
    mirrored: Tensor
    gain: Tensor
    offset: Tensor


@dataclass(frozen=True)
class ClassicalAugmentation:
    """Mirror, rotation, zoom, shift, and changes of contrast and brightness, drawn per image.

    Resampling blurs, and a classical arm that blurs all its images makes any synthetic set look good. So every image
    is resampled at most once, by MONAI's batch-wise affine layer with bicubic weights; only a share of the images is
    resampled at all; mirroring is exact; and an image that draws no change comes back bit for bit.

    Args:
        max_rotation_degrees: rotation angle, uniform in ± this.
        max_zoom: zoom factor, uniform in 1 ± this.
        max_shift: shift, uniform in ± this share of the edge.
        move_probability: share of the images that are rotated, zoomed and shifted.
        mirror_probability: share of the images that are mirrored left-right (last axis).
        max_gain: contrast factor, uniform in 1 ± this.
        max_offset: brightness offset in units of [-1, 1], uniform in ± this.
    """

    max_rotation_degrees: float = 10.0
    max_zoom: float = 0.1
    max_shift: float = 0.06
    move_probability: float = 0.5
    mirror_probability: float = 0.5
    max_gain: float = 0.1
    max_offset: float = 0.1

    def __call__(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Draw parameters for images (N, C, H, W) in [-1, 1] and apply them; the input stays as it is."""
        return augment_batch(images, self.draw(len(images), rng))

    def draw(self, count: int, rng: torch.Generator) -> AugmentationDraw:
        """Draw the parameters of `count` images from a generator on the CPU."""
        uniform = torch.rand(8, count, generator=rng)
        signed = 2 * uniform - 1
        angle = signed[0] * math.radians(self.max_rotation_degrees)
        scale = 1 / (1 + signed[1] * self.max_zoom)
        moved = uniform[4] < self.move_probability
        affine = torch.zeros(count, 2, 3)
        affine[:, 0, 0] = affine[:, 1, 1] = scale * torch.cos(angle)
        affine[:, 0, 1] = -scale * torch.sin(angle)
        affine[:, 1, 0] = scale * torch.sin(angle)
        affine[:, :, 2] = 2 * self.max_shift * signed[2:4].T
        return AugmentationDraw(
            affine=affine,
            moved=moved & ~torch.isclose(affine, torch.eye(2, 3)).all(dim=2).all(dim=1),
            mirrored=uniform[5] < self.mirror_probability,
            gain=1 + signed[6] * self.max_gain,
            offset=signed[7] * self.max_offset,
        )


def augment_batch(images: Tensor, draw: AugmentationDraw) -> Tensor:
    """Apply drawn parameters to images (N, C, H, W); the result is clipped to [-1, 1].

    Contrast turns around -1, the background, so that background stays background under any gain.
    """
    from monai.networks.layers import AffineTransform  # takes seconds to import, needed only where an arm augments

    augmented = torch.where(draw.mirrored.to(images.device)[:, None, None, None], images.flip(-1), images)
    if draw.moved.any():
        layer = AffineTransform(
            normalized=True, mode="bicubic", padding_mode="border", align_corners=False, reverse_indexing=False
        )
        moved = draw.moved.to(images.device)
        matrices = _homogeneous(draw.affine, images.shape[2] / images.shape[3])[draw.moved]
        augmented[moved] = layer(augmented[moved], matrices.to(images.device, images.dtype))
    gain, offset = (values.to(images.device, images.dtype)[:, None, None, None] for values in (draw.gain, draw.offset))
    changed = (gain != 1) | (offset != 0)
    return torch.where(changed, (augmented + 1) * gain - 1 + offset, augmented).clamp(-1, 1)


def _homogeneous(affine: Tensor, height_over_width: float) -> Tensor:
    """(N, 2, 3) to (N, 3, 3); the off-diagonal terms are corrected for images that are not square."""
    aspect = torch.tensor([[1.0, height_over_width, 1.0], [1 / height_over_width, 1.0, 1.0]])
    last_row = torch.tensor([0.0, 0.0, 1.0]).expand(len(affine), 1, 3)
    return torch.cat([affine * aspect, last_row], dim=1)
