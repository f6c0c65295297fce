"""Diagnostics against counting by hand."""

import pytest
import torch

from models.diagnostics import (
    energy_gap,
    mean_pairwise_distance,
    probability_real_over_fake,
    relative_spread,
)


def test_probability_counts_pairs_and_halves_ties() -> None:
    real, fake = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0, 3.0])
    # pairs: (1,0) won, (1,1) tied, (1,3) lost, (2,0) won, (2,1) won, (2,3) lost
    assert probability_real_over_fake(real, fake).item() == pytest.approx(3.5 / 6)


def test_probability_ignores_any_growing_transformation_and_flips_with_the_roles() -> None:
    rng = torch.Generator().manual_seed(0)
    real, fake = torch.randn(20, generator=rng) + 0.5, torch.randn(30, generator=rng)
    probability = probability_real_over_fake(real, fake).item()
    assert probability_real_over_fake(real.exp(), fake.exp()).item() == pytest.approx(probability)
    assert probability_real_over_fake(fake, real).item() == pytest.approx(1 - probability)
    assert probability_real_over_fake(real, real).item() == pytest.approx(0.5)


def test_patch_scores_are_averaged_per_image() -> None:
    real, fake = torch.tensor([[5.0, -3.0]]), torch.tensor([[0.0, 1.0], [4.0, 4.0]])
    assert probability_real_over_fake(real, fake).item() == pytest.approx(0.5)


def test_pairwise_distance_is_the_mean_over_pairs_of_the_mean_absolute_difference() -> None:
    images = torch.randn(5, 2, 3, 4, generator=torch.Generator().manual_seed(1))
    by_hand = [(images[i] - images[j]).abs().mean() for i in range(5) for j in range(i)]
    assert mean_pairwise_distance(images).item() == pytest.approx(torch.stack(by_hand).mean().item(), rel=1e-5)
    assert mean_pairwise_distance(images[:1].repeat(4, 1, 1, 1)).item() == 0


def test_the_energy_gap_by_hand() -> None:
    # on a line: real 0 and 2, fake 1 and 5. E|x − y| = (1 + 5 + 1 + 3) / 4 = 2.5, E|x − x'| = 2, E|y − y'| = 4
    real, fake = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [5.0]])
    assert energy_gap(real, fake).item() == pytest.approx((5 - 2 - 4) / 5)


def test_the_energy_gap_is_one_for_two_points_and_none_for_two_draws_of_one_cloud() -> None:
    rng = torch.Generator().manual_seed(0)
    points = torch.zeros(4, 3), torch.ones(4, 3)
    assert energy_gap(*points).item() == pytest.approx(1)
    first, second = torch.randn(400, 5, generator=rng), torch.randn(400, 5, generator=rng)
    assert abs(energy_gap(first, second).item()) < 0.01
    assert energy_gap(first, second + 3).item() > 0.3


def test_the_energy_gap_is_that_of_the_clouds_however_they_are_moved_or_scaled_together() -> None:
    rng = torch.Generator().manual_seed(1)
    real, fake = torch.randn(30, 4, generator=rng), 1 + 2 * torch.randn(20, 4, generator=rng)
    gap = energy_gap(real, fake).item()
    assert energy_gap(3 * real + 7, 3 * fake + 7).item() == pytest.approx(gap, rel=1e-4)
    assert energy_gap(fake, real).item() == pytest.approx(gap, rel=1e-5)


def test_relative_spread_is_one_for_the_same_cloud_scales_with_it_and_is_zero_after_collapse() -> None:
    real = torch.randn(30, 4, generator=torch.Generator().manual_seed(1))
    assert relative_spread(real, real).item() == pytest.approx(1)
    assert relative_spread(0.3 * real + 5, real).item() == pytest.approx(0.3, rel=1e-5)
    assert relative_spread(real[:1].repeat(6, 1), real).item() == 0
