"""Structure terms: zero where nothing changed, blind to what may change, and right in closed form."""

import math

import pytest
import torch

from models.mr_to_ct import structure


def images(seed: int = 0, *shape: int) -> torch.Tensor:
    return torch.rand(shape or (2, 3, 20, 24), generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 0.0), (0.4, 0.3), (-0.7, 0.1)])
def test_gradient_consistency_is_zero_for_every_affine_change_of_intensity(gain: float, offset: float) -> None:
    source = images()
    loss = structure.gradient_consistency(gain * source + offset, source, torch.ones_like(source))
    assert loss.item() == pytest.approx(0, abs=1e-5)


def test_gradient_consistency_is_one_for_edges_at_a_right_angle() -> None:
    ramp = torch.linspace(-1, 1, 16)
    across, down = ramp.expand(1, 1, 16, 16), ramp[:, None].expand(1, 1, 16, 16)
    assert structure.gradient_consistency(across, down, torch.ones_like(down)).item() == pytest.approx(1)


def test_gradient_consistency_looks_inside_the_mask_only() -> None:
    source, other = images(), images(1)
    mask = torch.zeros_like(source)
    mask[..., 4:16, 4:16] = 1
    # The difference between two pixels counts where the second one is inside.
    mixed = torch.where(torch.nn.functional.max_pool2d(mask, 3, 1, 1) > 0, source, other)
    assert structure.gradient_consistency(mixed, source, mask).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("gain", "offset"), [(0.4, 0.3), (-0.7, 0.1)])
def test_mind_does_not_see_gain_offset_or_inversion(gain: float, offset: float) -> None:
    source = images()
    torch.testing.assert_close(structure.mind(gain * source + offset), structure.mind(source), atol=1e-4, rtol=1e-4)
    mask = torch.ones_like(source)
    assert structure.mind_consistency(gain * source + offset, source, mask).item() == pytest.approx(0, abs=1e-4)
    assert structure.mind_consistency(images(1), source, mask) > 0.1


def test_mind_of_a_pixel_matches_its_definition() -> None:
    picture = images(3, 1, 1, 9, 9).double()
    plane = picture[0, 0]
    row, column = 4, 5
    around = [(0, 1), (0, -1), (1, 0), (-1, 0)]

    def patch(down: int, right: int) -> torch.Tensor:
        return plane[row + down - 1 : row + down + 2, column + right - 1 : column + right + 2]

    distances = torch.stack([(patch(0, 0) - patch(*step)).square().mean() for step in around])
    expected = torch.exp(-(distances - distances.min()) / distances.mean())
    torch.testing.assert_close(structure.mind(picture)[0, 0, :, row - 2, column - 2], expected)


def test_mind_of_a_flat_image_is_one_and_has_finite_gradients() -> None:
    flat = torch.zeros(1, 1, 8, 8, requires_grad=True)
    descriptor = structure.mind(flat)
    assert torch.equal(descriptor, torch.ones_like(descriptor))
    descriptor.sum().backward()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()


def test_body_consistency_is_the_mean_distance_from_air_outside() -> None:
    translated, mask = torch.full((1, 1, 4, 4), 0.5), torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1
    translated[..., 2:3] = -1
    assert structure.body_consistency(translated, mask).item() == pytest.approx(0.75)


def test_bone_consistency_is_dice_where_the_sigmoid_is_sharp() -> None:
    translated, bone = torch.full((1, 1, 1, 4), -1.0), torch.tensor([[[[1.0, 1, 0, 0]]]])
    translated[..., 1:4] = 0.9  # three found, one of two right: Dice 2 · 1 / (3 + 2)
    assert structure.bone_consistency(translated, bone, 0.4, 0.01).item() == pytest.approx(1 - 0.4, abs=1e-5)
    assert structure.bone_consistency(bone * 2 - 1, bone, 0.4, 0.01).item() == pytest.approx(0, abs=1e-5)


def test_bone_entropy_is_the_cross_entropy_over_the_bone_pixels() -> None:
    bone, rows = torch.zeros(2, 1, 20, 20), torch.tensor([1.0, 0.0])[:, None, None, None]
    bone[0, 0, 0, :3], bone[1] = 1, 1  # the second row does not count
    translated = torch.full(bone.shape, 0.4 - 0.2)  # two softnesses below the level everywhere
    expected = (3 * math.log(1 + math.e**2) + 397 * math.log(1 + math.e**-2)) / 3
    assert structure.bone_entropy(translated, bone, rows, 0.4).item() == pytest.approx(expected, rel=1e-5)
    assert structure.bone_entropy(bone * 9 - 4, bone, rows, 0.4).item() == pytest.approx(0, abs=1e-5)


def test_bone_that_dice_cannot_find_has_a_slope_in_the_entropy() -> None:
    bone = torch.zeros(1, 1, 32, 32)
    bone[..., 3, 3] = 1
    slopes = []
    for far in (-0.9, -0.5):
        translated = torch.full(bone.shape, far, requires_grad=True)
        (by_entropy,) = torch.autograd.grad(structure.bone_entropy(translated, bone, torch.ones(()), 0.4), translated)
        (by_dice,) = torch.autograd.grad(structure.bone_consistency(translated, bone, 0.4, 0.1), translated)
        slopes.append((-by_entropy[..., 3, 3].item(), -by_dice[..., 3, 3].item()))
    assert slopes[0][0] == pytest.approx(10, rel=1e-3)
    assert slopes[1][0] == pytest.approx(10, rel=1e-3)
    assert slopes[0][1] < 1e-3


def test_a_batch_without_bone_has_a_finite_entropy() -> None:
    empty = torch.zeros(1, 1, 50, 40)
    assert structure.bone_entropy(empty - 9, empty, torch.ones(()), 0.4).item() == 0
    assert structure.bone_entropy(empty + 0.4, empty, torch.ones(()), 0.4).item() == pytest.approx(math.log(2) / 5e-4)


def test_linear_hounsfield_is_the_map_between_its_knots_and_has_its_slopes() -> None:
    knots_unit, knots_linear = (-1.0, -0.5, 0.4, 1.0), (-1.0, -0.6, -0.35, 1.0)
    units = torch.tensor([-1.2, -1.0, -0.75, -0.5, 0.4, 0.7, 1.0], requires_grad=True)
    linear = structure.linear_hounsfield(units, knots_unit, knots_linear)
    torch.testing.assert_close(linear.detach(), torch.tensor([-1.0, -1.0, -0.8, -0.6, -0.35, 0.325, 1.0]))
    (slopes,) = torch.autograd.grad(linear.sum(), units)
    assert slopes[2].item() == pytest.approx(0.8)
    assert slopes[5].item() == pytest.approx(2.25)
