"""Several processes that train one network on shares of each batch, as one process would on the whole batch.

Every process, a rank, holds the same networks and draws the same numbers for the whole batch; it computes on its own
rows. With ℓ_r the loss of rank r, a mean over its rows, the loss of the batch is L = mean_r ℓ_r, and so are its
gradients. Whatever ties images across ranks, be it a statistic of the batch or a sum in a denominator, goes through
`Ranks.summed`, whose gradient is the sum of all ranks' gradients: then mean_r ∂ℓ_r/∂θ = ∂L/∂θ holds exactly.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Self

import torch
from torch import Tensor

from models.rules import broken_rule


class RankLostError(RuntimeError):
    """Another rank ended, or cannot be reached: no step can be completed any more."""


class Ranks:
    """The ranks of a training, seen from one of them; alone, everything is handed back as it is.

    Args:
        group: a process group of `torch.distributed`; None for a training in one process.

    Attributes:
        count: ranks.
        index: of this one, from 0.
    """

    def __init__(self, group: Any = None) -> None:
        self._group = group
        self.count: int = 1 if group is None else group.size()
        self.index: int = 0 if group is None else group.rank()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy of a network talks to the same ranks."""
        return self

    def require_share(self, rows: int) -> None:
        """Check that a batch can be shared out evenly.

        Raises:
            ValueError: it cannot; unequal shares would weigh images unequally.
        """
        if rows % self.count:
            raise broken_rule(
                "a batch must be a multiple of the processes that share it",
                found=f"{rows} images for {self.count} processes",
                allowed=f"multiples of {self.count}",
                change="set `batch_size` to such a number, or start another number of processes",
            )

    def part(self, rows: Tensor, groups: int = 1) -> Tensor:
        """This rank's rows of a tensor that every rank has whole.

        Args:
            rows: (N, ...).
            groups: N is made of that many equal, consecutive parts, of each of which this rank takes its share.
        """
        if self.count == 1:
            return rows
        self.require_share(len(rows) // groups)
        return torch.cat([group.chunk(self.count)[self.index] for group in rows.chunk(groups)])

    def summed(self, values: Tensor) -> Tensor:
        """The sum of all ranks' values, element by element; differentiable as often as needed."""
        if self.count == 1:
            return values
        result: Tensor = _Sum.apply(values, self)  # type: ignore[no-untyped-call]
        return result

    def mean(self, values: Tensor) -> Tensor:
        """The mean of all ranks' values, element by element; differentiable as `summed` is."""
        return values if self.count == 1 else self.summed(values) / self.count

    @torch.no_grad()
    def gathered(self, rows: Tensor) -> Tensor:
        """All ranks' rows, in order of the ranks, without graph: (n, ...) → (N, ...)."""
        if self.count == 1:
            return rows
        mine = rows.detach().contiguous()
        everyone = [torch.empty_like(mine) for _ in range(self.count)]
        self._wait(self._group.allgather, [everyone], [mine])
        return torch.cat(everyone)

    @torch.no_grad()
    def average_gradients(self, gradients: Iterable[Tensor | None]) -> None:
        """Replace gradients by their means over all ranks, in place and in one exchange."""
        if self.count == 1:
            return
        known = [gradient for gradient in gradients if gradient is not None]
        flat = self.total_of(torch.cat([gradient.flatten() for gradient in known])) / self.count
        start = 0
        for gradient in known:
            gradient.copy_(flat[start : start + gradient.numel()].view(gradient.shape))
            start += gradient.numel()

    @torch.no_grad()
    def averaged(self, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Scalars without graph, each the mean over all ranks; every rank must give the same names in one order."""
        if self.count == 1 or not terms:
            return dict(terms)
        means = self.total_of(torch.stack([term.detach().float() for term in terms.values()])) / self.count
        return dict(zip(terms, means.unbind(), strict=True))

    @torch.no_grad()
    def total_of(self, values: Tensor) -> Tensor:
        """The sum of all ranks' values, without graph."""
        if self.count == 1:
            return values
        total = values.detach().clone(memory_format=torch.contiguous_format)
        self._wait(self._group.allreduce, [total])
        return total

    @torch.no_grad()
    def from_first(self, values: Tensor) -> Tensor:
        """What the first rank gives; all others give a tensor of the same shape and type."""
        if self.count == 1:
            return values
        shared = values.detach().clone(memory_format=torch.contiguous_format)
        self._wait(self._group.broadcast, shared, 0)
        return shared

    @staticmethod
    def _wait(exchange: Any, *tensors: Any) -> None:
        try:
            exchange(*tensors).wait()
        except RuntimeError as error:
            raise RankLostError("a rank of the training ended, or cannot be reached") from error


class _Sum(torch.autograd.Function):
    """Forward: sum over ranks. Backward: the same, for every rank's loss depends on every rank's values."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, ranks: Ranks) -> Tensor:
        """Add up."""
        ctx.ranks = ranks
        return ranks.total_of(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Add up the gradients, in a way that can be differentiated again (R1 does)."""
        return ctx.ranks.summed(gradients[0]), None


ALONE = Ranks()
"""A training in one process."""
