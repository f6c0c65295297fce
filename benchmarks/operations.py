"""Counts what a training step asks of PyTorch: on an accelerator each operation is at least one launch."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def operations_of(step: Callable[[], object]) -> int:
    """ATen operations of one call, backward pass and optimizer included."""
    counter = _Counter()  # type: ignore[no-untyped-call]
    with torch.enable_grad(), counter:
        step()
    return counter.count
