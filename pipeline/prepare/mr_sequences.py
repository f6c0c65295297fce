"""Several MR sequences of a subject as one input: which scans belong together, and the others on the grid of the first.

A sequence is what the catalog calls it: by the DICOM header's terms, or by the name of the file or channel where the
layout tells it (T1w, T2w in BIDS). Scans belong together that lie in one frame of reference; where neither has one,
they must lie on one grid, or ``pair_by: subject`` says that all scans of a subject are registered. With
``registration`` further sequences that lie elsewhere are registered to the first one, rigidly and under the checks that
a CT must pass. Each sequence is corrected and normalized by itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.catalog import Catalog
from pipeline.errors import InputError
from pipeline.geometry import Affine, Geometry
from pipeline.prepare.registration import CT_RANGE_HU, Side, clipped_mr, inverse, register
from pipeline.prepare.registration_check import check_registration
from pipeline.prepare.sequence_channels import registered_sequences
from pipeline.resampling import resample
from pipeline.settings import RegistrationLimits

Row = Mapping[str, Any]

LEAST_SHOWN = 0.95
"""Share of the first scan's body that every other sequence must show."""


def mr_inputs(
    rows: Sequence[dict[str, Any]], names: Sequence[str], *, by_subject: bool
) -> tuple[list[tuple[dict[str, Any], list[Row]]], dict[str, str]]:
    """The scans that are one input each.

    Args:
        rows: of every MR.
        names: of the sequences, in order; none: every MR is an input of its own.
        by_subject: all scans of a subject count, whatever their frames of reference.

    Returns:
        First scans with those of the further sequences; and series left out → why.
    """
    if not names:
        return [(row, []) for row in rows], {}
    found: list[tuple[dict[str, Any], list[Row]]] = []
    left_out = {}
    firsts = [row for row in rows if _named(row, names[0])]
    for row in firsts:
        others = [_partner(row, rows, name, by_subject=by_subject) for name in names[1:]]
        missing = [name for name, other in zip(names[1:], others, strict=True) if other is None]
        if missing:
            left_out[row["series_id"]] = f"No {' and no '.join(missing)} registered to a scan of {names[0]}."
        else:
            found.append((row, [other for other in others if other is not None]))
    with_first = {row["subject_id"] for row in firsts}
    for row in rows:
        if row["subject_id"] not in with_first:
            left_out[row["series_id"]] = (
                f"No scan of {names[0]} of the subject, but {row['sequence'] or 'an MR of unknown sequence'}."
            )
    return found, left_out


def moved_onto(first: Side, other: Side, name: str, limits: RegistrationLimits) -> Affine:
    """Register a further sequence to the first one, rigidly.

    Args:
        first: intensities ≥ 0.
        other: likewise.
        name: of the further sequence.
        limits: what must be reached.

    Returns:
        The matrix that moves the further scan onto the first, RAS+ mm.

    Raises:
        InputError: a check failed, with its number.
    """
    moving = Side(np.clip(other.voxels / _brightest(other), 0, 1) * CT_RANGE_HU[1], other.grid, other.body)
    try:
        found = register(first, moving, same_frame=False)
        failures = check_registration(first, moving, found, limits, same_frame=False).failures
    except RuntimeError:  # how SimpleITK says that its samples left the image
        failures = ("the scans were moved apart until nothing overlapped",)
    if failures:
        raise InputError(
            "Every sequence must be registered to the first one.",
            found=f"{name}: {'; '.join(failures)}",
            allowed="a registration within prepare.mr_to_ct.registration_limits",
            change="Leave the scan out, or bring sequences of one frame of reference.",
        )
    return inverse(found.rigid)


def require_shown(
    catalog: Catalog, row: Row, grid: Geometry, body: np.ndarray[Any, np.dtype[np.bool_]], moved: Affine
) -> None:
    """Refuse a further sequence whose field of view lacks part of the body.

    Args:
        catalog: where the scan lies.
        row: of the further sequence.
        grid: of the first one.
        body: (i, j, k) of the first one.
        moved: the matrix that moves the further scan onto the first, RAS+ mm.

    Raises:
        InputError: less than `LEAST_SHOWN` of the body is in its field of view.
    """
    voxels, affine = catalog.volume(row)
    seen = resample(np.ones(voxels.shape, np.uint8), moved @ affine, grid, order=0) > 0
    shown = float(seen[body].mean()) if body.any() else 1.0
    if shown < LEAST_SHOWN:
        raise InputError(
            "Every sequence must show the body that the first one shows.",
            found=f"{shown:.0%} of it in the field of view of {row['sequence']}",
            allowed=f"at least {LEAST_SHOWN:.0%}",
            change="Leave the scan out, or take the sequence with the smaller field of view first.",
        )


def _partner(row: Row, rows: Sequence[Row], name: str, *, by_subject: bool) -> Row | None:
    registered = registered_sequences(row, rows, [name])
    if registered is not None:
        return registered[0]
    if not by_subject:
        return None
    own = [other for other in rows if other["subject_id"] == row["subject_id"] and _named(other, name)]
    return min(own, key=lambda other: str(other["series_id"]), default=None)


def _brightest(side: Side) -> float:
    return max(1e-6, float(clipped_mr(side).max()))


def _named(row: Row, name: str) -> bool:
    return str(row["sequence"] or "").casefold() == name.casefold()
