"""What the training loop asks of a training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class TrainingStep(Protocol):
    """The part that `models` provides: networks, optimizers and everything else that changes."""

    def networks(self) -> dict[str, nn.Module]:
        """Networks by name."""

    def optimizers(self) -> dict[str, Optimizer]:
        """Optimizers by name."""

    def extra_state(self) -> dict[str, Tensor]:
        """Further state, e.g. image pools."""

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `extra_state` returned."""

    def set_learning_rate_factor(self, factor: float) -> None:
        """Scale the learning rates."""


class Trainee(Protocol):
    """One training: it draws its own batches, so that the loop knows nothing of data."""

    @property
    def step(self) -> TrainingStep:
        """Networks, optimizers, averages."""

    @property
    def generators(self) -> Mapping[str, torch.Generator]:
        """Every random generator whose state a checkpoint must hold."""

    @property
    def batch_size(self) -> int:
        """Images a step."""

    def train_batch(self) -> dict[str, Tensor]:
        """Draw a batch, make one step, return detached scalar terms."""

    def learning_rate_factor(self, done: float) -> float:
        """Factor of the learning rates when the share ``done`` of training lies behind."""

    def grid(self) -> npt.NDArray[np.uint8]:
        """Picture (H, W) of what the networks make now, from fixed inputs."""

    def save(self, folder: Path, images: int) -> dict[str, Any]:
        """Write the trained model into ``folder``; returns facts for the record."""
