"""Diagnostics against counting by hand."""

import pytest
import torch

from models.diagnostics import mean_pairwise_distance, probability_real_over_fake


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
