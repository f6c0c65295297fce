"""Checks of one pseudo-CT, with a traffic light each; they need no CT of the subject.

Limits come from the model's domain card where it knows what is usual, else they are fixed, and each row says which. A
light warns of what is unusual; green is no proof that a pseudo-CT is right.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.body_mask import ct_body_mask
from pipeline.domain_card import CTReference, DomainCard, Spread, histogram_distance, measure_ct
from pipeline.generate.case_maps import RESIDUAL_STEPS, CaseMaps
from pipeline.generate.case_source import CaseSource
from pipeline.generate.scope import IN_SCOPE, OUT_OF_SCOPE, CaseScope

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

AMBER_TAIL, RED_TAIL = 0.025, 0.0005
"""Share of training CTs' kind that lies beyond a limit of the domain card."""

_PRIORS = {"histogram": {"HU": 30.0, "grey": 8.0}, "continuity": 0.03, "fragments": 0.03}
"""What subjects differ by, for cards that know few CTs."""

UNCERTAIN = {"HU": (60.0, 120.0), "grey": (12.0, 25.0)}
"""Mean uncertainty in the body from which a light is amber, and red."""

RESIDUAL = (0.1, 0.2)
"""Mean cycle residual in the body, in MR units, from which a light is amber, and red."""

OUTLINE_DICE = (0.97, 0.93)
"""Dice of both body outlines below which a light is amber, and red."""

Check = dict[str, Any]


def case_checks(
    folder: Path, maps: CaseMaps, source: CaseSource, scope: CaseScope, card: DomainCard | None
) -> list[Check]:
    """Every check of a case, in the order of the report.

    Args:
        folder: of the stage.
        maps: of the case.
        source: its MR.
        scope: what the gate says.
        card: domain card of the model; None where it has none.
    """
    pseudo_ct = _open(folder, maps.pseudo_ct)
    body = np.asarray(source.volume.mask) > 0
    checks = [_scope_check(scope), *_ct_checks(pseudo_ct, body, source.unit, None if card is None else card.ct)]
    if source.unit == "HU" and source.volume.spacing_mm is not None:
        checks.append(_outline_check(pseudo_ct, body, source.volume.spacing_mm))
    checks += _map_checks(folder, maps, body, source.unit)
    return checks


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


def _outline_check(
    pseudo_ct: npt.NDArray[np.int16], body: npt.NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> Check:
    slices, rows, columns = spacing_mm
    outline = ct_body_mask(np.asarray(pseudo_ct).transpose(2, 1, 0), (columns, rows, slices)).transpose(2, 1, 0)
    total = int(outline.sum() + body.sum())
    dice = 2 * int((outline & body).sum()) / total if total else 0.0
    light: Light = "red" if dice < OUTLINE_DICE[1] else "amber" if dice < OUTLINE_DICE[0] else "green"
    rule = f"amber below {OUTLINE_DICE[0]:g}, red below {OUTLINE_DICE[1]:g} (fixed)"
    return _check("body outline of MR and pseudo-CT", light, dice, "Dice", rule, "overlap of both outlines")


def _map_checks(folder: Path, maps: CaseMaps, body: npt.NDArray[np.bool_], unit: str) -> list[Check]:
    checks = []
    for name, path, scale, (amber, red), own_unit, meaning, missing in (
        ("uncertainty", maps.uncertainty, 1.0, UNCERTAIN[unit], unit,
         "mean deviation of the answers inside the body; {high:.0f} {unit} at its 95th percentile",
         "a single answer: no mirror image, planes or ensemble were asked for"),
        ("cycle residual", maps.cycle_residual, 1.0 / RESIDUAL_STEPS, RESIDUAL, "MR units",
         "mean distance of the MR and the pseudo-CT translated back; {high:.2f} at its 95th percentile",
         "the model has no way back, or it was not asked for"),
    ):  # fmt: skip
        rule = f"amber from {amber:g}, red from {red:g} {own_unit} (fixed)"
        if path is None or not body.any():
            checks.append(_check(name, "none", None, own_unit, rule, missing))
            continue
        inside = scale * _open(folder, path)[body].astype(np.float64)
        mean = float(inside.mean())
        light: Light = "red" if mean >= red else "amber" if mean >= amber else "green"
        words = meaning.format(high=float(np.quantile(inside, 0.95)), unit=unit)
        checks.append(_check(name, light, mean, own_unit, rule, words))
    return checks
