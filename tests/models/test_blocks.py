"""Building blocks against torch's own functions, closed forms and each other."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.blocks import (
    ConditionalBatchNorm,
    FromImage,
    MinibatchStandardDeviation,
    ReflectConv,
    ResidualBlock,
    ResizeConv,
    ToImage,
    bounded_output,
    consecutive,
    double,
    initialize,
    normalize_spectrally,
    reflect_pad,
    reflection_gradient,
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [1, 3, 4])
def test_reflection_equals_torchs_forward_and_backward(size: int) -> None:
    images = noise(2, 3, 5, 7).requires_grad_()
    ours, theirs = reflect_pad(images, size), F.pad(images, (size,) * 4, mode="reflect")
    assert torch.equal(ours, theirs)
    weight = noise(*theirs.shape, seed=1)
    ours_gradient = torch.autograd.grad((ours * weight).sum(), images)[0]
    theirs_gradient = torch.autograd.grad((theirs * weight).sum(), images)[0]
    assert torch.allclose(ours_gradient, theirs_gradient, atol=1e-5)


@pytest.mark.parametrize(("size", "shape"), [(1, (2, 9)), (3, (7, 4)), (3, (8, 9)), (4, (5, 31))])
def test_the_gathered_gradient_of_reflection_equals_torchs(size: int, shape: tuple[int, int]) -> None:
    images = noise(2, 3, *shape).requires_grad_()
    padded = F.pad(images, (size,) * 4, mode="reflect")
    gradient = noise(*padded.shape, seed=1)
    theirs = torch.autograd.grad(padded, images, gradient)[0]
    for layout in (torch.contiguous_format, torch.channels_last):
        for exact in (False, True):
            ours = reflection_gradient(gradient.to(memory_format=layout), size, exact_kernel=exact)
            assert torch.allclose(ours, theirs, atol=1e-6)


def test_reflection_can_be_differentiated_twice() -> None:
    images = noise(1, 1, 4, 5).double().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: reflect_pad(x, 2).pow(3), images)


def test_reflection_of_too_short_an_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 9\)[\s\S]*at least 4"):
        reflect_pad(torch.zeros(1, 1, 3, 9), 3)


def test_reflect_convolution_keeps_a_constant_image_constant() -> None:
    layer = ReflectConv(1, 2, 7)
    result = layer(torch.ones(1, 1, 9, 10))
    assert result.shape == (1, 2, 9, 10)
    assert torch.allclose(result, result[:, :, :1, :1].expand_as(result), atol=1e-6)


def test_doubling_repeats_pixels_and_resize_convolution_has_no_checkerboard() -> None:
    images = noise(1, 2, 3, 4)
    assert torch.equal(double(images), images.repeat_interleave(2, 2).repeat_interleave(2, 3))
    inner = ResizeConv(2, 1)(torch.ones(1, 2, 6, 6))[:, :, 1:-1, 1:-1]
    assert torch.allclose(inner, inner[:, :, :1, :1].expand_as(inner), atol=1e-6)


def test_a_residual_block_with_silent_gains_is_the_identity() -> None:
    block = ResidualBlock(3)
    last = block.body[-1]
    assert isinstance(last, nn.InstanceNorm2d)
    nn.init.zeros_(last.weight)
    features = noise(2, 3, 6, 6)
    assert torch.equal(block(features), features)


def test_conditional_norm_applies_the_gain_and_offset_of_each_class() -> None:
    norm = ConditionalBatchNorm(2, num_classes=3)
    with torch.no_grad():
        norm.gain.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
        norm.offset.weight.copy_(torch.tensor([[0.0, 1.0], [0.0, -1.0], [7.0, 7.0]]))
    features, classes = noise(4, 2, 3, 3), torch.tensor([2, 0, 1, 0])
    mean = features.mean(dim=(0, 2, 3), keepdim=True)
    standard = (features - mean) / (features.var(dim=(0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
    expected = norm.gain.weight[classes][:, :, None, None] * standard + norm.offset.weight[classes][:, :, None, None]
    assert torch.allclose(norm(features, classes), expected, atol=1e-5)


def test_conditional_norm_without_classes_is_plain_batch_norm_whatever_the_class() -> None:
    norm, features = ConditionalBatchNorm(2, num_classes=0), noise(4, 2, 3, 3)
    expected = F.batch_norm(features, None, None, training=True)
    assert torch.allclose(norm(features, torch.tensor([9, 8, 7, 6])), expected, atol=1e-6)


def test_minibatch_spread_by_hand_and_of_equal_images() -> None:
    layer = MinibatchStandardDeviation()
    features = torch.tensor([1.0, 3.0])[:, None, None, None].expand(2, 5, 2, 2)
    result = layer(features, groups=1)
    assert torch.equal(result[:, :5], features)
    assert torch.allclose(result[:, 5], torch.ones(2, 2, 2))
    equal = layer(torch.ones(4, 1, 2, 2), groups=1)
    assert torch.allclose(equal[:, 1], torch.full((4, 2, 2), 1e-4))


def test_minibatch_spread_in_groups_equals_separate_passes() -> None:
    layer = MinibatchStandardDeviation()
    first, second = noise(3, 2, 4, 4), 5 * noise(3, 2, 4, 4, seed=1)
    together = layer(torch.cat([first, second]), groups=2)
    assert torch.equal(together, torch.cat([layer(first, groups=1), layer(second, groups=1)]))


def test_bounded_output_clamps_and_lets_values_come_back_only() -> None:
    values = torch.tensor([-2.0, -2.0, -0.5, 0.5, 2.0, 2.0, -1.0, 1.0], requires_grad=True)
    bounded = bounded_output(values)
    assert torch.equal(bounded, values.detach().clamp(-1, 1))
    # The loss gradient: descent raises where it is negative.
    wanted = torch.tensor([-3.0, 3.0, 3.0, -3.0, 3.0, -3.0, 3.0, -3.0])
    (gradient,) = torch.autograd.grad((bounded * wanted).sum(), values)
    assert torch.equal(gradient, torch.tensor([-3.0, 0.0, 3.0, -3.0, 3.0, 0.0, 3.0, -3.0]))


def test_bounded_output_learns_air_exactly_where_tanh_does_not() -> None:
    reached = {}
    for name, bound in (("bounded", bounded_output), ("tanh", torch.tanh)):
        value = torch.tensor([0.5], requires_grad=True)
        for _ in range(200):
            (slope,) = torch.autograd.grad((bound(value) + 1).abs().sum(), value)
            value = (value - 0.05 * slope).detach().requires_grad_()
        reached[name] = bound(value).item()
    assert reached["bounded"] == -1.0
    assert reached["tanh"] > -0.98


def test_initial_weights_are_normal_with_the_dcgan_deviation_and_repeat_with_the_seed() -> None:
    networks = [nn.Sequential(nn.Conv2d(16, 32, 4), nn.ConvTranspose2d(32, 8, 4), nn.Linear(50, 50)) for _ in range(2)]
    for network in networks:
        initialize(network, torch.Generator().manual_seed(3))
    weights = torch.cat([layer.weight.flatten() for layer in networks[0]])
    assert weights.std().item() == pytest.approx(0.02, rel=0.05)
    assert abs(weights.mean().item()) < 1e-3
    assert all(bool((layer.bias == 0).all()) for layer in networks[0])
    for first, second in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert torch.equal(first, second)


def test_spectral_norm_brings_the_largest_singular_value_to_one() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 4), nn.Linear(10, 6), nn.Embedding(4, 7))
    normalize_spectrally(network, torch.Generator().manual_seed(0))
    network.train()
    for layer in network:
        for _ in range(200):
            weight = layer.weight
        largest = torch.linalg.matrix_norm(weight.detach().flatten(1), ord=2)
        assert largest.item() == pytest.approx(1.0, abs=1e-3)


def test_consecutive_pairs_layers() -> None:
    assert consecutive([1, 2, 4]) == [(1, 2), (2, 4)]
    assert consecutive([3]) == []


def test_spectral_normalization_depends_on_its_generator_alone_and_leaves_the_global_one():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = nn.Linear(4, 3)
        state = torch.get_rng_state()
        normalize_spectrally(first, torch.Generator().manual_seed(1))
        assert torch.equal(state, torch.get_rng_state())
        second = nn.Linear(4, 3)
        second.load_state_dict({"weight": first.parametrizations.weight.original, "bias": first.bias})
        torch.rand(7)
        normalize_spectrally(second, torch.Generator().manual_seed(1))
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


class TestLayersOfImages:
    """Convolutions written as products of patches are the convolutions that they stand for."""

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("precision", [torch.float32, torch.float64])
    def test_from_image_equals_the_convolution_in_values_and_gradients(self, channels, precision):
        layer = FromImage(channels, 8, 4, stride=2, padding=1).to(precision)
        self._compare(layer, torch.nn.Conv2d.forward, (5, channels, 12, 16), precision)

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("precision", [torch.float32, torch.float64])
    def test_to_image_equals_the_transposed_convolution_in_values_and_gradients(self, channels, precision):
        layer = ToImage(8, channels).to(precision)
        images = torch.ones(2, 8, 3, 5, dtype=precision)
        if precision == torch.float64:  # a trained network samples with the plain layer
            assert torch.equal(layer.eval()(images), torch.nn.ConvTranspose2d.forward(layer, images))
            return
        self._compare(layer, torch.nn.ConvTranspose2d.forward, (5, 8, 6, 9), precision)

    @staticmethod
    def _compare(layer, plain, shape, precision):
        images = torch.randn(shape, dtype=precision, generator=torch.Generator().manual_seed(3)).requires_grad_()
        wanted = [images, *layer.parameters()]
        ours, theirs = layer(images), plain(layer, images)
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        for our, their in zip(
            torch.autograd.grad((ours**2).sum(), wanted), torch.autograd.grad((theirs**2).sum(), wanted), strict=True
        ):
            torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-4)

    def test_penalties_of_gradients_reach_the_weights(self):
        layer = FromImage(1, 4, 4, stride=2, padding=1).double()
        images = torch.randn(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)

        def penalty(forward):
            (gradient,) = torch.autograd.grad((forward(images) ** 3).sum(), images, create_graph=True)
            return torch.autograd.grad((gradient**2).sum(), layer.weight)[0]

        torch.testing.assert_close(penalty(layer), penalty(lambda x: torch.nn.Conv2d.forward(layer, x)))

    def test_a_spectral_norm_takes_one_power_iteration_a_pass(self):
        network = torch.nn.Sequential(FromImage(1, 4, 4, stride=2, padding=1))
        normalize_spectrally(network, torch.Generator().manual_seed(0))
        twin = deepcopy(network)
        images = torch.randn(2, 1, 8, 8)
        network(images)
        torch.nn.Conv2d.forward(twin[0], images)
        state, other = network.state_dict(), twin.state_dict()
        for name in state:
            torch.testing.assert_close(state[name], other[name])
