"""Every MR of a set, corrected once and brought to units; landmarks are fitted on the training subjects before."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import JsonValue

from pipeline.catalog import Catalog
from pipeline.errors import InputError
from pipeline.geometry import Affine, Geometry
from pipeline.prepare.mr_normalization import StandardHistogram, landmarks_of, sequence_of
from pipeline.prepare.mr_sequences import moved_onto, require_shown
from pipeline.prepare.registration import Side
from pipeline.prepare.sequence_channels import is_registered
from pipeline.prepare.volumes import CorrectedMR, PreparedVolume, corrected_mr, in_units
from pipeline.settings import PrepareMRToCTSettings
from pipeline.spreading import Spread, here

_SCRATCH = "corrected"


class MRVolumes:
    """Prepares MR volumes; as a context manager it removes what it kept between fitting and preparing.

    Args:
        catalog: where they lie.
        settings: spacing, N4 and normalization.
        folder: of the set; corrected training volumes are kept in it for as long as they are needed.
    """

    def __init__(self, catalog: Catalog, settings: PrepareMRToCTSettings, folder: Path) -> None:
        self._catalog, self._settings, self._scratch = catalog.without_rows(), settings, folder / _SCRATCH
        self._standard: StandardHistogram | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)

    def fit(self, rows: Sequence[Mapping[str, Any]], spread: Spread = here) -> None:
        """Fit landmarks on the MR of training subjects, where the settings ask for them."""
        if self._settings.mr_normalization != "landmarks":
            return
        self._scratch.mkdir(parents=True)
        found = []
        for row, mr in zip(rows, spread(partial(_corrected, self._catalog, self._settings), rows), strict=True):
            np.savez(self._path(row), values=mr.values, mask=mr.mask, affine=mr.grid.affine)
            try:
                landmarks = landmarks_of(mr.values, mr.mask, self._settings.mr_percentiles)
            except InputError:  # left out by name when it is prepared
                continue
            found.append((sequence_of(row), landmarks))
        self._standard = StandardHistogram.fit(found, self._settings.mr_percentiles)

    def prepare(self, row: Mapping[str, Any], others: Sequence[Mapping[str, Any]] = ()) -> PreparedVolume:
        """One MR in units, with its further sequences where several are one input.

        Raises:
            InputError: one has no contrast, or a sequence that no training subject has, or does not show the body.
        """
        first = self._corrected(row)
        more = []
        for other in others:
            moved = self._moved(row, first, other)
            require_shown(self._catalog, other, first.grid, first.mask, moved)
            placed = corrected_mr(self._catalog, other, self._settings, first.grid, moved)
            more.append(replace(in_units(placed, other, self._settings, self._standard), moved=moved))
        return replace(in_units(first, row, self._settings, self._standard), more=tuple(more))

    def _moved(self, row: Mapping[str, Any], first: CorrectedMR, other: Mapping[str, Any]) -> Affine:
        """The matrix that moves a further sequence onto the first: none, but where registration is asked for."""
        if self._settings.registration == "none" or is_registered(other, row):
            return np.eye(4)
        own = corrected_mr(self._catalog, other, self._settings)
        fixed, moving = (Side(np.maximum(mr.values, 0), mr.grid, mr.mask) for mr in (first, own))
        return moved_onto(fixed, moving, str(other["sequence"]), self._settings.registration_limits)

    def facts(self) -> dict[str, JsonValue]:
        """What the set keeps of the normalization."""
        facts: dict[str, JsonValue] = {"method": self._settings.mr_normalization}
        return facts if self._standard is None else facts | {"landmarks": self._standard.facts()}

    def _corrected(self, row: Mapping[str, Any]) -> CorrectedMR:
        if not self._path(row).is_file():
            return corrected_mr(self._catalog, row, self._settings)
        with np.load(self._path(row), allow_pickle=False) as kept:
            values, mask, affine = kept["values"], kept["mask"], kept["affine"]
        self._path(row).unlink()
        return CorrectedMR(values, mask, Geometry(values.shape, affine))

    def _path(self, row: Mapping[str, Any]) -> Path:
        return self._scratch / f"{row['series_id']}.npz"


def _corrected(catalog: Catalog, settings: PrepareMRToCTSettings, row: Mapping[str, Any]) -> CorrectedMR:
    return corrected_mr(catalog, row, settings)
