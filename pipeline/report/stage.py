"""The report stage: records of a run in, ``report.html`` and ``report.json`` out.

Any subset of stages may be there; what did not run is not shown. The page depends on the records, the settings, the
sources and the template files alone, never on the clock.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from pipeline.files import sha256_json, write_json, write_text
from pipeline.records import ProgressCallback, StageRecord, silent
from pipeline.report.cautions import cautions
from pipeline.report.contact_page import quality_numbers, render_sheet
from pipeline.report.contact_stage import STAGE_NAME as CONTACT_SHEET
from pipeline.report.contact_stage import ContactSheet, contact_sheet, read_look_alikes, read_sheet
from pipeline.report.contact_view import ContactView, report_view, sheet_views
from pipeline.report.decisions import decide
from pipeline.report.methods import common_methods, lesion_methods, mr_to_ct_methods
from pipeline.report.outside_methods import is_outside, outside_lesion_methods, outside_methods, outside_pair_methods
from pipeline.report.page import (
    TRACK_TITLES,
    LesionSection,
    Method,
    Page,
    TranslationSection,
    render,
    template_hash,
)
from pipeline.report.sections import (
    data_section,
    lesion_section,
    outside_section,
    provenance,
    translation_section,
)
from pipeline.report.stage_rows import stable_facts
from pipeline.report.tested_on import tested_on
from pipeline.results import Results, read_results
from pipeline.settings import RunSettings
from pipeline.stage_runner import Stage, StageContext, run_stage
from pipeline.workspace import Workspace

REPORT_PAGE, REPORT_NUMBERS = "report.html", "report.json"


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
        track: read_results(folders[f"evaluate_{track}"]) for track in TRACK_TITLES if f"evaluate_{track}" in folders
    }
    warnings = cautions(records, results, folders.get("translate_mr_to_ct"))
    context.progress("report sections", 0, 3)
    lesions = lesion_section(folders, results.get("lesions"), settings)
    context.progress("report sections", 1, 3)
    if is_outside(records):
        translation = outside_section(folders, results.get("mr_to_ct"), settings)
    else:
        translation = translation_section(folders, results.get("mr_to_ct"), settings)
    context.progress("report sections", 2, 3)
    sheet = read_sheet(folders[CONTACT_SHEET]) if CONTACT_SHEET in folders else None
    contact = None if sheet is None else _write_sheet(context.folder, folders, settings.name, sheet)
    page = render(_page(settings, records, folders, results, contact, lesions, translation, warnings))
    write_text(context.folder / REPORT_PAGE, page)
    quality = {} if sheet is None else {"quality": quality_numbers(sheet)}
    tested = {"test_sets": tested_on(records, folders)}
    write_json(context.folder / REPORT_NUMBERS, _numbers(settings, records, results, warnings) | quality | tested)
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
        tracks=tuple(TRACK_TITLES[track] for track in settings.tracks),
        decisions=tuple(decide(result) for result in results.values()),
        verdicts=tuple(verdict for result in results.values() for verdict in result.verdicts),
        headlines=tuple(headline for result in results.values() for headline in result.headlines),
        data=data_section(records, folders),
        contact=contact,
        lesions=lesions,
        translation=translation,
        warnings=warnings,
        methods=tuple(methods),
        provenance=provenance(settings, records, folders),
    )


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
        "decisions": {track: asdict(decide(result)) for track, result in results.items()},
        "results": {track: result.model_dump(mode="json") for track, result in results.items()},
        "warnings": list(warnings),
    }
