"""One network of an ensemble, and what it says of a slice."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pipeline.inference.windows import WindowGrid, WindowPlan
from pipeline.trained_models import TranslatorSettings

WINDOWS_AT_ONCE = {"cuda": 16}
"""Windows in one call by device; one elsewhere, since on a CPU more at once takes longer."""


@dataclass(frozen=True)
class Member:
    """A translator and how it is fed.

    Attributes:
        network: (N, k + c, P, P) -> (N, k, P, P), in evaluation mode.
        settings: slices, coordinates and patch side that it was trained with.
        divisor: sides that it takes are multiples of this.
    """

    network: Callable[[Tensor], Tensor]
    settings: TranslatorSettings
    divisor: int = 1

    @classmethod
    def of(cls, network: nn.Module, settings: TranslatorSettings) -> Self:
        """A network as it was built or loaded."""
        return cls(network, settings, getattr(network, "divisor", 1))

    @torch.inference_mode()
    def answer(
        self,
        stack: npt.NDArray[np.float32],
        wanted: npt.NDArray[np.bool_],
        grid: WindowGrid,
        plan: WindowPlan,
        device: torch.device,
        *,
        middle_alone: bool,
    ) -> npt.NDArray[np.float32]:
        """Slices of a stack, translated.

        Args:
            stack: (k + c, H, W) of the grid's box.
            wanted: (H, W); windows without such a pixel are left out.
            grid: the windows.
            plan: precision.
            device: where the network lives.
            middle_alone: keep the middle slice alone.

        Returns:
            (1, H, W) or (k, H, W); 0 where no window was wanted.
        """
        middle = self.settings.slices // 2
        kept = slice(middle, middle + 1) if middle_alone else slice(0, self.settings.slices)
        slices = torch.from_numpy(stack).to(device)
        total = torch.zeros((kept.stop - kept.start, *slices.shape[1:]), device=device)
        chosen = list(grid.windows(wanted))
        at_once = WINDOWS_AT_ONCE.get(device.type, 1)
        height, width = grid.sides
        for first in range(0, len(chosen), at_once):
            part = chosen[first : first + at_once]
            windows = torch.stack([slices[:, row : row + height, column : column + width] for row, column, _ in part])
            with torch.autocast(device.type, torch.bfloat16) if plan.bfloat16 else nullcontext():
                answers = self.network(windows)[:, kept].float()
            for (row, column, weights), answer in zip(part, answers, strict=True):
                region = total[:, row : row + height, column : column + width]
                region += torch.from_numpy(weights).to(device) * answer
        blended: npt.NDArray[np.float32] = total.cpu().numpy()
        return blended
