"""The ingest stage: an input folder becomes a de-identified catalog, and what cannot be trusted a quarantine row."""

from collections import Counter
from dataclasses import asdict
from functools import partial
from pathlib import Path

import polars as pl
from pydantic import JsonValue

from pipeline.catalog import Catalog
from pipeline.deidentify import Pseudonymizer
from pipeline.errors import InputError, WorkspaceError
from pipeline.files import PARTIAL_SUFFIX, sha256_bytes, sha256_json, write_json
from pipeline.ingest.catalog_builder import CatalogBuilder, Crosswalk
from pipeline.ingest.file_index import INDEX_FILE, FileIndex, IndexedTree, contents, fingerprint
from pipeline.ingest.forgotten import forgotten_subjects
from pipeline.ingest.found import Reading
from pipeline.ingest.known_volumes import KnownVolumes
from pipeline.ingest.layouts import LAYOUTS, detect
from pipeline.ingest.layouts.nifti_cases import unusable
from pipeline.ingest.readings import Readings
from pipeline.ingest.retries import remember_input, retries
from pipeline.ingest.source_tree import SourceTree, walk
from pipeline.records import ProgressCallback, StageRecord, silent
from pipeline.settings import IngestSettings, RunSettings
from pipeline.spreading import Spread, here
from pipeline.stage_runner import Stage, StageContext, run_stage
from pipeline.workspace import Workspace

CHANGES_FILE = "logs/ingest.json"
"""What the last ingest found changed, and how much it had to parse; no part of its output."""


def ingest(
    workspace: Workspace,
    settings: RunSettings,
    input_folder: Path,
    *,
    progress: ProgressCallback = silent,
    spread: Spread = here,
) -> StageRecord:
    """Read an input folder into a catalog (see `pipeline.catalog`), or find it read.

    Args:
        workspace: where the catalog goes; original names and identifiers go into its ``identity/`` alone.
        settings: ``settings.ingest`` is used.
        input_folder: folder in one of `LAYOUTS`, or a MedMNIST-style .npz file.
        progress: counted in files or images.
        spread: where files are parsed.

    Returns:
        Record with the facts layout, layout_reason, series, subjects, lesions, quarantined (rows), quarantine_reasons,
        modalities, subject_source, ignored (files that are no scans), look_alikes (pairs of series of different
        subjects that show the same).

    Raises:
        InputError: nothing there, no known layout, nothing usable in it.
    """
    tree = walk(input_folder, leave_out=workspace.root)
    key = workspace.identity_key()
    pseudonymizer = Pseudonymizer(key)
    index = FileIndex(workspace.identity / INDEX_FILE)
    indexed = index.update(tree, progress, keep=not workspace.planning)
    if not workspace.planning:
        remember_input(workspace.identity, tree.root)
    readings = Readings(
        workspace.identity,
        KnownVolumes(workspace.root / "ingest"),
        tree,
        indexed.hashes,
        partial(unusable, min_slices=settings.ingest.min_slices),
    )
    record = run_stage(
        workspace,
        Stage(
            "ingest",
            "pipeline.ingest.stage",
            partial(_read_input, tree, readings, settings.ingest, pseudonymizer, spread),
        ),
        settings.ingest,
        records={},
        hashes={
            "input": fingerprint(contents(tree, indexed), pseudonymizer),
            "identity": sha256_bytes(b"identity\0" + key),
            "retries": str(retries(workspace.identity)),
            "forgotten": sha256_json(sorted(forgotten_subjects(workspace.identity))),
            "class_order": sha256_json(list(settings.ingest.lesion_classes or ())),  # settings enter keys unordered
        },
        progress=progress,
    )
    if not workspace.planning:
        write_json(workspace.root / CHANGES_FILE, _changes(indexed, readings, rebuilt=index.rebuilt))
    return record


def changed_files(workspace: Workspace, input_folder: Path) -> str:
    """How many files of an input are new, changed and removed since the last ingest, in words; nothing is kept."""
    tree = walk(input_folder, leave_out=workspace.root)
    changes = FileIndex(workspace.identity / INDEX_FILE).update(tree, keep=False).changes
    return f"files: {changes.new} new, {changes.changed} changed, {changes.removed} removed"


def _changes(indexed: IndexedTree, readings: Readings, *, rebuilt: bool) -> dict[str, JsonValue]:
    return {
        "files": asdict(indexed.changes),
        "read": {what: asdict(count) for what, count in readings.counts.items() if count.parsed or count.known},
        "index_rebuilt": rebuilt,
    }


def _read_input(
    tree: SourceTree,
    readings: Readings,
    settings: IngestSettings,
    pseudonymizer: Pseudonymizer,
    spread: Spread,
    context: StageContext,
) -> dict[str, JsonValue]:
    """Body of the stage: fill the folder, write the crosswalk, return the facts."""
    identity = context.workspace.identity
    layout, reason = detect(tree) if settings.layout == "auto" else (settings.layout, "chosen in the settings")
    with CatalogBuilder(context.folder, pseudonymizer, settings, forgotten_subjects(identity)) as builder:
        for refusal in tree.refused:
            builder.add(refusal)
        for found in LAYOUTS[layout].read(Reading(tree, settings, context.progress, readings, spread)):
            builder.add(found)
        catalog = builder.finish()
    name = context.folder.name.removesuffix(PARTIAL_SUFFIX)
    _write_crosswalk(identity / f"crosswalk-{name}.json", builder.crosswalk)
    if not builder.accepted:
        kept = f"logs/quarantine-{name}.parquet"
        catalog.quarantine.write_parquet(context.workspace.root / kept)
        raise _nothing_usable(builder.refusals, kept)
    return _facts(catalog, layout, reason, builder.ignored + tree.hidden) | {"look_alikes": builder.look_alikes}


def _write_crosswalk(path: Path, crosswalk: Crosswalk) -> None:
    """Store which pseudonym is whom, readable by the owner only."""
    try:
        write_json(path, crosswalk)
        path.chmod(0o600)
    except OSError as error:
        raise WorkspaceError(
            "The identity folder of the workspace must be writable.",
            found=error.strerror or type(error).__name__,
            allowed="a folder of mode 700 that belongs to you",
            change="Correct the permissions of identity/ in the workspace.",
        ) from None


def _facts(catalog: Catalog, layout: str, reason: str, ignored: int) -> dict[str, JsonValue]:
    series, quarantine = catalog.series, catalog.quarantine
    return {
        "layout": layout,
        "layout_reason": reason,
        "series": series.height,
        "subjects": series["subject_id"].n_unique(),
        "lesions": catalog.lesions.height,
        "lesion_classes": _counts(catalog.lesions["lesion_class"]),
        "quarantined": quarantine.height,
        "quarantine_reasons": _counts(quarantine["reason"]),
        "modalities": _counts(series["modality"].fill_null("unknown")),
        "subject_source": sorted(series["subject_source"].unique().to_list()),
        "ignored": ignored,
    }


def _counts(column: pl.Series) -> dict[str, JsonValue]:
    return dict(sorted(Counter(str(value) for value in column).items()))


def _nothing_usable(reasons: dict[str, int], kept: str) -> InputError:
    rows = ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "no scan or image at all"
    return InputError(
        "The input must hold at least one usable scan or image.",
        found=f"everything was quarantined: {rows}" if reasons else rows,
        allowed="MR or CT scans, class folders of images, slice pairs, or a MedMNIST-style .npz file",
        change=f"See the reasons with `scanloom quarantine list --workspace DIR` ({kept} there) and repair the files.",
    )
