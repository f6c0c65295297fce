"""Attributes beside the lesion class: how the two networks of the `dcgan` family are conditioned on them.

Conditions of N images come as classes (N,) long, or as (N, 1 + A) floats: the index of the class, then A attributes,
NaN where one is missing. A level of a categorical attribute is its index; a number lies in [−1, 1] and is a mixture of
the two nearest of `KNOTS` learned points (linear interpolation), so that its effect need not be linear. Each
attribute has one learned point more, for missing values. G's normalized features are scaled and shifted by attributes
(FiLM: Perez 2018), and D projects its features onto them as onto the class (Miyato and Koyama 2018).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.rules import broken_rule

KNOTS = 5
"""Learned points of a number, evenly spaced over [−1, 1]."""


def classes_of(conditions: Tensor) -> Tensor:
    """(N,) long class indices of conditions (N,) or (N, 1 + A)."""
    return conditions if conditions.ndim == 1 else conditions[:, 0].long()


class AttributeCode:
    """Turns attributes into weights of learned points.

    Args:
        levels: for each attribute the number of its levels, 0 for a number.

    Attributes:
        size: weights an image; those of one attribute add up to 1.
    """

    def __init__(self, levels: Sequence[int]) -> None:
        self.levels = tuple(levels)
        self._points = [(count or KNOTS) + 1 for count in self.levels]
        self.size = sum(self._points)

    def __call__(self, conditions: Tensor) -> Tensor:
        """(N, size) weights for conditions (N, 1 + A), or for classes (N,) with every attribute missing.

        Raises:
            ValueError: another number of attributes, or a level that there is not.
        """
        count = len(conditions)
        if conditions.ndim == 1:
            values = torch.full((count, len(self.levels)), float("nan"), device=conditions.device)
        else:
            values = conditions[:, 1:]
        if values.shape != (count, len(self.levels)):
            raise broken_rule(
                "conditions hold the class and every attribute of the network",
                found=tuple(conditions.shape),
                allowed=f"({count},) or ({count}, {1 + len(self.levels)})",
                change="encode the attributes that the network was built with",
            )
        parts = [
            _hats(column) if levels == 0 else _one_hot(column, levels)
            for column, levels in zip(values.T, self.levels, strict=True)
        ]
        return torch.cat(parts, dim=1)


class AttributeModulation(nn.Module):
    """Scale and shift of normalized features: y (1 + γ) + β, both linear in the weights and 0 before training.

    Args:
        size: of the weights.
        channels: of the features.
    """

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(channels, size))
        self.offset = nn.Parameter(torch.zeros(channels, size))

    def forward(self, features: Tensor, weights: Tensor) -> Tensor:
        """(N, C, H, W) features and (N, size) weights → (N, C, H, W)."""
        gain, offset = (weights @ matrix.T for matrix in (self.gain, self.offset))
        return features * (1 + gain[:, :, None, None]) + offset[:, :, None, None]


def attribute_projection(size: int, channels: int, rng: torch.Generator) -> nn.Linear:
    """What D projects its features onto: (N, size) weights → (N, channels), drawn from N(0, 0.02²)."""
    layer = nn.Linear(size, channels, bias=False)
    nn.init.normal_(layer.weight, 0.0, 0.02, generator=rng)
    return layer


def _hats(values: Tensor) -> Tensor:
    """(N,) numbers in [−1, 1] → (N, KNOTS + 1): linear interpolation between knots; the last is 1 where missing."""
    missing = values.isnan()
    place = (values.nan_to_num().clamp(-1, 1) + 1) * (KNOTS - 1) / 2
    knots = torch.arange(KNOTS, device=values.device, dtype=place.dtype)
    weights = (1 - (place[:, None] - knots).abs()).clamp_min(0)
    return torch.cat([torch.where(missing[:, None], 0, weights), missing[:, None].to(place.dtype)], dim=1)


def _one_hot(values: Tensor, levels: int) -> Tensor:
    """(N,) indices → (N, levels + 1): the last is 1 where missing."""
    known = values[~values.isnan()]
    if bool(((known < 0) | (known >= levels)).any()):
        raise broken_rule(
            "every level of an attribute must be known to the networks",
            found=str(sorted(set(known.tolist()))),
            allowed=f"0 to {levels - 1}, or NaN",
            change="encode the attributes that the network was built with",
        )
    index = torch.where(values.isnan(), levels, values.nan_to_num()).long()
    return nn.functional.one_hot(index, levels + 1).to(values.dtype)
