"""Whether a registration can be believed: numbers, and what breaks a limit.

Nothing here asks the search how well it did. Body outlines are compared, mutual information is counted anew, and the
search is made again from beside its result, and with left and right of the CT exchanged.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.geometry import Affine
from pipeline.prepare.registration import (
    LEVELS_MM,
    LOST_INFORMATION,
    Side,
    Transform,
    body_center,
    body_points,
    displaced,
    inverse,
    mutual_information,
    refine,
)
from pipeline.resampling import one_thread
from pipeline.settings import RegistrationLimits

RESTART_SHIFT_MM, RESTART_DEGREES = 10.0, 6.0
"""How far beside the result the search is started again."""

MIRRORED_GAIN = 0.02
"""A CT whose mirror image has this much more mutual information, as a share, lies the wrong way round."""


@dataclass(frozen=True)
class RegistrationCheck:
    """What a registration reached.

    Attributes:
        numbers: by name, as in the settings where there is a limit.
        failures: what breaks a limit, each with its number; empty for one that can be used.
    """

    numbers: dict[str, float]
    failures: tuple[str, ...]


def check_registration(
    mr: Side, ct: Side, found: Transform, limits: RegistrationLimits, *, same_frame: bool
) -> RegistrationCheck:
    """Measure a registration against its limits.

    Args:
        mr: as registered.
        ct: as registered.
        found: places in the MR to places in the CT.
        limits: what must be reached.
        same_frame: both are in one frame of reference, so that where they lay before is worth comparing with.
    """
    fixed, moving = mr.at_level(LEVELS_MM[1]), ct.at_level(LEVELS_MM[1])
    with one_thread():
        numbers = outlines(fixed, moving, found) | _rigid_numbers(fixed, moving, found.rigid)
    before = mutual_information(fixed, moving) if same_frame else None
    if before is not None:
        numbers["mutual_information_before"] = before
    return RegistrationCheck(numbers, tuple(_failures(numbers, limits)))


def _failures(numbers: dict[str, float], limits: RegistrationLimits) -> list[str]:
    bounds: list[tuple[str, float, bool, str]] = [
        ("overlap", limits.min_overlap, True, "of the MR's body in the CT's field of view"),
        ("body_dice", limits.min_body_dice, True, "Dice of the body outlines"),
        ("rotation_degrees", limits.max_rotation_degrees, False, "degrees turned"),
        ("disagreement_mm", limits.max_disagreement_mm, False, "mm between two starts"),
        ("mirrored_gain", MIRRORED_GAIN, False, "more mutual information with left and right exchanged"),
    ]
    failures = []
    for name, limit, at_least, words in bounds:
        value = numbers.get(name)
        if value is not None and not (value >= limit if at_least else value <= limit):
            failures.append(f"{value:.3g} {words} ({'at least' if at_least else 'at most'} {limit:g})")
    before, reached = numbers.get("mutual_information_before"), numbers["mutual_information"]
    if before is not None and reached < (1 - LOST_INFORMATION) * before:
        failures.append(f"mutual information {reached:.3g}, less than the {before:.3g} before")
    return failures


def outlines(mr: Side, ct: Side, found: Transform) -> dict[str, float]:
    """Overlap of the fields of view, and Dice of both bodies where both can be seen."""
    inside = _at(ct, found, body_points(mr, 4000))
    everywhere = mr.grid.to_world(np.argwhere(np.ones(mr.body.shape, bool)))
    step = max(1, len(everywhere) // 20_000)
    seen = _at(ct, found, everywhere[::step])
    first, second = mr.body.ravel()[::step], seen > 0
    shared = seen >= 0
    both, each = (first & second)[shared].sum(), first[shared].sum() + second[shared].sum()
    return {"overlap": float((inside >= 0).mean()), "body_dice": float(2 * both / each) if each else 0.0}


def _at(ct: Side, found: Transform, points: npt.NDArray[np.float64]) -> npt.NDArray[np.int8]:
    """The CT's body at places in the MR: 1 inside, 0 outside, −1 beyond its field of view."""
    index = np.rint(ct.grid.to_index(found.map(points))).astype(int)
    there = np.all((index >= 0) & (index < ct.grid.shape), axis=1)
    seen = np.full(len(points), -1, np.int8)
    seen[there] = ct.body[tuple(index[there].T)]
    return seen


def _rigid_numbers(mr: Side, ct: Side, rigid: Affine) -> dict[str, float]:
    center, points = body_center(mr), body_points(mr)
    reached = mutual_information(mr, ct.moved(inverse(rigid)))
    again = _search_anew(mr, ct, displaced(rigid, center, RESTART_SHIFT_MM, RESTART_DEGREES))
    mirrored = Side(ct.voxels[::-1].copy(), ct.grid, ct.body[::-1].copy())
    start = np.eye(4)
    start[:3, 3] = body_center(mirrored) - body_center(ct) + Transform(rigid).map(center[None])[0] - center
    exchanged = _search_anew(mr, mirrored, start)
    best = mutual_information(mr, mirrored.moved(inverse(exchanged)))
    cosine = np.clip((np.trace(rigid[:3, :3]) - 1) / 2, -1, 1)
    return {
        "rotation_degrees": float(np.rad2deg(np.arccos(cosine))),
        "shift_mm": float(np.linalg.norm(Transform(rigid).map(center[None])[0] - center)),
        "mutual_information": reached,
        "mirrored_gain": best / reached - 1 if reached > 0 else 1.0,
        "disagreement_mm": _distance(rigid, again, points),
    }


def _search_anew(mr: Side, ct: Side, start: Affine) -> Affine:
    """From the coarsest grid on, as the search itself."""
    return refine(mr, ct, refine(mr.at_level(LEVELS_MM[0]), ct.at_level(LEVELS_MM[0]), start))


def _distance(first: Affine, second: Affine, points: npt.NDArray[np.float64]) -> float:
    apart = Transform(first).map(points) - Transform(second).map(points)
    return float(np.linalg.norm(apart, axis=1).mean())
