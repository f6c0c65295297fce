"""Deformations: lookups in closed form, costs, and a known shift that training finds again."""

import pytest
import torch

from models.mr_to_ct.registration import COARSE, DeformationNetwork, length, roughness, warp


def smooth_images(count: int, side: int = 32) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 1, 8, 8, generator=rng) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=True).clamp(-1, 1)


def constant(down: float, right: float, side: int = 32) -> torch.Tensor:
    nodes = side // COARSE
    return torch.tensor([float(down), float(right)])[None, :, None, None].expand(1, 2, nodes, nodes)


def test_no_displacement_is_the_identity() -> None:
    pictures = smooth_images(2)
    still = torch.zeros(2, 2, 4, 4)
    torch.testing.assert_close(warp(pictures, still), pictures, atol=1e-5, rtol=0)
    assert roughness(still) == length(still) == 0


def test_a_whole_displacement_looks_up_the_pixel_that_far_down_and_right() -> None:
    pictures = smooth_images(1)
    moved = warp(pictures, constant(2, -3))
    torch.testing.assert_close(moved[..., :-2, 3:], pictures[..., 2:, :-3], atol=1e-5, rtol=0)


def test_half_a_pixel_is_the_mean_of_two() -> None:
    pictures = smooth_images(1)
    moved = warp(pictures, constant(0, 0.5))
    torch.testing.assert_close(moved[..., :-1], (pictures[..., :-1] + pictures[..., 1:]) / 2, atol=1e-5, rtol=0)


def test_costs_in_closed_form() -> None:
    ramp = torch.stack([torch.arange(4.0).expand(4, 4), torch.zeros(4, 4)])[None]
    assert roughness(ramp).item() == pytest.approx(0.5)  # one of two components, along one of two axes, rises by 1
    assert roughness(constant(3, 4)) == 0
    assert length(constant(3, 4)).item() == pytest.approx(25)


def test_untrained_it_bends_nothing_and_no_gradient_reaches_what_it_looks_at() -> None:
    network = DeformationNetwork(1, torch.Generator().manual_seed(0))
    moving = smooth_images(2).requires_grad_()
    assert torch.equal(network(moving, smooth_images(2)), torch.zeros(2, 2, 4, 4))
    torch.nn.init.normal_(network.head.weight)
    network(moving, smooth_images(2)).sum().backward()
    assert moving.grad is None


def test_training_recovers_known_shifts() -> None:
    network = DeformationNetwork(1, torch.Generator().manual_seed(0))
    adam = torch.optim.Adam(network.parameters(), lr=3e-3)
    pictures, rng = smooth_images(16), torch.Generator().manual_seed(1)

    def shifted(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        moving = pictures[torch.randint(len(pictures), (count,), generator=rng)]
        shift = (torch.rand(count, 2, 1, 1, generator=rng) * 2 - 1) * 2
        return moving, warp(moving, shift.expand(-1, -1, 4, 4)), shift

    for _ in range(160):
        moving, fixed, _ = shifted(16)
        found = network(moving, fixed)
        loss = (warp(moving, found) - fixed).abs().mean() + 0.01 * roughness(found)
        adam.zero_grad()
        loss.backward()
        adam.step()
    moving, fixed, shift = shifted(64)
    with torch.no_grad():
        found = network(moving, fixed).mean(dim=(-2, -1), keepdim=True)
    before, after = shift.abs().mean(), (found - shift).abs().mean()
    assert after < 0.35 * before


def test_other_shapes_are_refused() -> None:
    network = DeformationNetwork(1, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="multiples of 8"):
        network(torch.zeros(1, 1, 20, 16), torch.zeros(1, 1, 20, 16))
