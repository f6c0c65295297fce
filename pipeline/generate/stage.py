"""The generate stage: `synthesize_lesions` and `translate_mr_to_ct`."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from pydantic import BaseModel, JsonValue

from pipeline.catalog import read_catalog
from pipeline.device import choose_device, turn_on
from pipeline.errors import InputError
from pipeline.generate.cohort import make_cohort
from pipeline.generate.ensemble import Member
from pipeline.generate.finished_cases import FinishedCases
from pipeline.generate.pseudo_ct import decode_pseudo_ct, write_volume
from pipeline.generate.recipe import resolve_recipe
from pipeline.inference import translate_volume
from pipeline.intensity import PiecewiseLinearMap, from_int16
from pipeline.prepared_set import VolumeSet, read_image_set, read_volume_set
from pipeline.records import ProgressCallback, StageRecord, silent
from pipeline.scan_io import Algorithm
from pipeline.settings import GenerateLesionsSettings, GenerateMRToCTSettings, RunSettings
from pipeline.stage_runner import Stage, StageContext, run_stage
from pipeline.trained_models import lesion_generator_settings, load_translator, model_hash
from pipeline.workspace import Workspace

_MODULE = "pipeline.generate.stage"
_NO_GEOMETRY = "the MR came as pictures: without spacing, position and HU there is no CT series to write"
_CASE_SCHEMA: dict[str, Any] = {
    "series_id": pl.String,
    "subject_id": pl.String,
    "split": pl.String,
    "volume": pl.Int64,
    "prepared_path": pl.String,
    "nifti_path": pl.String,
    "dicom_folder": pl.String,
    "dicom_grid": pl.String,  # as the MR, reordered or resampled; the transform is in <dicom_folder>.json
    "dicom_refusal": pl.String,
    "mr_shape": pl.List(pl.Int64),  # grid of the MR itself, on which the NIfTI must lie; null without geometry
    "mr_affine": pl.List(pl.Float64),
}


class SeededLesionsSettings(BaseModel, frozen=True):
    """What enters the key of a cohort."""

    seed: int
    device: str
    lesions: GenerateLesionsSettings


class TranslationSettings(BaseModel, frozen=True):
    """What enters the key of a translation."""

    device: str
    mr_to_ct: GenerateMRToCTSettings


def synthesize_lesions(
    workspace: Workspace,
    settings: RunSettings,
    prepared: StageRecord | None,
    trained: StageRecord,
    *,
    others: Sequence[StageRecord] = (),
    progress: ProgressCallback = silent,
) -> StageRecord:
    """Make the synthetic cohort that the recipe asks for; a killed one goes on from its last batch.

    Args:
        workspace: where the output goes.
        settings: ``generate.lesions``.
        prepared: the set that the models were trained on; None for a model from elsewhere, without a filter.
        trained: the run's own training.
        others: further trainings of an ensemble, in the order of ``generate.lesions.ensemble``.
        progress: counted in images.

    Raises:
        InputError: the recipe asks for what the model does not know, or its filter rejects too much.
    """
    seeded = SeededLesionsSettings(
        seed=settings.seed, device=choose_device(settings.device).type, lesions=settings.generate.lesions
    )
    known = lesion_generator_settings(trained.path(workspace.root) / "model")
    resolve_recipe(seeded.lesions, known.classes, known.attributes)  # before anything is written
    if prepared is None and seeded.lesions.filter.active:
        raise InputError(
            "The filter of a cohort is calibrated on real images.",
            found="a model from elsewhere, and no prepared set",
            allowed="scans of the same classes in the workspace, or no filter",
            change="Ingest your own scans first, or switch off generate.lesions.filter.",
        )
    records = ({} if prepared is None else {"prepared": prepared}) | {"trained": trained}
    records |= {f"trained_{number}": record for number, record in enumerate(others, 1)}

    def body(context: StageContext) -> dict[str, JsonValue]:
        folders = [context.inputs[name] / "model" for name in records if name != "prepared"]
        members = [Member(folder, model_hash(folder)) for folder in folders]
        device = torch.device(seeded.device)
        real = None if prepared is None else read_image_set(context.inputs["prepared"])
        facts = make_cohort(members, seeded.lesions, seeded.seed, device, context.folder, context.progress, real)
        return facts | {"model_sha256": members[0].sha256}

    turn = turn_on(choose_device(settings.device), settings.device_turns)
    stage = Stage("synthesize_lesions", _MODULE, body, resumable=True, turn=turn)
    return run_stage(workspace, stage, seeded, records=records, progress=progress)


def translate_mr_to_ct(
    workspace: Workspace,
    settings: RunSettings,
    catalog: StageRecord,
    prepared: StageRecord,
    trained: StageRecord,
    *,
    progress: ProgressCallback = silent,
) -> StageRecord:
    """Translate every MR of the chosen splits; NIfTI and DICOM where there is geometry.

    A killed translation goes on after the last case that it finished.

    Raises:
        InputError: no MR in the chosen splits.
    """
    own = TranslationSettings(device=choose_device(settings.device).type, mr_to_ct=settings.generate.mr_to_ct)

    def body(context: StageContext) -> dict[str, JsonValue]:
        return _translate(context, own)

    records = {"catalog": catalog, "prepared": prepared, "trained": trained}
    turn = turn_on(choose_device(settings.device), settings.device_turns)
    stage = Stage("translate_mr_to_ct", _MODULE, body, resumable=True, turn=turn)
    return run_stage(workspace, stage, own, records=records, progress=progress)


def _translate(context: StageContext, settings: TranslationSettings) -> dict[str, JsonValue]:
    volumes = read_volume_set(context.inputs["prepared"])
    rows = volumes.volumes("MR", settings.mr_to_ct.splits)
    if not rows:
        raise InputError(
            "Translation needs MR volumes in the chosen splits.",
            found=f"none in {', '.join(settings.mr_to_ct.splits)}",
            allowed="at least one",
            change="Set generate.mr_to_ct.splits, or add subjects.",
        )
    model = context.inputs["trained"] / "model"
    digest = model_hash(model)
    device = torch.device(settings.device)
    translator, model_settings = load_translator(model, device)
    catalog = {row["series_id"]: row for row in read_catalog(context.inputs["catalog"]).series.to_dicts()}
    total, done = sum(row["slices"] for row in rows), 0
    cases, journal = [], FinishedCases(context.folder)
    for row in rows:
        name = f"{row['series_id']}-{row['volume']}"
        finished = journal.finished(name)
        if finished is not None:
            cases.append(finished)
            done += row["slices"]
            continue
        before = done

        def report(slices: int, before: int = before) -> None:
            context.progress("slices translated", before + slices, total)

        mask = np.asarray(volumes.mask(row))
        mr_units = from_int16(volumes.voxels(row))
        units = translate_volume(translator, model_settings, mr_units, mask, settings.mr_to_ct.overlap, device, report)
        done += row["slices"]
        source = {**row, **catalog[row["series_id"]]}  # the affine of the MR itself, not of the prepared grid
        cases.append(_write_case(context.folder, volumes, source, units, mask, digest, dicom=settings.mr_to_ct.dicom))
        journal.finish(name, cases[-1])
    journal.close()
    pl.DataFrame(cases, schema=_CASE_SCHEMA).write_parquet(context.folder / "cases.parquet")
    series = sum(case["dicom_folder"] is not None for case in cases)
    return {"cases": len(cases), "slices": total, "dicom_series": series, "model_sha256": digest}


def _write_case(
    folder: Path,
    volumes: VolumeSet,
    row: Mapping[str, Any],
    units: Any,
    mask: Any,
    digest: str,
    *,
    dicom: bool,
) -> dict[str, Any]:
    """Write one case's arrays and series; ``row`` holds the catalog's and the prepared set's columns."""
    facts = volumes.facts
    ct_map = PiecewiseLinearMap(tuple(facts["ct_map"]["knots_hu"]), tuple(facts["ct_map"]["knots_unit"]))
    pseudo_ct = decode_pseudo_ct(units, mask, ct_map, facts["unit"])
    prepared_path = f"prepared/{row['series_id']}-{row['volume']}.npy"
    (folder / "prepared").mkdir(exist_ok=True)
    np.save(folder / prepared_path, pseudo_ct)
    case = {name: row[name] for name in ("series_id", "subject_id", "split", "volume")}
    case |= {"prepared_path": prepared_path, "nifti_path": None, "dicom_folder": None, "dicom_refusal": _NO_GEOMETRY}
    case |= {"dicom_grid": None, "mr_shape": None, "mr_affine": None}
    prepared_affine = volumes.row(row["volume"])["affine"]
    if prepared_affine is None:
        return case
    algorithm = Algorithm(
        name="scanloom MR to CT",
        version=f"{version('scanloom')} {digest[:12]}",
        description="Pseudo-CT from MR by a CycleGAN; research use, not for clinical use.",
    )
    affine = np.asarray(prepared_affine, dtype=np.float64).reshape(4, 4)
    case |= {"mr_shape": list(row["shape"]), "mr_affine": list(row["affine"])}
    return case | write_volume(folder, row, pseudo_ct, affine, algorithm, dicom=dicom)
