"""Forget a subject: nothing of it stays in the workspace but its keyed pseudonym, by which later ingests refuse it.

Catalogs are rewritten without the subject. What was made from a catalog that held it is deleted, for its pixels may be
in there: prepared sets, translations, evaluations, exports, reports, and the pictures and checkpoints of trainings. The
next run makes them again. Trained weights and synthetic cohorts are listed, and deleted only where asked.

Every step may be killed: what leads to the subject is written down in ``identity/`` first and erased last, and each
step does nothing where there is nothing left to do.
"""

import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.errors import InputError
from pipeline.files import flush_directory, folder_manifest, manifest_hash, read_json, write_json
from pipeline.ingest.catalog_removal import remove_subjects
from pipeline.ingest.forgotten import forgotten_subjects, remember_forgotten
from pipeline.ingest.identity_removal import (
    NO_TRACE,
    SubjectTrace,
    crosswalk_paths,
    strip_crosswalk,
    strip_databases,
    strip_input,
    trace_of,
)
from pipeline.lineage import LEFTOVERS, dependent_outputs
from pipeline.stage_runner import RECORD_FILE, VOLATILE
from pipeline.workspace import Workspace

_TRACE_FILE = "forgetting.json"
_TRAINED, _COHORTS = "train_", "synthesize_"
_SHOWN_IN_TRAINING = ("grids", "tensorboard", "checkpoints")


@dataclass(frozen=True)
class Forgetting:
    """What forgetting a subject means in a workspace.

    Attributes:
        subject: pseudonym.
        catalogs: catalog folders that hold it, and how many of its series each.
        derived: outputs that are deleted.
        trained: outputs of trainings that saw it, in any split.
        cohorts: synthetic cohorts made by these.
        crosswalks: entries in ``identity/`` that lead to it.
    """

    subject: str
    catalogs: dict[Path, int]
    derived: tuple[Path, ...]
    trained: tuple[Path, ...]
    cohorts: tuple[Path, ...]
    crosswalks: int

    @property
    def nothing(self) -> bool:
        """Whether nothing of it is left."""
        return not (self.catalogs or self.derived or self.crosswalks)


def plan_forgetting(workspace: Workspace, subject: str) -> Forgetting:
    """Look for everything that a subject left.

    Args:
        workspace: looked through, not changed.
        subject: pseudonym, ``sub-...``.

    Raises:
        InputError: the workspace never heard of it.
    """
    catalogs = {}
    for folder in _catalog_folders(workspace):
        series = pl.read_parquet(folder / "series.parquet", columns=["subject_id"])
        catalogs[folder] = int((series["subject_id"] == subject).sum())
    holding = {folder: count for folder, count in catalogs.items() if count}
    entries = sum(subject in read_json(path)["subjects"] for path in crosswalk_paths(workspace.identity))
    entries += int((workspace.identity / _TRACE_FILE).exists())
    known = holding or entries or subject in forgotten_subjects(workspace.identity)
    if not known:
        raise InputError(
            "Only a subject of this workspace can be forgotten.",
            found=f"no catalog and no crosswalk that holds {subject}",
            allowed="a pseudonym from the catalog or the report, or a PatientID that was ingested here",
            change="Check the pseudonym (sub-...) and --workspace.",
        )
    dependent = dependent_outputs(workspace, holding, subject)
    trained = tuple(path for path in dependent if path.parent.name.startswith(_TRAINED))
    cohorts = tuple(path for path in dependent if path.parent.name.startswith(_COHORTS))
    derived = tuple(path for path in dependent if path not in {*trained, *cohorts})
    return Forgetting(subject, holding, derived, trained, cohorts, entries)


def forget(workspace: Workspace, plan: Forgetting, *, models: bool = False) -> None:
    """Carry a plan out; killed and planned and run again, it ends the same.

    Args:
        workspace: locked by the caller.
        plan: of `plan_forgetting`.
        models: delete the trained models and cohorts too.
    """
    remember_forgotten(workspace.identity, [plan.subject])
    trace = _written_trace(workspace, plan)
    for folder in plan.derived:
        shutil.rmtree(folder, ignore_errors=True)
    for folder in (*plan.cohorts, *plan.trained) if models else ():
        shutil.rmtree(folder, ignore_errors=True)
    for folder in plan.trained if not models else ():
        _strip_training(folder)
    for folder in plan.catalogs:
        _strip_catalog(folder, plan.subject, trace)
    _strip_logs(workspace, trace)
    _strip_split(workspace, plan.subject)
    _strip_ledger(workspace, plan.subject)
    strip_databases(workspace.identity, trace)
    for path in crosswalk_paths(workspace.identity):
        strip_crosswalk(path, plan.subject, trace)
    strip_input(workspace.identity, trace)
    (workspace.identity / _TRACE_FILE).unlink(missing_ok=True)
    flush_directory(workspace.identity)


def _catalog_folders(workspace: Workspace) -> list[Path]:
    return sorted(path.parent for path in workspace.root.glob("ingest/*/series.parquet"))


def _written_trace(workspace: Workspace, plan: Forgetting) -> SubjectTrace:
    """Everything that leads to the subject, together with what a killed attempt had found; kept until the end."""
    path = workspace.identity / _TRACE_FILE
    series: set[str] = set()
    for folder in plan.catalogs:
        table = pl.read_parquet(folder / "series.parquet", columns=["subject_id", "series_id"])
        series |= set(table.filter(pl.col("subject_id") == plan.subject)["series_id"])
    trace = NO_TRACE
    if path.exists():
        stored = read_json(path)
        if stored["subject"] == plan.subject:
            trace = SubjectTrace(*(frozenset(stored[name]) for name in ("series", "words", "names", "path_hashes")))
    for crosswalk in crosswalk_paths(workspace.identity):
        trace = trace.joined(trace_of(read_json(crosswalk), plan.subject, series | trace.series))
    fields = {name: sorted(getattr(trace, name)) for name in ("series", "words", "names", "path_hashes")}
    write_json(path, {"subject": plan.subject, **fields})
    path.chmod(0o600)
    return trace


def _strip_catalog(folder: Path, subject: str, trace: SubjectTrace) -> None:
    if not remove_subjects(folder, [subject], trace.path_hashes):
        shutil.rmtree(folder)
        return
    if not (folder / RECORD_FILE).is_file():
        return
    stored = read_json(folder / RECORD_FILE)
    facts = stored["record"]["facts"]
    counted = _counts(folder)
    _reseal(folder, stored, facts | {name: value for name, value in counted.items() if name in facts})


def _counts(folder: Path) -> dict[str, Any]:
    """The facts of an ingest that change."""
    tables = {name: pl.read_parquet(folder / f"{name}.parquet") for name in ("series", "lesions", "quarantine")}

    def by_value(table: str, column: str) -> dict[str, int]:
        values = tables[table][column].fill_null("unknown").value_counts().sort(column)
        return dict(values.iter_rows())

    return {
        "series": tables["series"].height,
        "subjects": tables["series"]["subject_id"].n_unique(),
        "lesions": tables["lesions"].height,
        "lesion_classes": by_value("lesions", "lesion_class"),
        "modalities": by_value("series", "modality"),
        "subject_source": sorted(tables["series"]["subject_source"].unique().to_list()),
        "quarantined": tables["quarantine"].height,
        "quarantine_reasons": by_value("quarantine", "reason"),
    }


def _strip_training(folder: Path) -> None:
    """Take the pictures and the images inside checkpoints out of a training; weights and log stay."""
    for name in _SHOWN_IN_TRAINING:
        shutil.rmtree(folder / name, ignore_errors=True)
    if (folder / RECORD_FILE).is_file():
        stored = read_json(folder / RECORD_FILE)
        _reseal(folder, stored, stored["record"]["facts"])
    elif folder.suffix in LEFTOVERS:
        shutil.rmtree(folder, ignore_errors=True)


def _reseal(folder: Path, stored: dict[str, Any], facts: dict[str, Any]) -> None:
    """Write the record of a folder whose files changed, so that it verifies again."""
    manifest = folder_manifest(folder, VOLATILE)
    record = stored["record"] | {"content_sha256": manifest_hash(manifest), "facts": facts}
    write_json(folder / RECORD_FILE, stored | {"record": record, "manifest": manifest})


def _strip_logs(workspace: Workspace, trace: SubjectTrace) -> None:
    """Take the subject's rows out of the quarantines that failed ingests left."""
    for path in sorted((workspace.root / "logs").glob("quarantine-*.parquet")):
        table = pl.read_parquet(path)
        kept = table.filter(~pl.col("path_hash").is_in(list(trace.path_hashes)))
        if kept.height < table.height:
            draft = path.with_suffix(".draft")
            kept.write_parquet(draft)
            draft.replace(path)


def _strip_split(workspace: Workspace, subject: str) -> None:
    if workspace.splits_path.exists():
        stored = read_json(workspace.splits_path)
        if stored["subjects"].pop(subject, None) is not None:
            write_json(workspace.splits_path, stored)


def _strip_ledger(workspace: Workspace, subject: str) -> None:
    """Blank messages that name the subject, and let no page of the file remember it."""
    if not workspace.ledger_path.exists():
        return
    with closing(sqlite3.connect(workspace.ledger_path)) as connection:
        connection.execute("PRAGMA secure_delete = ON")
        with connection:
            connection.execute("UPDATE stage_runs SET message = '' WHERE instr(message, ?)", (subject,))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("VACUUM")
