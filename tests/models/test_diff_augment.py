"""DiffAugment: exact effects of each policy, gradients, and what a draw fixes."""

import pytest
import torch
from torch import Tensor

from models.diff_augment import POLICIES, AugmentationDraw, apply_augmentation, draw_augmentation


def noise(count: int = 4, side: int = 16) -> Tensor:
    return torch.randn(count, 1, side, side, generator=torch.Generator().manual_seed(7))


def draw(policies: tuple[str, ...], images: Tensor, seed: int = 0, strength: float = 1.0) -> AugmentationDraw:
    return draw_augmentation(policies, images, torch.Generator().manual_seed(seed), strength=strength)


def test_zero_strength_and_no_policies_change_nothing() -> None:
    images = noise()
    assert torch.allclose(apply_augmentation(images, draw(POLICIES, images, strength=0.0)), images, atol=1e-6)
    assert torch.equal(apply_augmentation(images, draw((), images)), images)


def test_the_same_draw_gives_the_same_images_and_another_draw_does_not() -> None:
    images = noise()
    first, again, other = draw(POLICIES, images, 1), draw(POLICIES, images, 1), draw(POLICIES, images, 2)
    assert torch.equal(apply_augmentation(images, first), apply_augmentation(images, again))
    assert not torch.equal(apply_augmentation(images, first), apply_augmentation(images, other))


@pytest.mark.parametrize("shift", [(0, 0), (2, 0), (0, -2), (-1, 2)])
def test_translation_is_an_exact_shift_with_zero_fill(shift: tuple[int, int]) -> None:
    images = noise(1, 12)
    moved = apply_augmentation(images, AugmentationDraw(shift=torch.tensor([shift])))
    rows, columns = shift
    expected = torch.zeros_like(images)
    for row in range(12):
        for column in range(12):
            if 0 <= row - rows < 12 and 0 <= column - columns < 12:
                expected[0, 0, row, column] = images[0, 0, row - rows, column - columns]
    assert torch.equal(moved, expected)


def test_translation_reaches_an_eighth_of_each_side_and_no_more() -> None:
    images = torch.zeros(3000, 1, 16, 32)
    shift = draw(("translation",), images).shift
    assert shift is not None
    assert (shift.amin(0).tolist(), shift.amax(0).tolist()) == ([-2, -4], [2, 4])
    # Five values, each with probability 1/5: standard deviation 22 of 3000 draws.
    counts = torch.bincount(shift[:, 0] + 2)
    assert (counts - 600).abs().max() < 4 * 22


def test_cutout_erases_a_square_of_half_the_side() -> None:
    images = torch.ones(1, 2, 16, 16)
    inside = AugmentationDraw(cutout_corner=torch.tensor([[3, 5]]), cutout_side=(8, 8))
    cut = apply_augmentation(images, inside)
    assert (cut == 0).sum().item() == 2 * 8 * 8
    assert (cut[:, :, 3:11, 5:13] == 0).all()


def test_a_cutout_at_the_edge_loses_the_part_outside() -> None:
    images = torch.ones(2000, 1, 16, 16)
    drawn = draw(("cutout",), images)
    erased = (apply_augmentation(images, drawn) == 0).sum(dim=(1, 2, 3))
    assert drawn.cutout_side == (8, 8)
    assert drawn.cutout_corner is not None
    assert (drawn.cutout_corner.min().item(), drawn.cutout_corner.max().item()) == (-4, 11)
    assert (erased.min().item(), erased.max().item()) == (16, 64)


def test_brightness_moves_the_mean_and_contrast_the_spread() -> None:
    images = noise()
    bright = AugmentationDraw(brightness=torch.tensor([0.3, -0.2, 0.0, 0.5]))
    assert bright.brightness is not None
    change = apply_augmentation(images, bright).mean(dim=(1, 2, 3)) - images.mean(dim=(1, 2, 3))
    assert torch.allclose(change, bright.brightness, atol=1e-6)
    factors = torch.tensor([0.5, 1.0, 1.25, 1.5])
    stretched = apply_augmentation(images, AugmentationDraw(contrast=factors))
    assert torch.allclose(stretched.mean(dim=(1, 2, 3)), images.mean(dim=(1, 2, 3)), atol=1e-6)
    assert torch.allclose(stretched.std(dim=(1, 2, 3)), factors * images.std(dim=(1, 2, 3)), rtol=1e-5)


def test_color_draws_fill_their_ranges() -> None:
    drawn = draw(("brightness", "contrast"), torch.zeros(5000, 1, 2, 2))
    assert drawn.brightness is not None
    assert drawn.contrast is not None
    assert -0.5 <= drawn.brightness.min() < -0.49
    assert 0.49 < drawn.brightness.max() <= 0.5
    assert 0.5 <= drawn.contrast.min() < 0.51
    assert 1.49 < drawn.contrast.max() <= 1.5


def test_the_gradient_is_the_adjoint_of_the_augmentation() -> None:
    images = noise(2, 8).double().requires_grad_()
    drawn = draw(POLICIES, images)
    assert torch.autograd.gradcheck(lambda x: apply_augmentation(x, drawn), (images,))


def test_an_image_keeps_its_own_numbers() -> None:
    images = noise()
    drawn = draw(POLICIES, images)
    changed = images.clone()
    changed[1:] = 0
    assert torch.equal(apply_augmentation(changed, drawn)[0], apply_augmentation(images, drawn)[0])


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rotation[\s\S]*translation"):
        draw(("rotation",), noise())
