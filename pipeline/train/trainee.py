"""What the training loop asks of a training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from models.diagnostics import Game
from pipeline.train.alarms import Finding


class TrainingStep(Protocol):
    """The part that `models` provides: networks, optimizers and everything else that changes."""

    def game(self) -> Game:
        """The scale of `d_loss`."""

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


@dataclass(frozen=True)
class ProbeImages:
    """Real images that what the networks make is compared with.

    Attributes:
        real: (N, C, H, W) training images in units, drawn once.
        groups: (N,) class of each; fakes come in the same order.
        held_out: (M, C, H, W) images of the validation split; M is 0 where there are none.
        target: ending of the terms, e.g. ``_ct``.
    """

    real: Tensor
    groups: Tensor
    held_out: Tensor
    target: str = ""


class Trainee(Protocol):
    """One training: it draws its own batches, so that the loop knows nothing of data."""

    batch_size: int
    """Images a step; the loop halves it where memory does not suffice."""

    smallest_batch: int
    """The least that `batch_size` can be."""

    @property
    def step(self) -> TrainingStep:
        """Networks, optimizers, averages."""

    @property
    def generators(self) -> Mapping[str, torch.Generator]:
        """Every random generator whose state a checkpoint must hold."""

    @property
    def variety(self) -> Mapping[str, float]:
        """How much the training images of each class or modality differ, see `pipeline.train.data_checks.variety`."""

    @property
    def mismatches(self) -> Sequence[Finding]:
        """How the sides of a game differ in what they show, see `pipeline.train.domain_balance`."""

    def train_batch(self) -> dict[str, Tensor]:
        """Draw a batch, make one step, return detached scalar terms."""

    def learning_rate_factor(self, done: float) -> float:
        """Factor of the learning rates when the share ``done`` of training lies behind."""

    def grid(self) -> npt.NDArray[np.uint8]:
        """Picture (H, W) of what the networks make now, from fixed inputs."""

    def probe_images(self, count: int) -> ProbeImages:
        """Up to ``count`` real images of each kind; equal at every call, whatever the state of the training."""

    def probe_fakes(self, count: int) -> Tensor:
        """What the averaged generator makes now from ``count`` fixed inputs, as `ProbeImages.real`; draws nothing."""

    def save(self, folder: Path, images: int) -> dict[str, Any]:
        """Write the trained model into ``folder``; returns facts for the record."""
