"""Checks of one pseudo-CT, with a traffic light each; they need no CT of the subject.

Limits come from the model's domain card where it knows what is usual, or from held-out cases of the workspace, else
they are fixed, and each row says which. A light warns of what is unusual; green is no proof that a pseudo-CT is right.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.domain_card import (
    TAIL,
    Calibration,
    CaseFigures,
    CTReference,
    DomainCard,
    Spread,
    histogram_distance,
    measure_ct,
)
from pipeline.generate.scope import IN_SCOPE, OUT_OF_SCOPE, CaseScope
from pipeline.translated_case import CaseMaps, CaseSource

Light = Literal["green", "amber", "red", "none"]

CHECK_SCHEMA: dict[str, Any] = {
    "series_id": pl.String,
    "volume": pl.Int64,
    "check": pl.String,
    "light": pl.String,  # green, amber, red; none where it could not be made
    "value": pl.Float64,
    "unit": pl.String,
    "rule": pl.String,
    "meaning": pl.String,
}

AMBER_TAIL, RED_TAIL = 0.025, TAIL
"""Share of cases of the kind that is known that lies beyond a calibrated limit."""

_PRIORS = {"histogram": {"HU": 30.0, "grey": 8.0}, "continuity": 0.03, "fragments": 0.03}
"""What subjects differ by, for cards that know few CTs."""

UNCERTAIN = {"HU": (60.0, 120.0), "grey": (12.0, 25.0)}
"""Mean uncertainty in the body from which a light is amber, and red."""

RESIDUAL = (0.1, 0.2)
"""Mean cycle residual in the body, in MR units, from which a light is amber, and red."""

OUTLINE_DICE = (0.97, 0.93)
"""Dice of both body outlines below which a light is amber, and red.

These three hold where there are no held-out cases to calibrate limits on."""

Check = dict[str, Any]


def case_checks(
    folder: Path,
    maps: CaseMaps,
    source: CaseSource,
    scope: CaseScope,
    card: DomainCard | None,
    figures: CaseFigures,
    calibration: Calibration | None,
) -> list[Check]:
    """Every check of a case, in the order of the report.

    Args:
        folder: of the stage.
        maps: of the case.
        source: its MR.
        scope: what the gate says.
        card: domain card of the model; None where it has none.
        figures: of the case.
        calibration: what held-out cases came to; None where there were none.
    """
    pseudo_ct = _open(folder, maps.pseudo_ct)
    body = np.asarray(source.volume.mask) > 0
    checks = [_scope_check(scope), *_ct_checks(pseudo_ct, body, source.unit, None if card is None else card.ct)]
    if figures.outline is not None:
        checks.append(_outline_check(figures.outline, calibration))
    return [*checks, _uncertainty_check(figures, calibration, source.unit), _residual_check(figures, calibration)]


def _open(folder: Path, path: str) -> npt.NDArray[np.int16]:
    found: npt.NDArray[np.int16] = np.load(folder / path, mmap_mode="r", allow_pickle=False)
    return found


def _check(name: str, light: Light, value: float | None, unit: str, rule: str, meaning: str) -> Check:
    known = None if value is None else round(float(value), 4)
    return {"check": name, "light": light, "value": known, "unit": unit, "rule": rule, "meaning": meaning}


def _scope_check(scope: CaseScope) -> Check:
    rule = "green up to 0.8 of what the domain card allows, amber up to 1, red beyond"
    if scope.severity is None:
        return _check(
            "scope of the model", "none", None, "", rule, "the model has no domain card: its scope is unknown"
        )
    if scope.outcome == OUT_OF_SCOPE:
        reasons = "; ".join(scope.findings)
        meaning = f"out of scope, risk accepted ({scope.accepted_risk}): {reasons}"
        return _check("scope of the model", "red", scope.severity, "of the limit", rule, meaning)
    near = scope.outcome == IN_SCOPE and scope.severity > 0.8
    meaning = f"like the training scans ({scope.kind})" + (", but near a limit" if near else "")
    return _check("scope of the model", "amber" if near else "green", scope.severity, "of the limit", rule, meaning)


def _ct_checks(
    pseudo_ct: npt.NDArray[np.int16], body: npt.NDArray[np.bool_], unit: str, reference: CTReference | None
) -> list[Check]:
    measured = measure_ct(pseudo_ct, body, unit)
    names = ("histogram against training CT", "bone continuity", "bone fragments")
    if measured is None or reference is None:
        why = "no body in the MR" if measured is None else "the model has no domain card with CTs"
        return [_check(name, "none", None, "", "against training CTs", why) for name in names]
    distance = histogram_distance(measured.quantiles, np.asarray(reference.quantiles))
    found = [
        _against(names[0], distance, reference.distance, _PRIORS["histogram"][unit], unit, "high",  # type: ignore[index]
                 "mean distance of equal quantiles of the body's values")
    ]  # fmt: skip
    for name, value, spread, prior, side, meaning in (
        (names[1], measured.continuity, reference.continuity, _PRIORS["continuity"], "low",
         "share of bone that has bone within 2 pixels in a neighboring slice"),
        (names[2], measured.fragments, reference.fragments, _PRIORS["fragments"], "high",
         "share of bone in pieces smaller than a hundredth of all bone"),
    ):  # fmt: skip
        if spread is None:
            found.append(_check(name, "none", value, "", "against training CTs", "training CTs show no bone"))
        elif value is None:
            found.append(_check(name, "red", None, "", "training CTs show bone", "no bone at all in the pseudo-CT"))
        else:
            found.append(_against(name, value, spread, float(prior), "", side, meaning))  # type: ignore[arg-type]
    return found


def _against(name: str, value: float, spread: Spread, prior: float, unit: str, side: str, meaning: str) -> Check:
    amber, red = (spread.half_width(prior, tail) for tail in (AMBER_TAIL, RED_TAIL))
    away = value - spread.mean if side == "high" else spread.mean - value
    light: Light = "red" if away > red else "amber" if away > amber else "green"
    sign, word = (1, "above") if side == "high" else (-1, "below")
    limits = [spread.mean + sign * width for width in (amber, red)]
    rule = f"amber {word} {limits[0]:.3g}, red {word} {limits[1]:.3g}, from {spread.count} training CTs"
    return _check(name, light, value, unit, rule, meaning)


def _outline_check(dice: float, calibration: Calibration | None) -> Check:
    amber, red, basis = _limits("outline", (1 - OUTLINE_DICE[0], 1 - OUTLINE_DICE[1]), calibration)
    rule = f"amber below {max(0.0, 1 - amber):.3g}, red below {max(0.0, 1 - red):.3g} {basis}"
    light = _light(1 - dice, amber, red)
    return _check("body outline of MR and pseudo-CT", light, dice, "Dice", rule, "overlap of both outlines")


def _uncertainty_check(figures: CaseFigures, calibration: Calibration | None, unit: str) -> Check:
    limits = _limits("uncertainty", UNCERTAIN[unit], calibration)
    if figures.uncertainty is None or figures.uncertainty_high is None:
        missing = "a single answer: no mirror image, planes or ensemble were asked for"
        return _map_check("uncertainty", None, unit, limits, missing)
    words = (
        f"mean deviation of the answers inside the body; {figures.uncertainty_high:.0f} {unit} at its 95th percentile"
    )
    return _map_check("uncertainty", figures.uncertainty, unit, limits, words)


def _residual_check(figures: CaseFigures, calibration: Calibration | None) -> Check:
    limits = _limits("residual", RESIDUAL, calibration)
    if figures.residual is None or figures.residual_high is None:
        missing = "the model has no way back, or it was not asked for"
        return _map_check("cycle residual", None, "MR units", limits, missing)
    words = (
        f"mean distance of the MR and the pseudo-CT translated back; {figures.residual_high:.2f} at its 95th percentile"
    )
    return _map_check("cycle residual", figures.residual, "MR units", limits, words)


def _map_check(name: str, value: float | None, unit: str, limits: tuple[float, float, str], meaning: str) -> Check:
    amber, red, basis = limits
    rule = f"amber above {amber:.3g}, red above {red:.3g} {unit} {basis}"
    return _check(name, "none" if value is None else _light(value, amber, red), value, unit, rule, meaning)


def _limits(name: str, fixed: tuple[float, float], calibration: Calibration | None) -> tuple[float, float, str]:
    """Values above which a light is amber, and red, and where they come from."""
    found = [None if calibration is None else calibration.limit(name, tail) for tail in (AMBER_TAIL, RED_TAIL)]
    if calibration is None or found[0] is None or found[1] is None:
        return (*fixed, "(fixed)")
    return found[0], found[1], f"(from {calibration.count(name)} held-out cases)"


def _light(value: float, amber: float, red: float) -> Light:
    return "red" if value > red else "amber" if value > amber else "green"
