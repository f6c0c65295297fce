"""Translation of a prepared set's MR, case after case: scope gate, networks, maps, files, quality."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from pydantic import JsonValue

from pipeline.catalog import read_catalog
from pipeline.domain_card import AnswerKind, Calibration
from pipeline.errors import InputError
from pipeline.generate.case_quality import CHECK_SCHEMA, case_checks
from pipeline.generate.fast_path import FastPath, choose_plan
from pipeline.generate.finished_cases import FinishedCases
from pipeline.generate.pseudo_ct import native_geometry, write_map, write_volume
from pipeline.generate.scope import CAUTION, IN_SCOPE, OUT_OF_SCOPE, CaseScope, case_scope, require_any, with_spread
from pipeline.generate.translators import Translators, load_translators, require_planes
from pipeline.generate_settings import GenerateMRToCTSettings
from pipeline.inference import WindowPlan
from pipeline.prepared_set import VolumeSet, read_volume_set
from pipeline.scan_io import Algorithm
from pipeline.stage_runner import StageContext
from pipeline.translated_case import (
    CaseMaps,
    CaseSource,
    calibrated,
    case_figures,
    case_source,
    pictures_of_case,
    write_case_maps,
)

CASE_SCHEMA: dict[str, Any] = {
    "series_id": pl.String,
    "subject_id": pl.String,
    "split": pl.String,
    "volume": pl.Int64,
    "prepared_path": pl.String,
    "uncertainty": pl.String,  # prepared grid, int16 HU; null with a single answer
    "cycle_residual": pl.String,  # prepared grid, int16 thousandths of an MR unit; null without a way back
    "nifti_path": pl.String,
    "uncertainty_nifti": pl.String,
    "cycle_residual_nifti": pl.String,
    "dicom_folder": pl.String,
    "dicom_grid": pl.String,  # as the MR, reordered or resampled; the transform is in <dicom_folder>.json
    "dicom_refusal": pl.String,
    "mr_shape": pl.List(pl.Int64),  # grid of the MR itself, on which the NIfTI must lie; null without geometry
    "mr_affine": pl.List(pl.Float64),
    "scope": pl.String,  # in scope, out of scope, not checked
    "scope_kind": pl.String,
    "scope_findings": pl.List(pl.String),
    "scope_severity": pl.Float64,  # 1 at the limit
    "accepted_risk": pl.String,  # why an MR out of scope was translated
}
CHECKS_FILE, REFUSED_FILE = "checks.parquet", "refused.parquet"
_NO_GEOMETRY = "the MR came as pictures: without spacing, position and HU there is no CT series to write"
_IDENTITY = ("series_id", "subject_id", "split", "volume")


@dataclass(frozen=True)
class _Work:
    """What every case is translated with."""

    folder: Path
    volumes: VolumeSet
    translators: Translators
    settings: GenerateMRToCTSettings
    plan: WindowPlan
    device: torch.device
    calibration: Calibration | None


def translate_cases(
    context: StageContext, settings: GenerateMRToCTSettings, device: torch.device, models: list[str]
) -> dict[str, JsonValue]:
    """Translate every MR of the chosen splits into ``context.folder``; returns the stage's facts.

    Args:
        context: of the stage; a killed translation goes on after the last case that it finished.
        settings: how.
        device: where the networks live.
        models: names of the inputs that hold trained models, the run's own first.

    Raises:
        InputError: no MR in the chosen splits, or none in scope.
    """
    volumes = read_volume_set(context.inputs["prepared"])
    rows = _chosen(volumes, settings)
    journal = FinishedCases(context.folder)
    translators = load_translators([context.inputs[name] / "model" for name in models], device)
    require_planes(translators, settings.planes)
    translators.require_sequences(volumes.sequences)
    scopes = [case_scope(volumes, row, translators, settings.accept_risk) for row in rows]
    require_any(scopes)
    pairs = list(zip(rows, scopes, strict=True))
    kept = [(row, scope) for row, scope in pairs if not scope.refused]
    fast = choose_plan(
        _asked_plan(settings), translators.members[0], volumes, [row for row, _ in kept], device, settings.fast_limit_hu
    )
    plan = fast.plan if fast else _asked_plan(settings)
    calibration = _calibration(volumes, translators, settings, plan, device)
    work = _Work(context.folder, volumes, translators, settings, plan, device, calibration)
    catalog = {row["series_id"]: row for row in read_catalog(context.inputs["catalog"]).series.to_dicts()}
    sizes = [_pictures(work, row) for row, _ in kept]
    cases: list[dict[str, Any]] = []
    uncertain: dict[int, CaseScope] = {}
    for number, (row, scope) in enumerate(kept):
        before = sum(sizes[:number])
        name = f"{row['series_id']}-{row['volume']}"
        finished = journal.finished(name)
        if finished is None:

            def report(done: int, before: int = before) -> None:
                context.progress("slices translated", before + done, sum(sizes))

            # The affine of the MR itself, not of the prepared grid.
            finished = _translate(work, {**row, **catalog[row["series_id"]]}, name, scope, report)
            journal.finish(name, finished)
        after = CaseScope.of_columns(finished)
        if after.refused:
            uncertain[row["volume"]] = after
        else:
            cases.append(finished)
    journal.close()
    pairs = [(row, uncertain.get(row["volume"], scope)) for row, scope in pairs]
    require_any([scope for _, scope in pairs])
    _write_tables(context.folder, cases, [(row, scope) for row, scope in pairs if scope.refused])
    return _facts(cases, pairs, sum(row["slices"] for row, _ in kept), work, fast)


def _calibration(
    volumes: VolumeSet,
    translators: Translators,
    settings: GenerateMRToCTSettings,
    plan: WindowPlan,
    device: torch.device,
) -> Calibration | None:
    """What held-out cases come to when they are translated as these will be.

    The domain card knows it of its own validation cases, for one way of asking. Otherwise the validation cases of the
    prepared set are translated, those that the model knows.
    """
    kind = AnswerKind(models=len(translators.members), planes=settings.planes, mirrored=settings.mirrored)
    for card in translators.cards:
        if card is not None and card.held_out is not None and card.held_out.kind == kind:
            return card.held_out
    rows = volumes.volumes("MR", ["validation"])
    known = [row for row in rows if case_scope(volumes, row, translators, None).outcome == IN_SCOPE]
    return calibrated(volumes, known, translators.networks, settings, plan, device)


def _chosen(volumes: VolumeSet, settings: GenerateMRToCTSettings) -> list[dict[str, Any]]:
    rows = volumes.volumes("MR", settings.splits)
    if not rows:
        raise InputError(
            "Translation needs MR volumes in the chosen splits.",
            found=f"none in {', '.join(settings.splits)}",
            allowed="at least one",
            change="Set generate.mr_to_ct.splits, or add subjects.",
        )
    return rows


def _asked_plan(settings: GenerateMRToCTSettings) -> WindowPlan:
    whole, short = settings.windows == "whole_slice", settings.precision == "bfloat16"
    return WindowPlan(settings.overlap, settings.blending, whole_slice=whole, bfloat16=short)


def _pictures(work: _Work, row: Mapping[str, Any]) -> int:
    shape = (row["slices"], row["rows"], row["columns"])
    return pictures_of_case(shape, work.settings, back=work.translators.back is not None)


def _translate(work: _Work, row: Mapping[str, Any], name: str, scope: CaseScope, report: Any) -> dict[str, Any]:
    """Write one case; ``row`` holds the catalog's and the prepared set's columns. Returns its row with its checks."""
    scratch = work.folder / "scratch"
    scratch.mkdir()
    source = case_source(work.volumes, work.volumes.row(row["volume"]), scratch)
    networks = work.translators.networks
    maps = write_case_maps(work.folder, name, source, networks, work.settings, work.plan, work.device, report)
    figures = case_figures(work.folder, maps, source)
    scope = with_spread(scope, figures, work.calibration, work.settings.accept_risk)
    case = {key: row[key] for key in _IDENTITY}
    if scope.refused:
        for path in filter(None, (maps.pseudo_ct, maps.uncertainty, maps.cycle_residual)):
            (work.folder / path).unlink()
        return case | scope.columns()
    checks = case_checks(work.folder, maps, source, scope, work.translators.cards[0], figures, work.calibration)
    case |= {"prepared_path": maps.pseudo_ct, "uncertainty": maps.uncertainty, "cycle_residual": maps.cycle_residual}
    return case | scope.columns() | _write_files(work, row, source, maps, scope) | {"checks": checks}


def _write_files(
    work: _Work, row: Mapping[str, Any], source: CaseSource, maps: CaseMaps, scope: CaseScope
) -> dict[str, Any]:
    """NIfTI and DICOM on the MR's own grid."""
    written: dict[str, Any] = {"nifti_path": None, "dicom_folder": None, "dicom_grid": None, "mr_shape": None}
    written |= {"mr_affine": None, "uncertainty_nifti": None, "cycle_residual_nifti": None}
    prepared_affine = work.volumes.row(row["volume"])["affine"]
    if prepared_affine is None:
        return written | {"dicom_refusal": _NO_GEOMETRY}
    affine = np.asarray(prepared_affine, dtype=np.float64).reshape(4, 4)
    stamp = f" {scope.stamp}." if scope.stamp else ""
    algorithm = Algorithm(
        name="scanloom MR to CT",
        version=f"{version('scanloom')} {work.translators.version}",
        description=f"Pseudo-CT from MR by a CycleGAN; research use, not for clinical use.{stamp}"[:900],
        caution=CAUTION if scope.outcome == OUT_OF_SCOPE else "",
    )
    written |= {"mr_shape": list(row["shape"]), "mr_affine": list(row["affine"])}
    for kind, path in (("uncertainty", maps.uncertainty), ("cycle_residual", maps.cycle_residual)):
        if path is not None:
            stored = np.load(work.folder / path, mmap_mode="r", allow_pickle=False)
            words = kind.replace("_", "-")
            written[f"{kind}_nifti"] = write_map(work.folder, row, words, stored, affine, native_geometry(row))
    pseudo_ct = np.load(work.folder / maps.pseudo_ct, mmap_mode="r", allow_pickle=False)
    return written | write_volume(
        work.folder, row, pseudo_ct, affine, algorithm, dicom=work.settings.dicom, facts=_sidecar(work, scope)
    )


def _sidecar(work: _Work, scope: CaseScope) -> dict[str, Any]:
    """What the JSON beside the NIfTI says of how it was made."""
    return {
        "models": list(work.translators.digests),
        "planes": list(work.settings.planes),
        "mirrored": work.settings.mirrored,
        "scope": scope.columns(),
    }


def _write_tables(folder: Path, cases: list[dict[str, Any]], refused: list[tuple[dict[str, Any], CaseScope]]) -> None:
    pl.DataFrame(cases, schema=CASE_SCHEMA).write_parquet(folder / "cases.parquet")
    checks = [
        {"series_id": case["series_id"], "volume": case["volume"], **row} for case in cases for row in case["checks"]
    ]
    pl.DataFrame(checks, schema=CHECK_SCHEMA).write_parquet(folder / CHECKS_FILE)
    rows = [{key: row[key] for key in _IDENTITY} | scope.columns() for row, scope in refused]
    names = (*_IDENTITY, "scope_kind", "scope_findings", "scope_severity")
    schema = {name: CASE_SCHEMA[name] for name in names}
    pl.DataFrame(rows, schema=schema).write_parquet(folder / REFUSED_FILE)


def _facts(
    cases: list[dict[str, Any]],
    pairs: list[tuple[dict[str, Any], CaseScope]],
    slices: int,
    work: _Work,
    fast: FastPath | None,
) -> dict[str, JsonValue]:
    refused = {row["series_id"]: scope.findings[0] for row, scope in pairs if scope.refused}
    facts: dict[str, JsonValue] = {
        "cases": len(cases),
        "slices": slices,
        "dicom_series": sum(case["dicom_folder"] is not None for case in cases),
        "model_sha256": work.translators.digests[0],
        "models": len(work.translators.digests),
        "refused": len(refused),
        "risk_accepted": sum(case["accepted_risk"] is not None for case in cases),
    }
    if refused:
        facts["refusals"] = dict(refused)
    if fast:
        facts["fast_path"] = fast.facts(str(work.volumes.facts["unit"]))
    return facts
