"""Gradients of halving and doubling convolutions: torch's, term by term, and those of gradients."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models import strided_convolution
from models.strided_convolution import DoublingConv, HalvingConv, pays, weight_gradient


def _pair(count: int, ins: int, outs: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(count + 10 * ins + 100 * outs + height)
    images = torch.randn(count, ins, height, width, generator=rng, dtype=torch.float64)
    gradient = torch.randn(count, outs, height // 2, width // 2, generator=rng, dtype=torch.float64)
    return images, gradient


@given(
    count=st.integers(1, 3),
    ins=st.integers(1, 5),
    outs=st.integers(1, 5),
    high=st.integers(1, 4),
    wide=st.integers(1, 4),
)
@settings(max_examples=40, deadline=None)
def test_the_weight_gradient_is_that_of_torch(count: int, ins: int, outs: int, high: int, wide: int) -> None:
    images, gradient = _pair(count, ins, outs, 4 * high, 4 * wide)
    expected = torch.nn.grad.conv2d_weight(images, (outs, ins, 4, 4), gradient, stride=2, padding=1)
    torch.testing.assert_close(weight_gradient(images, gradient), expected, rtol=1e-10, atol=1e-10)


def test_one_pixel_and_one_output_touch_one_weight() -> None:
    images, gradient = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 4, 4)
    images[0, 0, 3, 4] = 2.0
    gradient[0, 0, 2, 1] = 5.0  # sees rows 3 to 6 and columns 1 to 4: the pixel lies under weight (0, 3)
    weight = weight_gradient(images, gradient)
    assert weight[0, 0, 0, 3] == 10.0
    assert weight.count_nonzero() == 1


@pytest.mark.parametrize("kind", ["halving", "doubling"])
@pytest.mark.parametrize("fast", [True, False])
def test_a_layer_learns_as_torchs(kind: str, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strided_convolution, "pays", lambda images: fast)
    torch.manual_seed(3)
    layer = (HalvingConv(3, 6) if kind == "halving" else DoublingConv(3, 6)).double()
    images = torch.randn(2, 3, 8, 12, dtype=torch.float64, requires_grad=True)
    loss = layer(images).pow(3).sum()
    found = torch.autograd.grad(loss, [images, *layer.parameters()])
    if kind == "halving":
        plain = F.conv2d(images, layer.weight, layer.bias, stride=2, padding=1)
    else:
        plain = F.conv_transpose2d(images, layer.weight, None, stride=2, padding=1)
    expected = torch.autograd.grad(plain.pow(3).sum(), [images, *layer.parameters()])
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", [HalvingConv, DoublingConv])
def test_a_gradient_can_be_differentiated_again(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strided_convolution, "pays", lambda images: True)
    torch.manual_seed(4)
    layer = kind(2, 3).double()

    def squared(images: Tensor, weight: Tensor) -> Tensor:
        made: Tensor = torch.func.functional_call(layer, {"weight": weight}, images)
        return made.pow(2)

    images = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    weight = layer.weight.detach().clone().requires_grad_(True)
    assert torch.autograd.gradcheck(squared, (images, weight))
    assert torch.autograd.gradgradcheck(squared, (images, weight))


def test_a_penalty_on_the_gradient_reaches_the_weights_as_in_torch() -> None:
    torch.manual_seed(5)
    layer = HalvingConv(128, 2).double()
    images = torch.randn(1, 128, 8, 8, dtype=torch.float64, requires_grad=True)
    assert pays(images)

    def penalty(made: Tensor) -> Tensor:
        (slope,) = torch.autograd.grad(made.pow(2).sum(), images, create_graph=True)
        return slope.pow(2).sum()

    (found,) = torch.autograd.grad(penalty(layer(images)), layer.weight)
    (expected,) = torch.autograd.grad(
        penalty(F.conv2d(images, layer.weight, layer.bias, stride=2, padding=1)), layer.weight
    )
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((64, 128, 16, 16), True), ((64, 64, 16, 16), False), ((128, 128, 16, 16), False), ((4, 128, 6, 8), False)],
)
def test_it_is_used_where_it_was_measured_to_pay(shape: tuple[int, ...], expected: bool) -> None:
    assert pays(torch.empty(shape, device="meta")) is expected


def test_frozen_weights_and_bfloat16_are_left_to_torch() -> None:
    layer = HalvingConv(2, 3)
    images = torch.randn(1, 2, 8, 8, requires_grad=True)
    assert type(layer(images).grad_fn).__name__ == "_ConvolutionBackward"
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(images).dtype == torch.bfloat16
    layer.requires_grad_(False)
    assert type(layer(images).grad_fn).__name__ == "ConvolutionBackward0"
