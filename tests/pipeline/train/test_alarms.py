import math

import pytest

from models.diagnostics import Game
from models.labels import LabelSettings, lowest_cross_entropy
from models.losses import OBJECTIVES
from pipeline.train.alarms import LEAST_VARIETY, findings, poor_data, raised, suspicious

CHANCE = 2 * math.log(2)
HEALTHY = {
    "images": 512,
    "d_loss": 1.1,
    "p_real_over_fake": 0.7,
    "diversity": 0.9,
    "feature_diversity": 0.8,
    "fidelity_gap": 0.1,
}


def game(objective="non_saturating", **changes):
    return Game(objective, OBJECTIVES[objective].chance_loss, **changes)


def names(row, of=None):
    return [finding.alarm for finding in findings(row, of or game())]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_healthy_row_raises_nothing_under_any_objective(objective):
    assert names(HEALTHY, game(objective)) == []


@pytest.mark.parametrize(
    ("objective", "alarms"),
    [
        ("minimax", ["discriminator_won"]),
        ("non_saturating", ["discriminator_won"]),
        ("hinge", ["discriminator_won"]),
        ("least_squares", []),  # its gradient grows with the distance
        ("wasserstein", []),  # a small gap is convergence
        ("relativistic", []),
    ],
)
def test_a_discriminator_loss_near_zero_is_trouble_where_it_takes_the_gradient_away(objective, alarms):
    assert names(HEALTHY | {"d_loss": 1e-3}, game(objective)) == alarms
    assert names(HEALTHY | {"d_loss": 0.2}, game(objective)) == []


def test_smoothed_labels_have_a_floor_that_counts_as_zero():
    floor = lowest_cross_entropy(LabelSettings(real=0.9))
    smooth = game(floor_loss=floor)
    assert names(HEALTHY | {"d_loss": floor + 0.01}, smooth) == ["discriminator_won"]
    assert names(HEALTHY | {"d_loss": floor + 0.01}) == []


def test_a_discriminator_loss_far_above_chance_is_trouble():
    assert names(HEALTHY | {"d_loss": 5.1 * CHANCE}) == ["discriminator_lost"]
    assert names(HEALTHY | {"d_loss": 4.9 * CHANCE}) == []
    assert names(HEALTHY | {"d_loss": 40.0}, game("wasserstein")) == []


def test_a_discriminator_at_chance_is_trouble_only_while_fakes_are_poor():
    assert names(HEALTHY | {"p_real_over_fake": 0.51}) == []
    assert names(HEALTHY | {"p_real_over_fake": 0.51, "fidelity_gap": 0.6}) == ["discriminator_at_chance"]
    assert names(HEALTHY | {"p_real_over_fake": 0.6, "fidelity_gap": 0.6}) == []
    assert names(HEALTHY | {"p_real_over_fake": 0.6, "fidelity_gap": 0.6, "d_loss": CHANCE}) == [
        "discriminator_at_chance"
    ]
    blind = HEALTHY | {"p_real_over_fake": 0.6, "fidelity_gap": 0.6, "d_loss": 0.0}
    assert names(blind, game("wasserstein")) == []


def test_rows_of_untrained_networks_do_not_count():
    rows = [HEALTHY | {"diversity": 0.0, "images": images} for images in (100, 200, 300, 400)]
    assert not raised(rows[:3], game(), 2, 200)
    assert raised(rows, game(), 2, 200)
    assert suspicious(rows[:3], game(), 200)
    assert not suspicious(rows[:2], game(), 200)


@pytest.mark.parametrize("term", ["diversity", "feature_diversity", "class_diversity"])
def test_every_kind_of_lost_diversity_is_seen_and_named(term):
    (finding,) = findings(HEALTHY | {term: 0.04}, game())
    assert finding.alarm == "diversity_lost"
    assert f"{term} 0.040" in finding.found


def test_terms_of_two_targets_are_told_apart():
    both = game("least_squares", targets=("_ct", "_mr"))
    row = {"feature_diversity_ct": 0.01, "p_real_over_fake_ct": 0.5, "fidelity_gap_ct": 0.2, "p_real_over_fake_mr": 0.5}
    assert [(each.alarm, each.target) for each in findings(row, both)] == [("diversity_lost", "_ct")]


def test_missing_terms_raise_nothing():
    assert names({"images": 4, "d_loss": None, "diversity": None}) == []


def test_patience_is_kept_and_a_lasting_trouble_is_told_once():
    bad = HEALTHY | {"diversity": 0.0}
    rows, told = [], []
    for row in [HEALTHY, bad, bad, HEALTHY, bad, bad, bad, bad, bad, HEALTHY, bad, bad, bad]:
        rows.append(row)
        told.append([finding.alarm for finding in raised(rows, game(), 3, 0)])
    assert [number for number, alarms in enumerate(told) if alarms] == [6, 12]
    assert told[6] == ["diversity_lost"]


def test_the_first_rows_of_a_training_can_raise_an_alarm():
    bad = HEALTHY | {"diversity": 0.0}
    assert not raised([bad], game(), 2, 0)
    assert raised([bad, bad], game(), 2, 0)
    assert raised([bad], game(), 1, 0)


def test_two_troubles_that_take_turns_are_no_lasting_one():
    first, second = HEALTHY | {"diversity": 0.0}, HEALTHY | {"d_loss": 0.0}
    assert not raised([first, second, first, second], game(), 2, 0)
    assert suspicious([first], game(), 0)
    assert not suspicious([first, HEALTHY], game(), 0)
    assert not suspicious([], game(), 0)


def test_data_without_variety_is_named():
    (finding,) = poor_data({"cyst": LEAST_VARIETY / 2, "ring": 1.2})
    assert "cyst" in finding.found
    assert "ring" not in finding.found
