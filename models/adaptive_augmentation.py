"""Adaptive discriminator augmentation: how often an image is augmented, steered by how far D is ahead (Karras 2020).

r = 2 P(D(x) > D(G(z))) − 1 is 0 when D knows nothing and 1 when it tells every real image from every fake. Every
`INTERVAL` steps the probability moves by (images since) / `IMAGES_TO_ONE`: up where the mean of r is above the target,
down below it, and stays in [0, 1]. The paper takes r = E sign D(x) (eq. 1), which asks for scores that are compared
with 0; the rank used here means the same under every objective.
"""

import torch
from torch import Tensor

from models.rules import broken_rule

INTERVAL = 4
"""Steps between two moves of the probability (Karras 2020, section 3.1)."""

IMAGES_TO_ONE = 500_000
"""Images in which the probability can rise from 0 to 1 (Karras 2020, section 3.1)."""


class AdaptiveProbability:
    """The probability with which each policy is applied to an image.

    Args:
        target: of r, in (0, 1); the paper's is 0.6.
        device: where the scores are; nothing is copied from there in a step.

    Attributes:
        value: scalar in [0, 1]; 0 before the first move.

    Raises:
        ValueError: a target outside (0, 1).
    """

    def __init__(self, target: float, device: torch.device) -> None:
        if not 0 < target < 1:
            raise broken_rule(
                "adaptive augmentation steers toward a lead of D between none and all",
                found=target,
                allowed="0 < target < 1",
                change="set `adaptive_augment` to a value such as 0.6, or to 0 for none",
            )
        self.target = target
        self.value = torch.zeros((), device=device)
        self._sum = torch.zeros((), device=device)
        self._steps = 0

    def see(self, p_real_over_fake: Tensor, images: int) -> None:
        """Take in one step of D.

        Args:
            p_real_over_fake: P(D(x) > D(G(z))), scalar.
            images: real images of the step.
        """
        self._sum = self._sum + (2 * p_real_over_fake.to(self._sum) - 1)
        self._steps += 1
        if self._steps == INTERVAL:
            move = (self._sum / INTERVAL - self.target).sign() * INTERVAL * images / IMAGES_TO_ONE
            self.value = (self.value + move).clamp(0, 1)
            self._sum, self._steps = torch.zeros_like(self._sum), 0

    def state_dict(self) -> dict[str, Tensor]:
        """The probability, and what was seen since it moved."""
        return {"value": self.value, "sum": self._sum, "steps": torch.tensor(self._steps)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.value, self._sum, self._steps = state["value"], state["sum"], int(state["steps"])
