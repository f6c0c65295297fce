"""The report stage: records of a run in, ``report.html`` and ``report.json`` out.

Any subset of stages may be there; what did not run is not shown. The page depends on the records, the settings, the
sources and the template files alone, never on the clock.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from pipeline.files import read_json, sha256_json, write_json, write_text
from pipeline.pair_set import read_pair_set
from pipeline.prepared_set import read_image_set, read_volume_set
from pipeline.records import ProgressCallback, StageRecord, silent
from pipeline.report.case_pictures import case_gallery
from pipeline.report.cautions import cautions
from pipeline.report.contact_page import quality_numbers, render_sheet
from pipeline.report.contact_stage import STAGE_NAME as CONTACT_SHEET
from pipeline.report.contact_stage import ContactSheet, contact_sheet, read_look_alikes, read_sheet
from pipeline.report.contact_view import ContactView, report_view, sheet_views
from pipeline.report.data_tables import class_balance, lesion_counts, quarantine_table, subject_sources, volume_counts
from pipeline.report.lesion_pictures import class_pictures, copy_pairs
from pipeline.report.methods import common_methods, lesion_methods, mr_to_ct_methods
from pipeline.report.outside_methods import is_outside, outside_lesion_methods, outside_methods, outside_pair_methods
from pipeline.report.outside_pictures import pair_gallery
from pipeline.report.page import (
    DataSection,
    LesionSection,
    Method,
    Page,
    Provenance,
    TranslationSection,
    render,
    template_hash,
)
from pipeline.report.stage_rows import stable_facts, stage_rows
from pipeline.report.tables import TableView, table_view
from pipeline.report.training_curves import training_view
from pipeline.results import Results, read_results
from pipeline.settings import RunSettings
from pipeline.settings_loading import to_yaml
from pipeline.stage_runner import RECORD_FILE, Stage, StageContext, run_stage
from pipeline.workspace import Workspace

REPORT_PAGE, REPORT_NUMBERS = "report.html", "report.json"
_TRACK_TITLES = {"lesions": "Synthetic lesions", "mr_to_ct": "MR to pseudo-CT"}


def write_report(
    workspace: Workspace,
    settings: RunSettings,
    records: Mapping[str, StageRecord],
    *,
    progress: ProgressCallback = silent,
) -> StageRecord:
    """Write the report of a run.

    Args:
        workspace: where the output goes.
        settings: the run's settings.
        records: records of the stages that ran, by stage name; any subset.
        progress: where to report progress.

    Returns:
        A record with facts ``page`` (path relative to the workspace's root is ``folder``/``page``), ``bytes``,
        ``warnings``.
    """
    stages = {name: record for name, record in records.items() if name != "report"}
    if "ingest" in stages and not is_outside(stages):
        stages[CONTACT_SHEET] = contact_sheet(workspace, stages["ingest"], progress=progress)
    shown = {name: {"key": record.key, "facts": stable_facts(record.facts)} for name, record in stages.items()}

    def body(context: StageContext) -> dict[str, JsonValue]:
        return _write(context, settings, stages)

    return run_stage(
        workspace,
        Stage("report", "pipeline.report.stage", body),
        settings,
        records=stages,
        hashes={"shown": sha256_json(shown), "template": template_hash()},
        progress=progress,
    )


def _write(context: StageContext, settings: RunSettings, records: Mapping[str, StageRecord]) -> dict[str, JsonValue]:
    folders = dict(context.inputs)
    results = {
        track: read_results(folders[f"evaluate_{track}"]) for track in _TRACK_TITLES if f"evaluate_{track}" in folders
    }
    warnings = cautions(records, results, folders.get("translate_mr_to_ct"))
    context.progress("report sections", 0, 3)
    lesions = _lesion_section(folders, results.get("lesions"), settings)
    context.progress("report sections", 1, 3)
    if is_outside(records):
        translation = _outside_section(folders, results.get("mr_to_ct"), settings)
    else:
        translation = _translation_section(folders, results.get("mr_to_ct"), settings)
    context.progress("report sections", 2, 3)
    sheet = read_sheet(folders[CONTACT_SHEET]) if CONTACT_SHEET in folders else None
    contact = None if sheet is None else _write_sheet(context.folder, folders, settings.name, sheet)
    page = render(_page(settings, records, folders, results, contact, lesions, translation, warnings))
    write_text(context.folder / REPORT_PAGE, page)
    quality = {} if sheet is None else {"quality": quality_numbers(sheet)}
    write_json(context.folder / REPORT_NUMBERS, _numbers(settings, records, results, warnings) | quality)
    context.progress("report sections", 3, 3)
    return {"page": REPORT_PAGE, "bytes": len(page.encode()), "warnings": len(warnings)}


def _write_sheet(folder: Path, folders: Mapping[str, Path], run_name: str, sheet: ContactSheet) -> ContactView | None:
    """Write the whole contact sheet beside the report; returns the part that the report embeds."""
    if not sheet.cards and not sheet.groups:
        return None
    look_alikes = read_look_alikes(folders["ingest"])
    for name, page in render_sheet(run_name, sheet_views(sheet, look_alikes)):
        write_text(folder / name, page)
    return report_view(sheet, look_alikes)


def _page(
    settings: RunSettings,
    records: Mapping[str, StageRecord],
    folders: Mapping[str, Path],
    results: Mapping[str, Results],
    contact: ContactView | None,
    lesions: LesionSection | None,
    translation: TranslationSection | None,
    warnings: tuple[str, ...],
) -> Page:
    unit = str(records["prepare_mr_to_ct"].facts.get("unit", "HU")) if "prepare_mr_to_ct" in records else "HU"
    if is_outside(records):
        methods = [Method("Data", outside_methods(settings))]
        methods += [Method("Synthetic images", outside_lesion_methods(settings, records))] if lesions else []
        methods += [Method("Pseudo-CT", outside_pair_methods(settings, records))] if translation else []
    else:
        methods = [Method("Data", common_methods(settings))]
        methods += [Method("Synthetic lesions", lesion_methods(settings))] if lesions else []
        methods += [Method("MR to pseudo-CT", mr_to_ct_methods(settings, unit))] if translation else []
    return Page(
        title=settings.report.title,
        run_name=settings.name,
        tracks=tuple(_TRACK_TITLES[track] for track in settings.tracks),
        verdicts=tuple(verdict for result in results.values() for verdict in result.verdicts),
        headlines=tuple(headline for result in results.values() for headline in result.headlines),
        data=_data_section(records, folders),
        contact=contact,
        lesions=lesions,
        translation=translation,
        warnings=warnings,
        methods=tuple(methods),
        provenance=_provenance(settings, records, folders),
    )


def _data_section(records: Mapping[str, StageRecord], folders: Mapping[str, Path]) -> DataSection:
    ingest = records.get("ingest")
    quarantine = quarantine_table(folders["ingest"]) if "ingest" in folders else None
    tables = (lesion_counts(records), volume_counts(records), quarantine)
    return DataSection(
        stages=stage_rows(records),
        layout=str(ingest.facts.get("layout", "")) if ingest else "",
        layout_reason=str(ingest.facts.get("layout_reason", "")) if ingest else "",
        subject_sources=subject_sources(ingest) if ingest else (),
        tables=tuple(table for table in tables if table is not None),
        balance=class_balance(records),
    )


def _lesion_section(
    folders: Mapping[str, Path], results: Results | None, settings: RunSettings
) -> LesionSection | None:
    if "prepare_lesions" not in folders:
        return None
    prepared = read_image_set(folders["prepare_lesions"])
    cohort, evaluation, trained = (
        folders.get(name) for name in ("synthesize_lesions", "evaluate_lesions", "train_lesions")
    )
    return LesionSection(
        classes=class_pictures(prepared, cohort, settings.seed, settings.report.images_per_class),
        copies=copy_pairs(prepared, cohort, evaluation) if cohort and evaluation else (),
        training=training_view(trained, "synthetic lesions") if trained else None,
        tables=_tables(results),
    )


def _translation_section(
    folders: Mapping[str, Path], results: Results | None, settings: RunSettings
) -> TranslationSection | None:
    if "prepare_mr_to_ct" not in folders:
        return None
    translated, trained = folders.get("translate_mr_to_ct"), folders.get("train_mr_to_ct")
    gallery = None
    if translated:
        prepared = read_volume_set(folders["prepare_mr_to_ct"])
        gallery = case_gallery(prepared, translated, settings.report)
    return TranslationSection(
        gallery=gallery,
        training=training_view(trained, "MR, pseudo-CT and CT") if trained else None,
        tables=_tables(results),
    )


def _outside_section(
    folders: Mapping[str, Path], results: Results | None, settings: RunSettings
) -> TranslationSection | None:
    if "prepare_mr_to_ct" not in folders:
        return None
    gallery = pair_gallery(read_pair_set(folders["prepare_mr_to_ct"]), settings.report)
    return TranslationSection(gallery=gallery, training=None, tables=_tables(results))


def _tables(results: Results | None) -> tuple[TableView, ...]:
    return () if results is None else tuple(table_view(table) for table in results.tables)


def _provenance(settings: RunSettings, records: Mapping[str, StageRecord], folders: Mapping[str, Path]) -> Provenance:
    made = {name: read_json(folder / RECORD_FILE) for name, folder in folders.items()}
    versions = {package: version for entry in made.values() for package, version in entry["versions"].items()}
    inputs = made["ingest"]["inputs"] if "ingest" in made else {}
    hashes = [("Input files", inputs["input"])] if "input" in inputs else []
    hashes += [
        (f"Weights of {name}", str(record.facts["model_sha256"]))
        for name, record in records.items()
        if name.startswith("train_") and "model_sha256" in record.facts
    ]
    return Provenance(to_yaml(settings), settings.seed, tuple(sorted(versions.items())), tuple(hashes))


def _numbers(
    settings: RunSettings,
    records: Mapping[str, StageRecord],
    results: Mapping[str, Results],
    warnings: tuple[str, ...],
) -> dict[str, Any]:
    return {
        "settings": settings.model_dump(mode="json"),
        "stages": {
            name: {
                "key": record.key,
                "content_sha256": record.content_sha256,
                "facts": stable_facts(record.facts),
            }
            for name, record in records.items()
        },
        "results": {track: result.model_dump(mode="json") for track, result in results.items()},
        "warnings": list(warnings),
    }
