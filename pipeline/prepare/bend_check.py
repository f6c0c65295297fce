"""Whether a bend can be believed. One that cannot is dropped, and the rigid transform it began from is kept.

The search's own sum of squares has no say: mutual information and the body outlines are counted with the bend and
without it, the search is made again from control points that are all a few millimeters beside rest, and the bend must
neither fold space nor carry anything far.
"""

import numpy as np

from pipeline.geometry import Affine
from pipeline.prepare.bend import Bend
from pipeline.prepare.deformable import LEVEL_MM, BendSearch
from pipeline.prepare.registration import Side, Transform, body_points, clipped_ct, mutual_information, near_body
from pipeline.prepare.registration_check import RegistrationCheck, outlines
from pipeline.settings import RegistrationLimits

RESTART_MM = 3.0
"""How far beside rest the control points of the second search begin."""

LOST_DICE = 0.01
"""Dice of the body outlines that a bend may lose."""


def find_bend(mr: Side, ct: Side, rigid: Affine, limits: RegistrationLimits) -> tuple[Bend, RegistrationCheck]:
    """Bend the rigid result, and measure the bend against its limits.

    Args:
        mr: as registered.
        ct: as registered.
        rigid: places in the MR to places in the CT.
        limits: what must be reached.
    """
    search = BendSearch(mr, ct, rigid)
    bend = search.find()
    numbers = _numbers(mr, ct, Transform(rigid), Transform(rigid, bend), bend)
    again = search.find(np.full(search.splines.shape, RESTART_MM / np.sqrt(3)))
    points = body_points(mr)
    apart = np.linalg.norm(again.move(points) - bend.move(points), axis=1)
    numbers["bend_disagreement_mm"] = float(apart.mean())
    return bend, RegistrationCheck(numbers, tuple(failures_of(numbers, limits)))


def _numbers(mr: Side, ct: Side, rigid: Transform, bent: Transform, bend: Bend) -> dict[str, float]:
    fixed, moving = mr.at_level(LEVEL_MM), ct.at_level(LEVEL_MM)
    ratios = bend.volume_ratios()[near_body(fixed)]
    before, reached = (_information(fixed, moving, found) for found in (rigid, bent))
    points = body_points(mr, 4000)
    moved = np.linalg.norm(bend.move(points) - points, axis=1)
    return {
        "bend_mean_mm": float(moved.mean()),
        "bend_max_mm": float(moved.max()),
        "volume_ratio_min": float(ratios.min()),
        "volume_ratio_max": float(ratios.max()),
        "information_gain": reached / before - 1 if before > 0 else 0.0,
        "body_dice_gain": outlines(fixed, moving, bent)["body_dice"] - outlines(fixed, moving, rigid)["body_dice"],
    }


def _information(mr: Side, ct: Side, found: Transform) -> float:
    """Mutual information of the MR and the CT brought onto its grid."""
    hu = found.warp(clipped_ct(ct), ct.grid.affine, mr.grid, -1000.0)
    return mutual_information(mr, Side(hu, mr.grid, mr.body))


def failures_of(numbers: dict[str, float], limits: RegistrationLimits) -> list[str]:
    """What breaks a limit, each with its number."""
    low, high = 1 / limits.max_local_change, limits.max_local_change
    bounds: list[tuple[str, float, bool, str]] = [
        ("information_gain", limits.min_information_gain, True, "gain of mutual information, as a share"),
        ("body_dice_gain", -LOST_DICE, True, "gain of the body outlines' Dice"),
        ("bend_max_mm", limits.max_bend_mm, False, "mm moved by the bend"),
        ("volume_ratio_min", low, True, "of its volume left to a voxel"),
        ("volume_ratio_max", high, False, "times its volume given to a voxel"),
        ("bend_disagreement_mm", limits.max_bend_disagreement_mm, False, "mm between the bends of two starts"),
    ]
    return [
        f"{numbers[name]:.3g} {words} ({'at least' if at_least else 'at most'} {limit:g})"
        for name, limit, at_least, words in bounds
        if not (numbers[name] >= limit if at_least else numbers[name] <= limit)
    ]
