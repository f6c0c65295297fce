"""DiffAugment: the same differentiable augmentation of real and fake images, for small data (Zhao 2020).

For gray images the paper's color policy reduces to brightness x + b, b ~ U(−½, ½), and contrast
c (x − mean x) + mean x, c ~ U(½, 3/2), the mean over one image. Translation shifts by whole pixels, up to ⅛ of the
side, and cutout erases a square of half the side; both fill with zero. Numbers are drawn first and applied second, so
that one draw can be looked at, repeated and tested.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from models.rules import broken_rule

POLICIES = ("brightness", "contrast", "translation", "cutout")
"""Every policy by its settings name, in the order in which they are applied."""

BRIGHTNESS_RANGE = 0.5
CONTRAST_RANGE = 0.5
TRANSLATION_RATIO = 0.125
CUTOUT_RATIO = 0.5


@dataclass(frozen=True)
class AugmentationDraw:
    """The random numbers of one batch; a policy that is off has None.

    Attributes:
        brightness: (N,) offsets, in image units.
        contrast: (N,) factors.
        shift: (N, 2) whole pixels toward higher rows and columns.
        cutout_corner: (N, 2) first row and column of the erased square; it may lie partly outside.
        cutout_side: (2,) height and width of the square, pixels.
    """

    brightness: Tensor | None = None
    contrast: Tensor | None = None
    shift: Tensor | None = None
    cutout_corner: Tensor | None = None
    cutout_side: tuple[int, int] = (0, 0)


def require_policies(policies: tuple[str, ...]) -> None:
    """Check the names of policies.

    Raises:
        ValueError: a name is unknown.
    """
    unknown = [policy for policy in policies if policy not in POLICIES]
    if unknown:
        raise broken_rule(
            "every augmentation policy must be a known one",
            found=", ".join(unknown),
            allowed=", ".join(POLICIES),
            change="set `diff_augment` to a list of these, or leave it empty",
        )


def draw_augmentation(
    policies: tuple[str, ...],
    images: Tensor,
    rng: torch.Generator,
    *,
    strength: float = 1.0,
    probability: Tensor | None = None,
    count: int | None = None,
) -> AugmentationDraw:
    """Draw the numbers for one batch.

    Args:
        policies: names out of `POLICIES`.
        images: (N, C, H, W), used for its shape and device alone.
        rng: generator.
        strength: multiplies every range; 1 is the paper's, 0 changes nothing.
        count: images to draw for; None for those given.
        probability: scalar; each policy leaves an image as it is with one minus this. None applies all to all.

    Raises:
        ValueError: a policy is unknown.
    """
    require_policies(policies)
    height, width = images.shape[2:]
    number = len(images) if count is None else count

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=rng, device=rng.device).to(images.device)

    def whole(low: int, high: int) -> Tensor:
        return (low + (high - low + 1) * uniform(number)).floor().long()

    def whole_pair(lows: tuple[int, int], highs: tuple[int, int]) -> Tensor:
        return torch.stack([whole(lows[0], highs[0]), whole(lows[1], highs[1])], dim=1)

    reach = (int(height * TRANSLATION_RATIO * strength + 0.5), int(width * TRANSLATION_RATIO * strength + 0.5))
    square = (int(height * CUTOUT_RATIO * strength + 0.5), int(width * CUTOUT_RATIO * strength + 0.5))
    # The square's center is uniform over the image, as in the paper: near an edge it loses the part outside.
    first = (-(square[0] // 2), -(square[1] // 2))
    last = (height - 1 + first[0], width - 1 + first[1])
    cutout = "cutout" in policies
    draw = AugmentationDraw(
        brightness=strength * BRIGHTNESS_RANGE * (2 * uniform(number) - 1) if "brightness" in policies else None,
        contrast=1 + strength * CONTRAST_RANGE * (2 * uniform(number) - 1) if "contrast" in policies else None,
        shift=whole_pair((-reach[0], -reach[1]), reach) if "translation" in policies else None,
        cutout_corner=whole_pair(first, last) if cutout else None,
        cutout_side=square if cutout else (0, 0),
    )
    if probability is None:
        return draw
    return _thinned(draw, uniform(number, len(POLICIES)) < probability)


def part_of(draw: AugmentationDraw, part: Callable[[Tensor], Tensor]) -> AugmentationDraw:
    """The draw for some of its images: ``part`` takes their rows from every tensor."""

    def rows(values: Tensor | None) -> Tensor | None:
        return None if values is None else part(values)

    return AugmentationDraw(
        rows(draw.brightness), rows(draw.contrast), rows(draw.shift), rows(draw.cutout_corner), draw.cutout_side
    )


def _thinned(draw: AugmentationDraw, chosen: Tensor) -> AugmentationDraw:
    """The draw where chosen (N, policies), and nothing elsewhere: offset 0, factor 1, no shift, no square inside."""
    bright, contrast, shift, cutout = chosen.unbind(dim=1)
    outside = torch.tensor([-side for side in draw.cutout_side], device=chosen.device)
    return AugmentationDraw(
        brightness=None if draw.brightness is None else draw.brightness * bright,
        contrast=None if draw.contrast is None else torch.where(contrast, draw.contrast, 1.0),
        shift=None if draw.shift is None else draw.shift * shift[:, None],
        cutout_corner=None if draw.cutout_corner is None else torch.where(cutout[:, None], draw.cutout_corner, outside),
        cutout_side=draw.cutout_side,
    )


def apply_augmentation(images: Tensor, draw: AugmentationDraw) -> Tensor:
    """Apply one draw; differentiable with respect to the images.

    Args:
        images: (N, C, H, W) of the shape that the draw was made for.
        draw: from `draw_augmentation`.

    Returns:
        (N, C, H, W), a new tensor unless the draw is empty.
    """
    if draw.brightness is not None:
        images = images + draw.brightness[:, None, None, None]
    if draw.contrast is not None:
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        images = draw.contrast[:, None, None, None] * (images - mean) + mean
    if draw.shift is not None:
        images = _translate(images, draw.shift)
    if draw.cutout_corner is not None:
        images = _cut_out(images, draw.cutout_corner, draw.cutout_side)
    return images


def _translate(images: Tensor, shift: Tensor) -> Tensor:
    """Shift with zero fill as a product with 0/1 matrices: exact, and its gradient is deterministic on every device."""
    rows = _shift_matrix(images.shape[2], shift[:, 0], images)
    columns = _shift_matrix(images.shape[3], shift[:, 1], images)
    return rows @ images @ columns.transpose(-1, -2)


def _shift_matrix(side: int, shift: Tensor, images: Tensor) -> Tensor:
    """(N, 1, side, side) with a one where target index = source index + shift."""
    index = torch.arange(side, device=images.device)
    source = index[None, :] - shift[:, None]
    return (source[:, :, None] == index[None, None, :]).to(images.dtype)[:, None]


def _cut_out(images: Tensor, corner: Tensor, side: tuple[int, int]) -> Tensor:
    rows = torch.arange(images.shape[2], device=images.device)[None, :]
    columns = torch.arange(images.shape[3], device=images.device)[None, :]
    in_rows = (rows >= corner[:, :1]) & (rows < corner[:, :1] + side[0])
    in_columns = (columns >= corner[:, 1:]) & (columns < corner[:, 1:] + side[1])
    keep = ~(in_rows[:, :, None] & in_columns[:, None, :])
    return images * keep[:, None].to(images.dtype)
