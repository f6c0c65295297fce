"""Layers whose statistics are those of the whole batch, though every rank holds a share of it.

Batch normalization and the minibatch standard deviation tie the images of a batch together. `share_statistics` replaces
them by layers of the same weights, buffers and names that exchange sums; with μ and σ² over all ranks' images they give
what one process gives on the whole batch, to rounding, and the same gradients. Instance norms, virtual batch norms and
spectral norms do not look at other images of the batch and stay as they are.
"""

from typing import Self

import torch
from torch import Tensor, nn

from models.blocks import MinibatchStandardDeviation
from models.ranks import Ranks
from models.rules import broken_rule


def share_statistics(network: nn.Module, ranks: Ranks) -> None:
    """Let the layers of a network that tie images together see those of all ranks; alone, nothing is changed.

    Call it before optimizers and averages are built.

    Raises:
        ValueError: a layer ties images together in a way that cannot be shared.
    """
    if ranks.count == 1:
        return
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.BatchNorm2d:
                setattr(parent, name, SharedBatchNorm2d.of(layer, ranks))
            elif type(layer) is MinibatchStandardDeviation:
                setattr(parent, name, SharedMinibatchDeviation(ranks))
            elif isinstance(layer, nn.modules.batchnorm._BatchNorm) and not isinstance(layer, SharedBatchNorm2d):
                raise broken_rule(
                    "statistics of a batch must be those of all processes",
                    found=f"{type(layer).__name__} in {type(network).__name__}",
                    allowed="BatchNorm2d, instance norms, and norms that look at one image",
                    change="train this network in one process",
                )


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization over all ranks' images; evaluation by running statistics is that of torch.

    Attributes:
        ranks: who shares the batch.
    """

    ranks: Ranks

    @classmethod
    def of(cls, layer: nn.BatchNorm2d, ranks: Ranks) -> Self:
        """The same layer, weights and buffers included, for a batch that ranks share."""
        shared = cls(
            layer.num_features, layer.eps, layer.momentum, layer.affine, track_running_stats=layer.track_running_stats
        )
        shared.ranks = ranks
        shared._parameters, shared._buffers = layer._parameters, layer._buffers
        return shared.train(layer.training)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) → same shape."""
        if not self.training and self.running_mean is not None:
            return super().forward(input)
        values = input.float()
        count = self.ranks.count * values.numel() // values.shape[1]
        mean = self.ranks.summed(values.sum(dim=(0, 2, 3))) / count
        centered = values - mean[:, None, None]
        variance = self.ranks.summed(centered.square().sum(dim=(0, 2, 3))) / count
        if self.training and self.running_mean is not None:
            self._follow(mean.detach(), variance.detach() * count / (count - 1))
        result = centered * torch.rsqrt(variance + self.eps)[:, None, None]
        if self.affine:
            result = result * self.weight[:, None, None] + self.bias[:, None, None]
        return result.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics as torch does."""
        assert self.num_batches_tracked is not None  # noqa: S101 - there with the others
        self.num_batches_tracked += 1
        weight = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        for kept, present in ((self.running_mean, mean), (self.running_var, variance)):
            assert kept is not None  # noqa: S101 - as above
            kept.lerp_(present, weight)


class SharedMinibatchDeviation(MinibatchStandardDeviation):
    """`MinibatchStandardDeviation` over all ranks' images.

    Args:
        ranks: who shares the batch.
    """

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self.ranks = ranks

    def variance(self, parts: Tensor) -> Tensor:
        """As in one process: every part is shared out to all ranks."""
        whole = self.ranks.count * parts.shape[1]
        mean = self.ranks.summed(parts.sum(dim=1)) / whole
        return self.ranks.summed((parts - mean[:, None]).square().sum(dim=1)) / whole
