"""One update: its size, its guard, clipping, and mixed precision."""

import time

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from models.losses import NonFiniteLossError
from models.optimization import freeze, gradient_norm, passes, unfreeze, update


def point(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values))


def test_a_gradient_longer_than_the_limit_is_cut_to_it_and_keeps_its_direction() -> None:
    weight = point(0.0, 0.0)
    norm = update(SGD([weight], lr=1.0), (weight * torch.tensor([3.0, -4.0])).sum(), "d", clip=2.0)
    assert norm.item() == pytest.approx(5)  # as it was before
    assert torch.allclose(weight.detach(), torch.tensor([-1.2, 1.6]), atol=1e-5)


@pytest.mark.parametrize("clip", [0.0, 6.0])
def test_a_shorter_gradient_and_no_limit_leave_the_step_alone(clip: float) -> None:
    weight = point(0.0, 0.0)
    update(SGD([weight], lr=1.0), (weight * torch.tensor([3.0, -4.0])).sum(), "d", clip=clip)
    assert torch.allclose(weight.detach(), torch.tensor([-3.0, 4.0]))


def test_the_limit_is_on_all_gradients_together() -> None:
    first, second = point(0.0), point(0.0)
    update(SGD([first, second], lr=1.0), 3 * first.sum() + 4 * second.sum(), "g", clip=1.0)
    assert (first.item(), second.item()) == pytest.approx((-0.6, -0.8), abs=1e-5)


def test_a_gradient_that_is_not_finite_moves_nothing_though_the_loss_is() -> None:
    weight = point(0.0)
    with pytest.raises(NonFiniteLossError, match="d_grad_norm"):
        update(SGD([weight], lr=1.0), weight.sqrt().sum(), "d", clip=1.0)  # the slope of a root at 0 is infinite
    assert weight.item() == 0
    assert weight.grad is None


def test_bfloat16_is_used_in_the_passes_and_only_there() -> None:
    layer, images = nn.Conv2d(1, 2, 3), torch.ones(1, 1, 4, 4)
    dtypes: list[torch.dtype] = []
    layer.register_forward_hook(lambda *parts: dtypes.append(parts[2].dtype))
    for precision in ("float32", "bfloat16"):
        with passes(precision, images):
            layer(images)
    layer(images)
    assert dtypes == [torch.float32, torch.bfloat16, torch.float32]
    assert layer.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("units", "short"),
    [({"amx_bf16": True}, True), ({"avx512_bf16": True}, True), ({"avx512_f": True, "amx_bf16": False}, False)],
)
def test_auto_is_bfloat16_where_the_processor_has_units_for_it(
    units: dict[str, bool], short: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units)
    with passes("auto", torch.ones(1)):
        assert (nn.Linear(1, 1)(torch.ones(1)).dtype == torch.bfloat16) == short


def test_auto_is_never_slower_than_float32_by_imitation() -> None:
    """What this processor says of itself is held against its clock: imitated bfloat16 takes many times as long."""
    images, layer = torch.ones(4, 32, 64, 64), nn.Conv2d(32, 32, 3)
    seconds: dict[str, float] = {}
    for precision in ("float32", "auto"):
        times = []
        for _ in range(5):
            began = time.process_time()
            with passes(precision, images):
                layer(images).sum().backward()
            times.append(time.process_time() - began)
        seconds[precision] = min(times)
    assert seconds["auto"] < 3 * seconds["float32"]


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="'float16'"):
        passes("float16", torch.ones(1))  # type: ignore[arg-type]


def test_frozen_networks_pass_gradients_on_and_keep_none() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    images = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    freeze(network)
    network(images).square().sum().backward()
    assert isinstance(images.grad, Tensor)
    assert gradient_norm(network.parameters()) == 0
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    unfreeze(network)
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
