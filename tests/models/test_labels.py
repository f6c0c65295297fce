"""Labels for D: ranges, shares, and what may not be asked for."""

import math

import pytest
import torch

from models.labels import HARD_LABELS, LabelSettings, draw_labels, lowest_cross_entropy
from models.losses import labeled_cross_entropy

RNG_SEED = 3


def draw(settings: LabelSettings, count: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    return draw_labels(settings, count, torch.Generator().manual_seed(RNG_SEED))


def test_hard_labels_are_one_and_zero() -> None:
    real, fake = draw(HARD_LABELS)
    assert real.unique().tolist() == [1]
    assert fake.unique().tolist() == [0]
    assert HARD_LABELS.hard


def test_one_sided_smoothing_leaves_fakes_at_zero() -> None:
    real, fake = draw(LabelSettings(real=0.9))
    assert real.unique().tolist() == pytest.approx([0.9])
    assert fake.unique().tolist() == [0]


def test_soft_labels_fill_their_ranges() -> None:
    real, fake = draw(LabelSettings(real=1.0, softness=0.3))
    assert 0.7 <= real.min() < 0.71
    assert 0.99 < real.max() <= 1
    assert 0 <= fake.min() < 0.01
    assert 0.29 < fake.max() <= 0.3
    assert real.mean().item() == pytest.approx(0.85, abs=0.01)  # uniform


def test_the_share_of_swapped_labels_is_the_rate() -> None:
    real, fake = draw(LabelSettings(flip_rate=0.2))
    assert (real == 0).double().mean().item() == pytest.approx(0.2, abs=0.025)  # four standard errors
    assert (fake == 1).double().mean().item() == pytest.approx(0.2, abs=0.025)


@pytest.mark.parametrize(
    "wrong", [{"real": 1.1}, {"softness": 0.5}, {"real": 0.4, "softness": 0.2}, {"flip_rate": 0.5}, {"flip_rate": -0.1}]
)
def test_labels_that_do_not_tell_real_from_fake_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="labels must tell real from fake"):
        LabelSettings(**wrong)


def test_the_lowest_cross_entropy_of_hard_and_smoothed_labels_by_hand() -> None:
    assert lowest_cross_entropy(HARD_LABELS) == 0
    expected = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    assert lowest_cross_entropy(LabelSettings(real=0.9)) == pytest.approx(expected)
    assert lowest_cross_entropy(LabelSettings(flip_rate=0.1)) == pytest.approx(2 * expected)


def test_no_score_does_better_than_the_lowest_cross_entropy() -> None:
    settings = LabelSettings(real=0.95, softness=0.1, flip_rate=0.05)
    labels = draw(settings)
    scores = torch.linspace(-6, 6, 241)
    best = [min(labeled_cross_entropy(score.expand(4000), told).item() for score in scores) for told in labels]
    assert sum(best) == pytest.approx(lowest_cross_entropy(settings), abs=0.02)  # of 4000 drawn labels
