"""Exponential moving average of a network's weights.

After update t = 1, 2, … with d_t = min(decay, (1 + t) / (10 + t)), the average is w̄_t = d_t w̄_{t−1} + (1 − d_t) w_t.
The ramp lets short trainings forget their random start (as TensorFlow's `ExponentialMovingAverage` with `num_updates`);
averaging a generator's weights is from Yazıcı 2019 and Karras 2018.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn

from models.rules import broken_rule


class ExponentialMovingAverage:
    """A frozen copy of a network, in eval mode: parameters follow the original slowly, buffers are copied.

    Args:
        network: the network to follow; never changed.
        decay: in [0, 1); 0 makes the average an exact copy.

    Raises:
        ValueError: decay outside [0, 1).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise broken_rule(
                "the decay of a moving average must leave room for the new weights",
                found=decay,
                allowed="0 ≤ decay < 1",
                change="set `ema_decay` to a value such as 0.999",
            )
        self.decay = decay
        self.updates = 0
        self.average = deepcopy(network).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move the average one step toward the network's present weights, and copy its buffers."""
        self.updates += 1
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        averages: list[Tensor] = list(self.average.parameters())
        currents: list[Tensor] = list(network.parameters())
        torch._foreach_lerp_(averages, currents, weight)
        for kept, present in zip(self.average.buffers(), network.buffers(), strict=True):
            kept.copy_(present)

    def state_dict(self) -> dict[str, Tensor]:
        """The number of updates so far; the weights are those of `average`, a network like any other."""
        return {"updates": torch.tensor(self.updates)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the number of updates. Load the weights into `average`."""
        self.updates = int(state["updates"])
