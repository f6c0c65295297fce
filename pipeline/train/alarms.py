"""Rules of the flight recorder: which rows of a training log show that a GAN has gone wrong.

A rule looks at one row alone; an alarm is raised at the row that completes ``patience`` rows in a row, and again only
after a row without the trouble. The first rows do not count: untrained networks show all of it. Rows are all that is
looked at, so that a resumed training raises the same alarms.

With l = (d_loss − floor) / (chance − floor), floor and chance those of `models.diagnostics.Game`:

    discriminator_won        l < 0.02 (minimax, non_saturating, hinge): G is left without a gradient (Arjovsky and
                             Bottou 2017, theorem 2.4). A small loss of a Wasserstein critic is convergence instead.
    discriminator_lost       l > 5 (the same): scores run away, D is surer the wronger it is.
    discriminator_at_chance  P(D(x) > D(G(z))) within 0.03 of ½, or l > 0.97, while fakes are far from real images: D
                             learns nothing.
    diversity_lost           fakes differ from each other by less than a tenth of what real images do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.diagnostics import Game
from pipeline.training_alarms import AlarmName

WON_SHARE = 0.02
"""Share of the way from victory to chance below which D has won."""
LOST_SHARE = 5.0
"""The same, above which its scores run away."""
CHANCE_MARGIN = 0.03
"""Largest distance from chance, of P from ½ and of l below 1, of a D that learns nothing."""
POOR_GAP = 0.3
"""Energy gap of fakes that nobody would take for real."""
LEAST_DIVERSITY = 0.1
LEAST_VARIETY = 0.1
"""Least difference of two training images of a class, in units of the contrast within one."""

_BOUNDED_OBJECTIVES = frozenset({"minimax", "non_saturating", "hinge"})
_DIVERSITIES = ("diversity", "feature_diversity", "class_diversity")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """Trouble in one row.

    Attributes:
        alarm: its name.
        target: ending of the terms, e.g. ``_ct``.
        found: the figures.
        rule: the rule with its limits.
        advice: what to change.
    """

    alarm: AlarmName
    target: str
    found: str
    rule: str
    advice: str


def findings(row: Row, game: Game) -> list[Finding]:
    """Everything that one row shows.

    Args:
        row: term → mean over the interval, or None.
        game: the scale of `d_loss`.
    """
    found = [rule(row, game) for rule in (_discriminator_won, _discriminator_lost)]
    for target in game.targets:
        found += [_at_chance(row, target, game), _diversity_lost(row, target)]
    return [finding for finding in found if finding is not None]


def suspicious(rows: Sequence[Row], game: Game, grace_images: int) -> bool:
    """Whether the last row shows trouble, long enough for an alarm or not."""
    return bool(rows) and rows[-1]["images"] > grace_images and bool(findings(rows[-1], game))


def raised(rows: Sequence[Row], game: Game, patience: int, grace_images: int) -> list[Finding]:
    """The alarms that the last row raises: trouble in exactly the last ``patience`` rows.

    Args:
        rows: the log so far, oldest first.
        game: the scale of `d_loss`.
        patience: rows in a row that must show the trouble.
        grace_images: rows up to this many training images do not count.
    """
    rows = [row for row in rows[-patience - 1 :] if row["images"] > grace_images]
    if len(rows) < patience:
        return []
    shown = [{(each.alarm, each.target) for each in findings(row, game)} for row in rows]
    before: set[tuple[AlarmName, str]] = shown.pop(0) if len(shown) > patience else set()
    lasting = set.intersection(*shown) - before
    return [each for each in findings(rows[-1], game) if (each.alarm, each.target) in lasting]


def poor_data(variety: Mapping[str, float]) -> list[Finding]:
    """Classes or modalities whose training images are all but one image.

    Args:
        variety: name → `pipeline.train.data_checks.variety`.
    """
    return [
        Finding(
            "data_without_variety",
            "",
            f"training images of {name} differ by {value:.3f} of the contrast within one",
            f"two images of a class differ by less than {LEAST_VARIETY:g} of their contrast on average",
            "Add images of other subjects: a GAN can only copy these.",
        )
        for name, value in variety.items()
        if value < LEAST_VARIETY
    ]


def _share(row: Row, game: Game) -> float | None:
    loss = row.get("d_loss")
    if game.objective not in _BOUNDED_OBJECTIVES or game.chance_loss is None or loss is None:
        return None
    return (float(loss) - game.floor_loss) / (game.chance_loss - game.floor_loss)


def _discriminator_won(row: Row, game: Game) -> Finding | None:
    share = _share(row, game)
    if share is None or share >= WON_SHARE:
        return None
    return Finding(
        "discriminator_won",
        "",
        f"d_loss {row['d_loss']:.3g}, {share:.1%} of its value at chance",
        f"d_loss below {WON_SHARE:.0%} of its value at chance, above what the labels allow at the least",
        "Lower the learning rate of the discriminator, or use r1_gamma, instance_noise or softened labels.",
    )


def _discriminator_lost(row: Row, game: Game) -> Finding | None:
    share = _share(row, game)
    if share is None or share <= LOST_SHARE:
        return None
    return Finding(
        "discriminator_lost",
        "",
        f"d_loss {row['d_loss']:.3g}, {share:.3g} times its value at chance",
        f"d_loss above {LOST_SHARE:g} times its value at chance",
        "Lower the learning rate of the discriminator, or set gradient_clip.",
    )


def _at_chance(row: Row, target: str, game: Game) -> Finding | None:
    probability, gap = row.get(f"p_real_over_fake{target}"), row.get(f"fidelity_gap{target}")
    if probability is None or gap is None or gap < POOR_GAP:
        return None
    share = _share(row, game)
    blind = share is not None and share > 1 - CHANCE_MARGIN
    if abs(probability - 0.5) > CHANCE_MARGIN and not blind:
        return None
    loss = "" if share is None else f" and d_loss at {share:.1%} of its value at chance,"
    return Finding(
        "discriminator_at_chance",
        target,
        f"P(real above synthetic) {probability:.3f}{loss} with a fidelity gap of {gap:.2f}",
        f"P within {CHANCE_MARGIN:g} of 0.5, or d_loss no lower than {1 - CHANCE_MARGIN:.0%} of its value at chance, "
        f"with a gap of {POOR_GAP:g} or more",
        "Bring the learning rate of the discriminator near that of the generator, or use a wider one.",
    )


def _diversity_lost(row: Row, target: str) -> Finding | None:
    values = {name: row.get(name + target) for name in _DIVERSITIES}
    low = {name: value for name, value in values.items() if value is not None and value < LEAST_DIVERSITY}
    if not low:
        return None
    return Finding(
        "diversity_lost",
        target,
        ", ".join(f"{name}{target} {value:.3f}" for name, value in low.items()),
        f"synthetic images differ by less than {LEAST_DIVERSITY:g} of what real ones do",
        "Lower the learning rates, show more images, or use r1_gamma or another objective.",
    )
