"""One guarded optimizer update, the freezing of a network, mixed precision, and Adam as both steps build it."""

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from models.losses import require_finite
from models.ranks import ALONE, Ranks
from models.rules import broken_rule

Precision = Literal["float32", "bfloat16", "auto"]

_BFLOAT16_UNITS = ("amx_bf16", "avx512_bf16")


def passes(precision: Precision, images: Tensor) -> torch.autocast:
    """The context in which networks are run: convolutions in bfloat16 where asked for, sums and norms in float32.

    bfloat16 has the exponents of float32, so that no loss has to be scaled (Kalamkar 2019, "A study of BFLOAT16").
    Weights, scores that leave the context through `.float()`, losses and optimizers stay float32.

    Args:
        precision: "float32", "bfloat16", or "auto", see `in_bfloat16`.
        images: a tensor on the device in use.

    Raises:
        ValueError: another precision.
    """
    if precision not in get_args(Precision):
        raise broken_rule(
            "networks run in a known precision",
            found=repr(precision),
            allowed=", ".join(get_args(Precision)),
            change="set `precision` to one of these",
        )
    return torch.autocast(images.device.type, torch.bfloat16, enabled=in_bfloat16(precision, images.device))


def in_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Whether passes are run in bfloat16: for "auto", whether the device has units for it.

    A processor without them imitates it: 15 times the cost of float32 in a training step on one with AVX2 alone.
    """
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and any(torch.cpu.get_capabilities().get(unit) for unit in _BFLOAT16_UNITS)


def build_adam(parameters: Iterable[nn.Parameter], learning_rate: float, betas: tuple[float, float]) -> Adam:
    """Adam (Kingma and Ba 2015) in its fused form, which costs one kernel a step instead of several a tensor.

    Args:
        parameters: of networks that already are on their device.
        learning_rate: step size.
        betas: decay rates of the first and second moment; GANs want a small first one (Radford 2016: 0.5).
    """
    return Adam(parameters, lr=learning_rate, betas=betas, fused=True)


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Euclidean norm of all gradients together; zero when there are none."""
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def update(
    optimizer: Optimizer,
    loss: Tensor,
    name: str,
    terms: Mapping[str, Tensor] | None = None,
    clip: float = 0.0,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Take one step down `loss`, unless the loss or its gradient is not finite.

    Args:
        optimizer: holds the parameters to move.
        loss: scalar with its graph.
        name: for the terms ``<name>_loss`` and ``<name>_grad_norm`` that an error names.
        terms: scalars that make up the loss, so that an error can name the one at fault.
        clip: a gradient longer than this is cut to this length (Pascanu 2013, algorithm 1); 0 leaves it as it is.
        ranks: who shares the batch; loss, terms and gradient are averaged over them first.

    Returns:
        Euclidean norm of the gradient before it was cut, a scalar without graph.

    Raises:
        NonFiniteLossError: before any weight has changed; gradients are cleared.
    """
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    ranks.average_gradients(p.grad for p in parameters)
    norm = gradient_norm(parameters)
    try:
        known = ranks.averaged({**(terms or {}), f"{name}_loss": loss})  # all ranks must find the same
        require_finite({**known, f"{name}_grad_norm": norm})
    except ArithmeticError:
        optimizer.zero_grad(set_to_none=True)
        raise
    if clip > 0:
        torch.nn.utils.clip_grads_with_norm_(parameters, clip, norm)
    optimizer.step()
    return norm


def freeze(network: nn.Module) -> None:
    """Keep a network from learning or moving its buffers while gradients still flow through it to its input."""
    network.requires_grad_(False)
    network.eval()


def unfreeze(network: nn.Module) -> None:
    """Undo `freeze`."""
    network.requires_grad_(True)
    network.train()


def set_learning_rate_factor(optimizer: Optimizer, base_rate: float, factor: float) -> None:
    """Set the learning rate of every parameter group to `base_rate` × `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = base_rate * factor
