"""What D is told real and fake images are: 1 and 0, or labels that keep it from growing too sure.

One-sided smoothing lowers the label of real images alone (Salimans 2016, section 3.4); soft labels are drawn from a
range beside 1 and 0; noisy labels swap real and fake for a share of the images.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from models.rules import broken_rule


@dataclass(frozen=True)
class LabelSettings:
    """How labels are drawn.

    Attributes:
        real: label of real images; 0.9 is the usual one-sided smoothing.
        softness: labels are drawn from [real − softness, real] and [0, softness].
        flip_rate: share of images whose label is that of the other kind.

    Raises:
        ValueError: values outside [0, 1], or labels of real images that reach those of fakes.
    """

    real: float = 1.0
    softness: float = 0.0
    flip_rate: float = 0.0

    def __post_init__(self) -> None:
        within = all(0 <= value <= 1 for value in (self.real, self.softness, self.flip_rate))
        if not within or self.real - self.softness <= self.softness or self.flip_rate >= 0.5:
            raise broken_rule(
                "labels must tell real from fake",
                found=f"real {self.real:g}, softness {self.softness:g}, flip rate {self.flip_rate:g}",
                allowed="values in [0, 1], real − softness above softness, and a flip rate below 0.5",
                change="use real 0.9 and softness 0.1, for instance",
            )

    @property
    def hard(self) -> bool:
        """Whether every label is 1 or 0 as it should be."""
        return self.real == 1 and self.softness == 0 and self.flip_rate == 0


HARD_LABELS = LabelSettings()
"""1 and 0."""


def draw_labels(settings: LabelSettings, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Labels of ``count`` real and of ``count`` fake images, each (count,) in [0, 1]."""
    spread = torch.rand(2, count, generator=rng, device=rng.device) * settings.softness
    real, fake = settings.real - spread[0], spread[1]
    flipped = torch.rand(2, count, generator=rng, device=rng.device) < settings.flip_rate
    return torch.where(flipped[0], fake, real), torch.where(flipped[1], real, fake)


def lowest_cross_entropy(settings: LabelSettings) -> float:
    """Lowest −E [y ln p + (1 − y) ln(1 − p)] over both kinds of images, reached where p is the mean label of a kind.

    0 for hard labels; H(0.9) = 0.325 with one-sided smoothing to 0.9, H being the binary entropy in nats.
    """
    real, fake = settings.real - settings.softness / 2, settings.softness / 2
    means = (
        (1 - settings.flip_rate) * real + settings.flip_rate * fake,
        (1 - settings.flip_rate) * fake + settings.flip_rate * real,
    )
    return sum(-p * math.log(p) for mean in means for p in (mean, 1 - mean) if p > 0)
