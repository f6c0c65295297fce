"""The moving average against its closed form."""

import pytest
import torch
from torch import nn

from models.ema import ExponentialMovingAverage


def test_constant_weights_after_the_ramp_follow_the_geometric_law() -> None:
    network = nn.Linear(1, 1)
    ema = ExponentialMovingAverage(network, decay=0.5)
    ema.updates = 100  # past the ramp: (1 + t) / (10 + t) > 0.5
    start = ema.average.weight.detach().clone()
    with torch.no_grad():
        network.weight.add_(8.0)
    for _ in range(3):
        ema.update(network)
    assert torch.allclose(ema.average.weight, start + 8 * (1 - 0.5**3))


def test_ramp_of_the_first_updates() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    ema = ExponentialMovingAverage(network, decay=0.999)
    nn.init.ones_(network.weight)
    ema.update(network)
    assert ema.average.weight.item() == pytest.approx(1 - 2 / 11)
    ema.update(network)
    assert ema.average.weight.item() == pytest.approx(1 - 2 / 11 * 3 / 12)


def test_zero_decay_copies_and_the_original_is_left_alone() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    ema = ExponentialMovingAverage(network, decay=0.0)
    with torch.no_grad():
        network[0].weight.normal_(generator=torch.Generator().manual_seed(0))
    network(torch.randn(6, 3, generator=torch.Generator().manual_seed(1)))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    ema.update(network)
    for name, value in ema.average.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    assert not ema.average.training
    assert not any(parameter.requires_grad for parameter in ema.average.parameters())


def test_state_restores_the_ramp() -> None:
    network = nn.Linear(2, 2)
    first, second = ExponentialMovingAverage(network, 0.99), ExponentialMovingAverage(network, 0.99)
    for _ in range(3):
        first.update(network)
    second.average.load_state_dict(first.average.state_dict())
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        network.weight.add_(1)
    first.update(network)
    second.update(network)
    assert torch.equal(first.average.weight, second.average.weight)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="0 ≤ decay < 1"):
        ExponentialMovingAverage(nn.Linear(1, 1), decay)
